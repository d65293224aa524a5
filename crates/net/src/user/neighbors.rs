//! Neighbor discovery: who has our addresses of IPv6, and what the router offers (RFC 4861, 4862,
//! 8106).
//!
//! The guest makes its address itself, of the network's prefix. The router says again from time to
//! time what it offers, and also when the host's route has gone.

use super::context::Context;
use super::reach::Reach;
use super::wire::{Ip, MTU, OUR_MAC, PREFIX_V6, RESOLVER_V6, ROUTER_V6, checksum_of, is_ours};
use smoltcp::wire::IpProtocol;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Types of messages (RFC 4861, 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Options (RFC 4861, 4.6; RFC 8106, 5.1), each with its length in units of eight bytes.
const SOURCE_ADDRESS: [u8; 2] = [1, 1];
const TARGET_ADDRESS: [u8; 2] = [2, 1];
const PREFIX: [u8; 2] = [3, 4];
const LINK_MTU: [u8; 2] = [5, 1];
const RESOLVERS: [u8; 2] = [25, 3];
/// Addresses are the guest's own, and the rest is there by DHCPv6, too (RFC 4861, 4.2).
const OTHER_BY_DHCP: u8 = 0x40;
/// All on the link (RFC 4291, 2.7.1).
const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
/// How long the router and the resolver may be used, in seconds, and when they are offered again.
const LIFETIME: u16 = 1800;
const AGAIN: Duration = Duration::from_secs(600);
/// Seconds for which an address is valid and preferred.
const VALID: u32 = 86400;
const PREFERRED: u32 = 14400;

/// What the router has told the guest.
#[derive(Debug, Default)]
pub(super) struct Router {
    /// When to tell it again, if it has told anything.
    due: Option<Instant>,
}

impl Router {
    /// The guest has sent the ICMPv6 `message`.
    pub(super) fn hear(&mut self, ip: Ip, message: &[u8], reach: &Reach, cx: &mut Context<'_>) {
        let asks = (!ip.source.is_unspecified()).then_some(ip.source);
        match *message {
            [ROUTER_SOLICITATION, 0, ..] if reach.offers_ipv6() => {
                advertise(LIFETIME, asks, reach, cx);
                self.due = Some(cx.now + AGAIN);
            }
            [NEIGHBOR_SOLICITATION, 0, ..] => {
                let target = message.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                match target.map(Ipv6Addr::from) {
                    Some(target) if is_ours(target.into()) => answer(target, asks, cx),
                    // It looks whether an address is free before it uses it (RFC 4862, 5.4).
                    Some(target) if asks.is_none() => cx.cable.guest.note(target.into()),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// When there is something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Says it, if it is time.
    pub(super) fn work(&mut self, reach: &Reach, cx: &mut Context<'_>) {
        if self.due.is_none_or(|due| due > cx.now) {
            return;
        }
        let offers = reach.offers_ipv6();
        advertise(if offers { LIFETIME } else { 0 }, None, reach, cx);
        self.due = Some(cx.now + AGAIN);
    }

    /// Forgets the guest.
    pub(super) fn clear(&mut self) {
        self.due = None;
    }
}

/// Tells `asks`, or everybody, for how many seconds the router leads out.
fn advertise(lifetime: u16, asks: Option<IpAddr>, reach: &Reach, cx: &mut Context<'_>) {
    let flags = if reach.resolves() { OTHER_BY_DHCP } else { 0 };
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, flags];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]); // as long as the guest likes: reachable time, retransmission timer
    message.extend(SOURCE_ADDRESS);
    message.extend(OUR_MAC.0);
    message.extend(LINK_MTU);
    message.extend([0; 2]);
    message.extend((MTU as u32).to_be_bytes());
    message.extend(PREFIX);
    message.extend([64, 0xC0]); // on the link; addresses are made of it
    message.extend(VALID.to_be_bytes());
    message.extend(PREFERRED.to_be_bytes());
    message.extend([0; 4]);
    message.extend(PREFIX_V6.octets());
    if reach.resolves() {
        message.extend(RESOLVERS);
        message.extend([0; 2]);
        message.extend(u32::from(lifetime).to_be_bytes());
        message.extend(RESOLVER_V6.octets());
    }
    give(ROUTER_V6, asks, message, cx);
}

/// Tells `asks`, or everybody, that `target` is ours.
fn answer(target: Ipv6Addr, asks: Option<IpAddr>, cx: &mut Context<'_>) {
    // A router; asked, unless a guest only looks whether the address is free; to be believed.
    let router = if target == RESOLVER_V6 { 0 } else { 0x80 };
    let flags = router | if asks.is_some() { 0x60 } else { 0x20 };
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend(TARGET_ADDRESS);
    message.extend(OUR_MAC.0);
    give(target, asks, message, cx);
}

fn give(source: Ipv6Addr, to: Option<IpAddr>, mut message: Vec<u8>, cx: &mut Context<'_>) {
    let to = to.unwrap_or(EVERYBODY.into());
    let ip = Ip { source: source.into(), to, protocol: IpProtocol::Icmpv6 };
    let sum = checksum_of(ip, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    cx.cable.packet(ip, &message, cx.guest);
}
