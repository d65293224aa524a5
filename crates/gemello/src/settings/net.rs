//! `--net` and `machine.net`.

use super::values::{self, Text};
use machine::{Config, Device, Forward, Ipv6, Protocol, UserConfig};
use std::net::{IpAddr, SocketAddr};

/// The port of a resolver that is named without one.
const DNS: u16 = 53;

/// What network a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetChoice {
    None,
    /// One behind the host's sockets.
    User(UserConfig),
}

impl Text for NetChoice {
    const SUCH_AS: &'static str = "a network such as \"user,forward=tcp:127.0.0.1:8080:80\"";

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        match words.next() {
            Some("user") => {}
            Some("none") if words.next().is_none() => return Ok(Self::None),
            Some("none") => return Err("no network has no options; write none alone".into()),
            other => {
                let other = other.unwrap_or_default();
                return Err(format!("no network is called {other}; there are user and none"));
            }
        }
        let mut config = UserConfig::default();
        for word in words {
            match word.split_once('=') {
                Some(("forward", forward)) => config.forward.push(self::forward(forward)?),
                Some(("host-loopback", switch)) => {
                    config.host_loopback = values::switch(switch)?.into();
                }
                Some(("restrict", switch)) => config.restrict = values::switch(switch)?.into(),
                Some(("dns", address)) => config.dns = Some(resolver(address)?),
                Some(("ipv6", choice)) => config.ipv6 = ipv6(choice)?,
                _ => {
                    return Err(format!(
                        "no option is called {word}; there are forward=, host-loopback=, \
                         restrict=, dns= and ipv6="
                    ));
                }
            }
        }
        Ok(Self::User(config))
    }

    fn text(&self) -> String {
        let Self::User(UserConfig { forward, host_loopback, restrict, dns, ipv6 }) = self else {
            return "none".into();
        };
        let mut text = "user".to_owned();
        for forward in forward {
            text += &format!(",forward={}", shown(forward));
        }
        if !host_loopback.is_off() {
            text += ",host-loopback=on";
        }
        if !restrict.is_off() {
            text += ",restrict=on";
        }
        if let Some(dns) = dns {
            text += &format!(",dns={dns}");
        }
        match ipv6 {
            Ipv6::Auto => {}
            Ipv6::On => text += ",ipv6=on",
            Ipv6::Off => text += ",ipv6=off",
        }
        text
    }
}

/// `tcp:[ADDRESS:]PORT:GUEST-PORT`; without address, the loopback's.
fn forward(text: &str) -> Result<Forward, String> {
    let wrong = || format!("{text} is no forward; write tcp:127.0.0.1:8080:80, or udp:…");
    let (protocol, rest) = text.split_once(':').ok_or_else(wrong)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    let (host, guest) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let (address, port) = host.rsplit_once(':').unwrap_or(("127.0.0.1", host));
    let address: IpAddr = match address.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).map_err(|_| wrong())?,
        None => address.parse().map(IpAddr::V4).map_err(|_| wrong())?,
    };
    let port = port.parse().map_err(|_| wrong())?;
    let guest = guest.parse().ok().filter(|guest| *guest != 0).ok_or_else(wrong)?;
    Ok(Forward { protocol, host: SocketAddr::new(address, port), guest })
}

fn ipv6(text: &str) -> Result<Ipv6, String> {
    match text {
        "auto" => Ok(Ipv6::Auto),
        "on" => Ok(Ipv6::On),
        "off" => Ok(Ipv6::Off),
        _ => Err(format!("ipv6={text} is none of auto, on and off")),
    }
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, DNS)));
    address.map_err(|_| format!("{text} is no resolver; write dns=192.0.2.1, or with a port"))
}

fn shown(Forward { protocol, host, guest }: &Forward) -> String {
    format!("{}:{host}:{guest}", protocol.name())
}

/// Tells which ports the host has chosen for the `open` forwards of `config`.
pub(crate) fn announce(config: &Config, open: &[Forward]) {
    let forwards = config.devices.iter().filter_map(|device| match device {
        Device::Net(config) => Some(&config.forward),
        _ => None,
    });
    for (asked, open) in forwards.flatten().zip(open) {
        if asked.host.port() == 0 {
            eprintln!("gemello: forward {}", shown(open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "none",
            "user",
            "user,forward=tcp:127.0.0.1:8080:80,forward=udp:0.0.0.0:0:53",
            "user,host-loopback=on,restrict=on,dns=192.0.2.1:53",
            "user,forward=tcp:[::1]:8080:80,dns=[2001:db8::1]:53,ipv6=on",
            "user,ipv6=off",
        ] {
            assert_eq!(NetChoice::parse(text).map(|net| net.text()), Ok(text.to_owned()));
        }
        let short = NetChoice::parse("user,forward=tcp:8080:80,host-loopback=off,dns=192.0.2.1");
        let full = "user,forward=tcp:127.0.0.1:8080:80,dns=192.0.2.1:53";
        assert_eq!(short.map(|net| net.text()), Ok(full.to_owned()));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("bridge", "there are user and none"),
            ("none,restrict=on", "write none alone"),
            ("user,forwards=1", "there are forward="),
            ("user,restrict=yes", "neither on nor off"),
            ("user,forward=80:80", "write tcp:127.0.0.1:8080:80"),
            ("user,forward=tcp:80:0", "write tcp:127.0.0.1:8080:80"),
            ("user,forward=tcp:::1:80:80", "write tcp:127.0.0.1:8080:80"),
            ("user,ipv6=maybe", "none of auto, on and off"),
            ("user,dns=localhost", "write dns=192.0.2.1"),
        ] {
            let refusal = NetChoice::parse(text).expect_err(text);
            assert!(refusal.contains(remedy), "{text}: {refusal}");
        }
    }
}
