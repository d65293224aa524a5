//! Fragments of the guest's packets, put together (RFC 791, 3.2).

use smoltcp::wire::{IpProtocol, Ipv4Packet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Packets that are incomplete at a time; the oldest are lost.
const PACKETS_MAX: usize = 16;
/// Pieces of one packet, not next to each other.
const HOLES_MAX: usize = 64;
/// How long the rest of a packet may take (RFC 1122, 3.3.2: 60 to 120 seconds).
const PATIENCE: Duration = Duration::from_secs(60);

/// What belongs together.
type Key = (Ipv4Addr, u16, u8);

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
    /// Adds the fragment `packet`; the whole payload, if that was the last missing.
    pub(super) fn add(&mut self, packet: &Ipv4Packet<&[u8]>, now: Instant) -> Option<Vec<u8>> {
        self.0.retain(|partial| now.duration_since(partial.since) < PATIENCE);
        let protocol: IpProtocol = packet.next_header();
        let key = (packet.dst_addr(), packet.ident(), protocol.into());
        let (from, payload) = (usize::from(packet.frag_offset()), packet.payload());
        let to = from + payload.len();
        let uneven = packet.more_frags() && !payload.len().is_multiple_of(8);
        if payload.is_empty() || uneven || to > usize::from(u16::MAX) - 20 {
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
        if !packet.more_frags() {
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
