//! `--net` and `machine.net`.

use super::name::MachineName;
use super::values::{self, Text};
use crate::control;
use agent_job::Net;
use anyhow::bail;
use machine::{Cable, Config, Device, Forward, Hardware, Ipv6, Mac, Network, Protocol, UserConfig};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

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
    /// A program's socket.
    Unix(PathBuf),
    /// A switch among this user's machines.
    Switch(MachineName),
    /// A TAP device.
    Tap(String),
}

/// A port of the host's that `--publish` has lead to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published(Forward);

impl Published {
    /// `[ADDRESS:]PORT:GUEST-PORT`, with `/tcp` or `/udp` behind it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let forward = forward(&format!("{protocol}:{ports}"));
        forward
            .map(Self)
            .map_err(|_| format!("{text} is no such ports; write 8080:80, or 53:53/udp"))
    }
}

/// For messages.
const KINDS: &str = "user, unix=PATH, switch=NAME, tap=NAME and none";

impl Text for NetChoice {
    const SUCH_AS: &'static str = "a network such as \"user,forward=tcp:127.0.0.1:8080:80\"";

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = words(text).into_iter();
        let first = words.next().unwrap_or_default();
        let mut joined = match first.split_once('=').unwrap_or((&first, "")) {
            ("none", "") if words.len() == 0 => return Ok(Self::None),
            ("none", "") => return Err("no network has no options; write none alone".into()),
            ("user", "") => Joined::User(UserConfig::default()),
            ("unix", path) if !path.is_empty() => Joined::Unix(path.into()),
            ("switch", name) => Joined::Switch(MachineName::parse(name)?),
            ("tap", name) if !name.is_empty() => Joined::Tap(name.into()),
            _ => return Err(format!("no network is called {first}; there are {KINDS}")),
        };
        let mut mac = None;
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match &mut joined {
                _ if key == "mac" => mac = Some(address(value)?),
                Joined::User(config) => user_option(config, key, value)?,
                Joined::Unix(_) | Joined::Switch(_) | Joined::Tap(_) => {
                    return Err(format!(
                        "no option of this network is called {key}; there is mac="
                    ));
                }
            }
        }
        Ok(Self::Some(NetSettings { mac, joined }))
    }

    fn text(&self) -> String {
        let Self::Some(NetSettings { mac, joined }) = self else { return "none".into() };
        let mut text = match joined {
            Joined::User(config) => user_text(config),
            Joined::Unix(path) => format!("unix={}", path.display().to_string().replace(',', ",,")),
            Joined::Switch(name) => format!("switch={name}"),
            Joined::Tap(name) => format!("tap={name}"),
        };
        if let Some(mac) = mac {
            text += &format!(",mac={mac}");
        }
        text
    }
}

impl NetSettings {
    /// A network behind the host's sockets, all else as usual.
    pub(crate) fn user() -> Self {
        Self { mac: None, joined: Joined::User(UserConfig::default()) }
    }

    /// How the agent gets its guest addresses there: those of gemello's own network are known.
    pub(crate) fn addresses(&self) -> Net {
        match self.joined {
            Joined::User(_) => Net::Known {
                address: UserConfig::GUEST,
                prefix: UserConfig::NETMASK.to_bits().leading_ones() as u8,
                gateway: UserConfig::GATEWAY,
                resolver: UserConfig::RESOLVER,
            },
            Joined::Unix(_) | Joined::Tap(_) => Net::Asked,
            Joined::Switch(_) => Net::None,
        }
    }

    /// As the machine `name` takes it.
    ///
    /// # Errors
    /// There is no folder for a switch.
    pub(crate) fn network(&self, name: &MachineName) -> anyhow::Result<Network> {
        let mac = self.mac.unwrap_or_else(|| Mac::of_machine(&name.to_string()));
        let cable = match &self.joined {
            Joined::User(config) => Cable::User(config.clone()),
            Joined::Unix(path) => Cable::Unix { path: path.clone() },
            Joined::Switch(name) => {
                Cable::Switch { folder: control::folder()?, name: name.to_string() }
            }
            Joined::Tap(name) => Cable::Tap { name: name.clone() },
        };
        Ok(Network { mac, cable })
    }

