//! Who answers the guest's DNS queries: the host's resolvers, as they are now.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The port of DNS.
pub(super) const DNS_PORT: u16 = 53;
/// Where the host says who they are.
const FILE: &str = "/etc/resolv.conf";
/// How long what it says is believed.
const FRESH: Duration = Duration::from_secs(2);
/// As many as the host's own library takes (resolv.conf(5)).
const RESOLVERS_MAX: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Resolvers {
    said: Option<SocketAddr>,
    read: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    /// Who answered last.
    preferred: Option<SocketAddr>,
}

impl Resolvers {
    /// `said` alone, or the host's.
    pub(super) fn new(said: Option<SocketAddr>) -> Self {
        Self { said, read: RefCell::default(), preferred: None }
    }

    /// All, the one to ask first at the beginning.
    pub(super) fn list(&self) -> Vec<SocketAddr> {
        let mut list = self.said.map_or_else(|| self.of_host(), |one| vec![one]);
        if let Some(at) = list.iter().position(|one| Some(*one) == self.preferred) {
            list.rotate_left(at);
        }
        list
    }

    /// This one answers.
    pub(super) fn prefer(&mut self, resolver: SocketAddr) {
        self.preferred = Some(resolver);
    }

    /// As if the host said so for ever.
    #[cfg(test)]
    pub(super) fn of(list: Vec<SocketAddr>) -> Self {
        let read = RefCell::new(Some((Instant::now() + FRESH * 100, list)));
        Self { said: None, read, preferred: None }
    }

    fn of_host(&self) -> Vec<SocketAddr> {
        let now = Instant::now();
        let mut read = self.read.borrow_mut();
        match &*read {
            Some((when, list)) if now.duration_since(*when) < FRESH => list.clone(),
            _ => {
                let list = parse(&fs::read_to_string(FILE).unwrap_or_default());
                *read = Some((now, list.clone()));
                list
            }
        }
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse().ok()
    };
    let mut list: Vec<IpAddr> = text.lines().filter_map(address).take(RESOLVERS_MAX).collect();
    if list.is_empty() {
        list.push(Ipv4Addr::LOCALHOST.into()); // resolv.conf(5)
    }
    list.into_iter().map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_library_does() {
        let text = [
            "# x",
            "search a.b",
            "nameserver 192.0.2.1",
            "nameserver ::1",
            "nameserver fe80::1%eth0",
            " nameserver 192.0.2.2 ",
        ];
        let text = text.join("\n");
        let expected =
            ["192.0.2.1:53", "[::1]:53", "192.0.2.2:53"].map(|text| text.parse().expect("one"));
        assert_eq!(parse(&text), expected);
        assert_eq!(parse("nameserver\n"), ["127.0.0.1:53".parse().expect("one")]);
    }

    #[test]
    fn who_answers_is_asked_first() {
        let all: Vec<_> =
            ["192.0.2.1:53", "192.0.2.2:53"].map(|one| one.parse().expect("one")).into();
        let mut resolvers = Resolvers::of(all.clone());
        resolvers.prefer(all[1]);
        assert_eq!(resolvers.list(), [all[1], all[0]]);
    }
}
