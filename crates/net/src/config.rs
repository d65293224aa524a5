//! What a user-mode network is told.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    #[default]
    Off,
}

impl Switch {
    /// Whether it is off.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// Whether a guest is offered an address of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// While the host has a route into the Internet by IPv6, and the guest a way out.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: the guest's packets of IPv6 are dropped.
    Off,
}

impl Ipv6 {
    /// Whether it is [`Ipv6::Auto`].
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// A network behind the host's sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserConfig {
    /// Ports of the host's that lead to the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Forward>,
    /// Whether the gateway's address leads to the host's loopback.
    #[serde(skip_serializing_if = "Switch::is_off")]
    pub host_loopback: Switch,
    /// Whether the guest reaches nothing but what is said here: forwards, the host's loopback.
    #[serde(skip_serializing_if = "Switch::is_off")]
    pub restrict: Switch,
    /// The resolver that answers the guest [default: those of /etc/resolv.conf].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<SocketAddr>,
    /// Whether the guest has IPv6.
    #[serde(skip_serializing_if = "Ipv6::is_auto")]
    pub ipv6: Ipv6,
}

impl UserConfig {
    /// The guest's address.
    pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    /// The router's, at which the guest also finds the host.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    /// Of who answers DNS queries.
    pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
    /// The network's mask.
    pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host's that leads to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// What it speaks.
    pub protocol: Protocol,
    /// The host's address; with port 0 the host chooses one.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest: u16,
}
