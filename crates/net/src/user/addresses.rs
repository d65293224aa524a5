//! The guest's addresses, as far as it has shown them: what forwards lead to.

use super::wire::{Ends, GATEWAY, GATEWAY_V6, GUEST, PREFIX_V6, is_ours};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// It uses the one of IPv4.
    version_4: bool,
    /// The last of IPv6.
    version_6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The guest uses `ip`, or is about to.
    pub(super) fn note(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.version_4 |= ip == GUEST,
            IpAddr::V6(ip) if may_be_guests(ip) => self.version_6 = Some(ip),
            IpAddr::V6(_) => {}
        }
    }

    /// A flow to the guest's `port` from the gateway's port `from`: by IPv4, unless the guest has
    /// shown that it has IPv6 alone.
    pub(super) fn ends(&self, port: u16, from: u16) -> Ends {
        match self.version_6.filter(|&ip| !self.version_4 && may_be_guests(ip)) {
            Some(ip) => Ends {
                guest: SocketAddr::from((ip, port)),
                remote: SocketAddr::from((GATEWAY_V6, from)),
            },
            None => Ends {
                guest: SocketAddr::from((GUEST, port)),
                remote: SocketAddr::from((GATEWAY, from)),
            },
        }
    }
}

/// Whether the guest may have this address of the network's.
pub(super) fn may_be_guests(ip: Ipv6Addr) -> bool {
    let inside = ip.segments()[..4] == PREFIX_V6.segments()[..4];
    inside && ip != PREFIX_V6 && !is_ours(ip.into())
}
