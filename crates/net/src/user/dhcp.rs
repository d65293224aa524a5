//! The DHCP server (RFC 2131): one lease, which lasts.

use super::context::Context;
use super::wire::{Ends, GATEWAY, GUEST, NETMASK, RESOLVER};
use crate::config::Switch;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
use std::net::{Ipv4Addr, SocketAddr};

/// Where servers listen, and clients.
pub(super) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Seconds of the lease.
const LEASE: u32 = 86400;

/// Answers the guest's `payload`.
pub(super) fn answer(payload: &[u8], restrict: Switch, cx: &mut Context<'_>) {
    let Ok(packet) = DhcpPacket::new_checked(payload) else { return };
    let Ok(asked) = DhcpRepr::parse(&packet) else { return };
    let elsewhere = asked.server_identifier.is_some_and(|server| server != GATEWAY);
    let known = |address: Ipv4Addr| address.is_unspecified() || address == GUEST;
    let good = known(asked.client_ip) && asked.requested_ip.is_none_or(known);
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if elsewhere => return,
        DhcpMessageType::Request if good => DhcpMessageType::Ack,
        DhcpMessageType::Request => DhcpMessageType::Nak,
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return,
    };
    let granted = message_type != DhcpMessageType::Nak;
    let inform = asked.message_type == DhcpMessageType::Inform;
    let leased = granted && !inform;
    let dns = (granted && restrict.is_off()).then(|| [RESOLVER].into_iter().collect());
    let repr = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: asked.client_ip,
        your_ip: if leased { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: GATEWAY,
        router: granted.then_some(GATEWAY),
        subnet_mask: granted.then_some(NETMASK),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: dns,
        max_size: None,
        lease_duration: leased.then_some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    if repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).is_err() {
        return;
    }
    let to = if asked.broadcast || !granted { Ipv4Addr::BROADCAST } else { GUEST };
    let remote = SocketAddr::from((GATEWAY, SERVER_PORT));
    let ends = Ends { guest: SocketAddr::from((to, CLIENT_PORT)), remote };
    cx.cable.udp(ends, &bytes, cx.guest);
}