    /// Has the ports `published` lead to the guest, too.
    ///
    /// # Errors
    /// It is a network in which there are no such ports.
    pub(super) fn publish(&mut self, published: &[Published]) -> anyhow::Result<()> {
        match &mut self.joined {
            Joined::User(config) => config.forward.extend(published.iter().map(|it| it.0)),
            _ if published.is_empty() => {}
            Joined::Unix(_) | Joined::Switch(_) | Joined::Tap(_) => {
                bail!("--publish leads into the network of --net user, and this is another one")
            }
        }
        Ok(())
    }

    /// Its path, if it has one.
    pub(super) fn path(&mut self) -> Option<&mut PathBuf> {
        match &mut self.joined {
            Joined::Unix(path) => Some(path),
            Joined::User(_) | Joined::Switch(_) | Joined::Tap(_) => None,
        }
    }
}

/// Has a saved machine of `hardware` find its switch where this user's are now.
///
/// # Errors
/// There is no folder for it.
pub(crate) fn find_switch(hardware: &mut Hardware) -> anyhow::Result<()> {
    for device in &mut hardware.devices {
        if let Device::Net(Network { cable: Cable::Switch { folder, .. }, .. }) = device {
            *folder = control::folder()?;
        }
    }
    Ok(())
}

/// `text` at its commas; two commas are one of a word.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words
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
        "ipv6" => config.ipv6 = ipv6(value)?,
        _ => {
            return Err(format!(
                "no option is called {key}; there are forward=, host-loopback=, restrict=, dns=, \
                 ipv6= and mac="
            ));
        }
    }
    Ok(())
}

fn user_text(config: &UserConfig) -> String {
    let UserConfig { forward, host_loopback, restrict, dns, ipv6 } = config;
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
            "unix=/run/pa,,sst.sock",
            "switch=lab.1,mac=52:54:00:12:34:56",
            "tap=tap0",
            "user",
            "user,forward=tcp:127.0.0.1:8080:80,forward=udp:0.0.0.0:0:53",
            "user,host-loopback=on,restrict=on,dns=192.0.2.1:53,mac=52:54:00:12:34:56",
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
    fn published_ports_are_forwards() {
        for (text, as_forward) in [
            ("8080:80", "tcp:127.0.0.1:8080:80"),
            ("0.0.0.0:0:80/tcp", "tcp:0.0.0.0:0:80"),
            ("[::1]:53:53/udp", "udp:[::1]:53:53"),
        ] {
            let Published(forward) = Published::parse(text).expect(text);
            assert_eq!(shown(&forward), as_forward);
        }
        for text in ["80", "8080:80/sctp", "a:80:80", "8080:0", ""] {
            assert!(Published::parse(text).expect_err(text).contains("8080:80"));
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("bridge", "there are user, unix=PATH"),
            ("user=x", "there are user, unix=PATH"),
            ("unix", "there are user, unix=PATH"),
            ("unix=a,restrict=on", "there is mac="),
            ("switch=", "a name has 1 to 64"),
            ("switch=a/b", "a name has letters"),
            ("none,restrict=on", "write none alone"),
            ("user,forwards=1", "there are forward="),
            ("user,restrict=yes", "neither on nor off"),
            ("user,forward=80:80", "write tcp:127.0.0.1:8080:80"),
            ("user,forward=tcp:80:0", "write tcp:127.0.0.1:8080:80"),
            ("user,forward=tcp:::1:80:80", "write tcp:127.0.0.1:8080:80"),
            ("user,ipv6=maybe", "none of auto, on and off"),
            ("user,dns=localhost", "write dns=192.0.2.1"),
            ("user,mac=ff:ff:ff:ff:ff:ff", "six bytes such as"),
        ] {
            let refusal = NetChoice::parse(text).expect_err(text);
            assert!(refusal.contains(remedy), "{text}: {refusal}");
        }
    }
}
