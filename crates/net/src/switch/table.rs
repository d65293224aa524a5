//! Where a frame goes: what an Ethernet bridge learns (IEEE 802.1Q, 8.7 and 8.8).

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a station that is silent stays known.
const AGEING: Duration = Duration::from_secs(300);
/// Stations at the most; where there are more, the new ones' frames go everywhere.
const STATIONS_MAX: usize = 4096;
/// Bytes of the two addresses that a frame begins with.
const ADDRESSES: usize = 12;

/// A station's address.
type Mac = [u8; 6];

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<P> {
    /// To this port.
    One(P),
    /// To all but where it came from.
    Others,
    /// Nowhere.
    None,
}

/// Which stations are behind which ports.
#[derive(Debug)]
pub(super) struct Table<P>(HashMap<Mac, (P, Instant)>);

impl<P: Copy + PartialEq> Table<P> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Notes who has sent `frame`, which came by the port `from`; where it goes.
    pub(super) fn forward(&mut self, frame: &[u8], from: P, now: Instant) -> Target<P> {
        let Some(addresses) = frame.first_chunk::<ADDRESSES>() else { return Target::None };
        let [a, b, c, d, e, f, source @ ..] = *addresses;
        if is_group(source) {
            return Target::None;
        }
        self.learn(source, from, now);
        let destination = [a, b, c, d, e, f];
        match self.0.get(&destination) {
            _ if is_group(destination) => Target::Others,
            Some((port, seen)) if now.duration_since(*seen) < AGEING => {
                if *port == from {
                    Target::None
                } else {
                    Target::One(*port)
                }
            }
            _ => Target::Others,
        }
    }

    fn learn(&mut self, source: Mac, from: P, now: Instant) {
        if self.0.len() >= STATIONS_MAX && !self.0.contains_key(&source) {
            self.0.retain(|_, (_, seen)| now.duration_since(*seen) < AGEING);
            if self.0.len() >= STATIONS_MAX {
                return;
            }
        }
        self.0.insert(source, (from, now));
    }

    /// Forgets who was behind `port`.
    pub(super) fn forget(&mut self, port: P) {
        self.0.retain(|_, (behind, _)| *behind != port);
    }
}

/// Whether it is the address of several stations.
fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        [[0x52, 0, 0, 0, 0, to], [0x52, 0, 0, 0, 0, from], [0; 6]].concat()
    }

    #[test]
    fn a_station_is_learned_and_forgotten() {
        let (mut table, now) = (Table::new(), Instant::now());
        assert_eq!(table.forward(&frame(2, 1), 'a', now), Target::Others);
        assert_eq!(table.forward(&frame(1, 2), 'b', now), Target::One('a'));
        assert_eq!(table.forward(&frame(2, 1), 'a', now), Target::One('b'));
        assert_eq!(table.forward(&frame(3, 1), 'a', now), Target::Others);
        // It moves.
        assert_eq!(table.forward(&frame(2, 1), 'c', now), Target::One('b'));
        assert_eq!(table.forward(&frame(1, 2), 'b', now), Target::One('c'));
        assert_eq!(table.forward(&frame(1, 4), 'c', now), Target::None, "it is there");
        let late = now + AGEING;
        assert_eq!(table.forward(&frame(1, 2), 'b', late), Target::Others);
        assert_eq!(table.forward(&frame(2, 9), 'a', late), Target::One('b'));
        table.forget('b');
        assert_eq!(table.forward(&frame(2, 9), 'a', late), Target::Others);
    }

    #[test]
    fn groups_get_all_and_send_nothing() {
        let (mut table, now) = (Table::new(), Instant::now());
        let broadcast = [[0xff; 6], [0x52; 6], [0; 6]].concat();
        assert_eq!(table.forward(&broadcast, 'a', now), Target::Others);
        let from_group = [[0x52; 6], [0xff; 6], [0; 6]].concat();
        assert_eq!(table.forward(&from_group, 'b', now), Target::None);
        assert_eq!(table.forward(&broadcast[..11], 'b', now), Target::None);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let (mut table, now) = (Table::new(), Instant::now());
        for number in 0..10_000_u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let frame = [[0xff; 6], [0x56, 0, a, b, c, d]].concat();
            table.forward(&frame, 'a', now);
        }
        assert_eq!(table.0.len(), STATIONS_MAX);
        table.forward(&frame(1, 1), 'b', now + AGEING);
        assert_eq!(table.0.len(), 1);
    }
}
