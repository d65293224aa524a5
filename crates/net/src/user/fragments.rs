//! Fragments of the guest's packets, put together (RFC 791, 3.2; RFC 8200, 4.5).

use super::wire::{FRAGMENT, Ip};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Packets that are incomplete at a time; the oldest are lost.
const PACKETS_MAX: usize = 16;
/// Pieces of one packet, not next to each other.
const HOLES_MAX: usize = 64;
/// How long the rest of a packet may take (RFC 1122, 3.3.2: 60 to 120 seconds).
const PATIENCE: Duration = Duration::from_secs(60);

/// A piece of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// The packet's; with `ident` it tells what belongs together.
    pub(super) ip: Ip,
    ident: u32,
    from: usize,
    /// It is not the last.
    more: bool,
    payload: &'a [u8],
}

impl<'a> Piece<'a> {
    pub(super) fn of_v4(packet: &Ipv4Packet<&'a [u8]>) -> Self {
        let (source, to) = (packet.src_addr().into(), packet.dst_addr().into());
        Self {
            ip: Ip { source, to, protocol: packet.next_header() },
            ident: packet.ident().into(),
            from: packet.frag_offset().into(),
            more: packet.more_frags(),
            payload: packet.payload(),
        }
    }

    /// The piece that `packet` is, if it is one. One that is all of a packet counts (RFC 6946).
    pub(super) fn of_v6(packet: &Ipv6Packet<&'a [u8]>) -> Option<Self> {
        if u8::from(packet.next_header()) != FRAGMENT {
            return None;
        }
        let (&[protocol, _, high, low, a, b, c, d], payload) =
            packet.payload().split_first_chunk()?;
        let protocol = IpProtocol::from(protocol);
        let (source, to) = (packet.src_addr().into(), packet.dst_addr().into());
        let place = u16::from_be_bytes([high, low]);
        Some(Self {
            ip: Ip { source, to, protocol },
            ident: u32::from_be_bytes([a, b, c, d]),
            from: usize::from(place & !7),
            more: place & 1 != 0,
            payload,
        })
    }
}

/// What belongs together.
type Key = (IpAddr, IpAddr, u8, u32);

/// Packets of which some has come, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Fragments(Vec<Partial>);

#[derive(Debug)]
struct Partial {
    key: Key,
    since: Instant,
    payload: Vec<u8>,
    /// What is there of it, in order.
    there: Vec<(usize, usize)>,
    /// Where it ends.
    end: Option<usize>,
}

impl Fragments {
    /// Adds `piece`; the whole payload, if that was the last missing.
    pub(super) fn add(&mut self, piece: &Piece<'_>, now: Instant) -> Option<Vec<u8>> {
        self.0.retain(|partial| now.duration_since(partial.since) < PATIENCE);
        let &Piece { ip, ident, from, more, payload } = piece;
        let key = (ip.source, ip.to, ip.protocol.into(), ident);
        let to = from + payload.len();
        let uneven = more && !payload.len().is_multiple_of(8);
        if payload.is_empty() || uneven || to > usize::from(u16::MAX) {
            return None;
        }
        let at = self.0.iter().position(|partial| partial.key == key).unwrap_or_else(|| {
            if self.0.len() == PACKETS_MAX {
                self.0.remove(0);
            }
            let empty = Partial { key, since: now, payload: vec![], there: vec![], end: None };
            self.0.push(empty);
            self.0.len() - 1
        });
        let partial = self.0.get_mut(at)?;
        if !more {
            partial.end = Some(to);
        }
        if !partial.add(from, payload) {
            self.0.remove(at);
            return None;
        }
        let partial = self.0.get(at)?;
        let whole = partial.end.is_some_and(|end| partial.there == [(0, end)]);
        whole.then(|| self.0.remove(at).payload)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Partial {
    /// False: pieces lie over each other, or are too many.
    fn add(&mut self, from: usize, bytes: &[u8]) -> bool {
        let to = from + bytes.len();
        let at = self.there.partition_point(|&(start, _)| start < from);
        let over = |&(start, end): &(usize, usize)| start < to && from < end;
        if self.there.iter().any(over) || self.end.is_some_and(|end| to > end) {
            return false;
        }
        if self.payload.len() < to {
            self.payload.resize(to, 0);
        }
        self.payload[from..to].copy_from_slice(bytes);
        self.there.insert(at, (from, to));
        self.there.dedup_by(|later, earlier| {
            let joins = earlier.1 == later.0;
            if joins {
                earlier.1 = later.1;
            }
            joins
        });
        self.there.len() <= HOLES_MAX
    }
}
