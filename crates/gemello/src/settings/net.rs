//! `--net` and `machine.net`.

use super::name::MachineName;
use super::values::{self, Text};
use machine::{Cable, Config, Device, Forward, Mac, Network, Protocol, UserConfig};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The port of a resolver that is named without one.
const DNS: u16 = 53;

/// What network a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetChoice {
    None,
    Some(NetSettings),
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetSettings {
    /// Its address, if that is said.
    mac: Option<Mac>,
    joined: Joined,
}

/// What it is joined to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Joined {
    /// A network behind the host's sockets.
    User(UserConfig),
}

/// For messages.
const KINDS: &str = "user and none";

impl Text for NetChoice {
    const SUCH_AS: &'static str = "a network such as \"user,forward=tcp:127.0.0.1:8080:80\"";

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let mut joined = match first {
            "none" if words.next().is_none() => return Ok(Self::None),
            "none" => return Err("no network has no options; write none alone".into()),
            "user" => Joined::User(UserConfig::default()),
            other => return Err(format!("no network is called {other}; there are {KINDS}")),
        };
        let mut mac = None;
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match &mut joined {
                _ if key == "mac" => mac = Some(address(value)?),
                Joined::User(config) => user_option(config, key, value)?,
            }
        }
        Ok(Self::Some(NetSettings { mac, joined }))
    }

    fn text(&self) -> String {
        let Self::Some(NetSettings { mac, joined }) = self else { return "none".into() };
        let mut text = match joined {
            Joined::User(config) => user_text(config),
        };
        if let Some(mac) = mac {
            text += &format!(",mac={mac}");
        }
        text
    }
}

impl NetSettings {
    /// As the machine `name` takes it.
    pub(crate) fn network(&self, name: &MachineName) -> Network {
        let mac = self.mac.unwrap_or_else(|| Mac::of_machine(&name.to_string()));
        let cable = match &self.joined {
            Joined::User(config) => Cable::User(config.clone()),
        };
        Network { mac, cable }
    }
}

fn address(text: &str) -> Result<Mac, String> {
    text.parse().map_err(|why| format!("mac={text}: {why}"))
}

fn user_option(config: &mut UserConfig, key: &str, value: &str) -> Result<(), String> {
    match key {
        "forward" => config.forward.push(forward(value)?),
        "host-loopback" => config.host_loopback = values::switch(value)?.into(),
        "restrict" => config.restrict = values::switch(value)?.into(),
        "dns" => config.dns = Some(resolver(value)?),
        _ => {
            return Err(format!(
                "no option is called {key}; there are forward=, host-loopback=, restrict=, dns= \
                 and mac="
            ));
        }
    }
    Ok(())
}

fn user_text(config: &UserConfig) -> String {
    let UserConfig { forward, host_loopback, restrict, dns } = config;
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
    text
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
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let port = port.parse().map_err(|_| wrong())?;
    let guest = guest.parse().ok().filter(|guest| *guest != 0).ok_or_else(wrong)?;
    Ok(Forward { protocol, host: SocketAddrV4::new(address, port), guest })
}

fn resolver(text: &str) -> Result<SocketAddrV4, String> {
    let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, DNS)));
    address.map_err(|_| format!("{text} is no resolver; write dns=192.0.2.1, or with a port"))
}

fn shown(Forward { protocol, host, guest }: &Forward) -> String {
    format!("{}:{host}:{guest}", protocol.name())
}

/// Tells which ports the host has chosen for the `open` forwards of `config`.
pub(crate) fn announce(config: &Config, open: &[Forward]) {
    let forwards = config.devices.iter().filter_map(|device| match device {
        Device::Net(Network { cable: Cable::User(config), .. }) => Some(&config.forward),
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
            "user,host-loopback=on,restrict=on,dns=192.0.2.1:53,mac=52:54:00:12:34:56",
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
            ("user,dns=localhost", "write dns=192.0.2.1"),
            ("user,mac=ff:ff:ff:ff:ff:ff", "six bytes such as"),
        ] {
            let refusal = NetChoice::parse(text).expect_err(text);
            assert!(refusal.contains(remedy), "{text}: {refusal}");
        }
    }
}
