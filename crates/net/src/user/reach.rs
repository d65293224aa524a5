//! What the guest may reach, and under which address the host does.

use super::resolvers::{DNS_PORT, Resolvers};
use super::wire::{GATEWAY, GATEWAY_V6, NETMASK, RESOLVER, RESOLVER_V6};
use crate::config::{Ipv6, Switch, UserConfig};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What IPv4 addresses are mapped to for networks that have IPv6 alone (RFC 6052, 2.1).
const TRANSLATED: [u16; 6] = [0x64, 0xFF9B, 0, 0, 0, 0];

/// See the module.
#[derive(Debug)]
pub(super) struct Reach {
    host_loopback: Switch,
    restrict: Switch,
    ipv6: Ipv6,
    pub(super) resolvers: Resolvers,
}

impl Reach {
    pub(super) fn new(config: &UserConfig) -> Self {
        Self {
            host_loopback: config.host_loopback,
            restrict: config.restrict,
            ipv6: config.ipv6,
            resolvers: Resolvers::new(config.dns),
        }
    }

    /// Whether the guest's DNS queries are answered.
    pub(super) fn resolves(&self) -> bool {
        self.restrict.is_off()
    }

    pub(super) fn restrict(&self) -> Switch {
        self.restrict
    }

    /// Whether the guest has anything to do with IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.ipv6 != Ipv6::Off
    }

    /// Whether the guest is offered an address of IPv6 now.
    pub(super) fn offers_ipv6(&self) -> bool {
        match self.ipv6 {
            Ipv6::On => true,
            Ipv6::Off => false,
            Ipv6::Auto => self.restrict.is_off() && leads_out_by_ipv6(),
        }
    }

    /// Whether `remote` answers DNS queries.
    pub(super) fn is_resolver(remote: SocketAddr) -> bool {
        let resolvers = [IpAddr::V4(RESOLVER), IpAddr::V6(RESOLVER_V6)];
        remote.port() == DNS_PORT && resolvers.contains(&remote.ip())
    }

    /// The host's socket addresses of `remote` for TCP, of which any will do: none if the guest may
    /// not connect to it.
    pub(super) fn tcp(&self, remote: SocketAddr) -> Vec<SocketAddr> {
        if Self::is_resolver(remote) && self.resolves() {
            return self.resolvers.list();
        }
        self.address(remote).into_iter().collect()
    }

    /// The host's socket address of `remote`, if the guest may send to it.
    pub(super) fn address(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let loopback = |ip: IpAddr| {
            (!self.host_loopback.is_off()).then_some(SocketAddr::new(ip, remote.port()))
        };
        match remote.ip() {
            IpAddr::V4(GATEWAY) => loopback(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(GATEWAY_V6) => loopback(Ipv6Addr::LOCALHOST.into()),
            ip => {
                let foreign = !special(ip) && self.restrict.is_off() && !local(ip);
                foreign.then_some(remote)
            }
        }
    }
}

/// Whether the host has a route to where addresses of the Internet are (RFC 4291, 2.4): a socket
/// that is connected there sends nothing.
fn leads_out_by_ipv6() -> bool {
    let somewhere = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1), DNS_PORT);
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.and_then(|socket| socket.connect(somewhere)).is_ok()
}

/// Whether no single host elsewhere can have it, or it lies in the guest's own network.
fn special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

/// RFC 6890. Addresses of the host's own link are among these: clouds tell a machine its secrets
/// there.
fn special_v4(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    let ours = ip & NETMASK == GATEWAY & NETMASK;
    ours || first == 0 || first == 127 || first >= 224 || ip.is_link_local()
}

/// RFC 4291, 2.5 to 2.7: what begins with eight zeros (the loopback, and those that stand for IPv4
/// addresses, but for [`TRANSLATED`] ones that lead elsewhere), what is of a link or a site (the
/// guest's network), groups, and the address that all routers of a network have, the host perhaps.
fn special_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    if [a, b, c, d, e, f] == TRANSLATED {
        let [[g0, g1], [h0, h1]] = [g, h].map(u16::to_be_bytes);
        let ip = Ipv4Addr::new(g0, g1, h0, h1);
        return special_v4(ip) || local(ip.into());
    }
    let routers = [e, f, g, h] == [0; 4];
    a >> 8 == 0 || a & 0xFF80 == 0xFE80 || a >> 8 == 0xFF || routers
}

/// Whether it is one of the host's own: a socket can be bound to it. Where that cannot be told, it
/// counts as one.
fn local(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(host_loopback: Switch, restrict: Switch) -> Reach {
        Reach::new(&UserConfig { host_loopback, restrict, ..UserConfig::default() })
    }

    #[test]
    fn the_hosts_own_addresses_are_out_of_reach() {
        let reach = reach(Switch::Off, Switch::Off);
        for own in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.2.2", "10.0.2.15", "10.0.2.99", "::1", "::"]
        {
            let address = SocketAddr::new(own.parse().expect("an address"), 80);
            assert_eq!(reach.address(address), None, "{own}");
        }
        for nobody in ["224.0.0.1", "255.255.255.255", "240.0.0.1", "169.254.169.254"] {
            let address = SocketAddr::new(nobody.parse().expect("an address"), 80);
            assert_eq!(reach.address(address), None, "{nobody}");
        }
        for nobody in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fec0::2",
            "fec0::9",
            "fed0::1",
            "ff02::1",
            "2001:db8:1:2::",
        ] {
            let address = SocketAddr::new(nobody.parse().expect("an address"), 80);
            assert_eq!(reach.address(address), None, "{nobody}");
        }
        // Whichever the host has beside its loopback: those from which it would go anywhere.
        for (any, elsewhere) in [("0.0.0.0", "192.0.2.1"), ("::", "2001:db8::1")] {
            let [any, elsewhere] = [any, elsewhere].map(|text| text.parse().expect("an address"));
            let [any, elsewhere]: [IpAddr; 2] = [any, elsewhere];
            let Ok(probe) = UdpSocket::bind((any, 0)) else { continue };
            if probe.connect((elsewhere, 9)).is_ok()
                && let Ok(own) = probe.local_addr()
            {
                let own = SocketAddr::new(own.ip(), 80);
                assert_eq!(reach.address(own), None, "{own}");
            }
        }
    }

    #[test]
    fn only_what_is_allowed_leads_out() {
        for (gateway, resolver, loopback, elsewhere) in [
            (IpAddr::V4(GATEWAY), IpAddr::V4(RESOLVER), "127.0.0.1", "192.0.2.1"),
            (IpAddr::V6(GATEWAY_V6), IpAddr::V6(RESOLVER_V6), "::1", "2001:db8::1"),
        ] {
            let loopback = SocketAddr::new(loopback.parse().expect("an address"), 80);
            let restricted = reach(Switch::On, Switch::On);
            assert_eq!(restricted.address(SocketAddr::new(gateway, 80)), Some(loopback));
            let elsewhere = SocketAddr::new(elsewhere.parse().expect("an address"), 80);
            assert_eq!(restricted.address(elsewhere), None);
            assert_eq!(restricted.tcp(SocketAddr::new(resolver, 53)), []);
        }
    }
}
