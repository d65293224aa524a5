//! What the guest may reach, and under which address the host does.

use super::resolvers::{DNS_PORT, Resolvers};
use super::wire::{GATEWAY, NETMASK, RESOLVER};
use crate::config::{Switch, UserConfig};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

/// See the module.
#[derive(Debug)]
pub(super) struct Reach {
    host_loopback: Switch,
    restrict: Switch,
    pub(super) resolvers: Resolvers,
}

impl Reach {
    pub(super) fn new(config: &UserConfig) -> Self {
        Self {
            host_loopback: config.host_loopback,
            restrict: config.restrict,
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

    /// The host's socket address of `remote` for TCP, if the guest may connect to it.
    pub(super) fn tcp(&self, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        if *remote.ip() == RESOLVER && remote.port() == DNS_PORT && self.resolves() {
            return self.resolvers.list().first().copied();
        }
        self.address(remote)
    }

    /// The host's socket address of `remote`, if the guest may send to it.
    pub(super) fn address(&self, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        let ip = *remote.ip();
        if ip == GATEWAY {
            let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, remote.port());
            return (!self.host_loopback.is_off()).then_some(loopback);
        }
        let foreign = !ours(ip) && !special(ip) && self.restrict.is_off() && !local(ip);
        foreign.then_some(remote)
    }
}

/// Whether it lies in the guest's own network.
fn ours(ip: Ipv4Addr) -> bool {
    ip & NETMASK == GATEWAY & NETMASK
}

/// Whether no single host elsewhere can have it (RFC 6890). Addresses of the host's own link are
/// among these: clouds tell a machine its secrets there.
fn special(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    first == 0 || first == 127 || first >= 224 || ip.is_link_local()
}

/// Whether it is one of the host's own: a socket can be bound to it. Where that cannot be told, it
/// counts as one.
fn local(ip: Ipv4Addr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn reach(host_loopback: Switch, restrict: Switch) -> Reach {
        Reach::new(&UserConfig { host_loopback, restrict, ..UserConfig::default() })
    }

    #[test]
    fn the_hosts_own_addresses_are_out_of_reach() {
        let reach = reach(Switch::Off, Switch::Off);
        for own in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.2.2", "10.0.2.15", "10.0.2.99"] {
            let address = SocketAddrV4::new(own.parse().expect("an address"), 80);
            assert_eq!(reach.address(address), None, "{own}");
        }
        for nobody in ["224.0.0.1", "255.255.255.255", "240.0.0.1", "169.254.169.254"] {
            let address = SocketAddrV4::new(nobody.parse().expect("an address"), 80);
            assert_eq!(reach.address(address), None, "{nobody}");
        }
        // Whichever the host has beside its loopback: those from which it would go anywhere.
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        if probe.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).is_ok()
            && let Ok(SocketAddr::V4(own)) = probe.local_addr()
        {
            assert_eq!(reach.address(SocketAddrV4::new(*own.ip(), 80)), None, "{own}");
        }
    }

    #[test]
    fn only_what_is_allowed_leads_out() {
        let gateway = SocketAddrV4::new(GATEWAY, 80);
        let loopback = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80));
        let restricted = reach(Switch::On, Switch::On);
        assert_eq!(restricted.address(gateway), loopback);
        let elsewhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
        assert_eq!(restricted.address(elsewhere), None);
        assert_eq!(restricted.tcp(SocketAddrV4::new(RESOLVER, 53)), None);
    }
}
