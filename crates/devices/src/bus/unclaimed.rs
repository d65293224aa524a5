//! What the guest touched that is not there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use sync::lock;
use x86::addr::{Gpa, Port};

/// Places remembered at the most; a guest that scans all of memory must not fill the host's.
const PLACES_MAX: usize = 4096;

/// Where an access went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An I/O port.
    Port(Port),
    /// The 4 KiB page at this guest-physical address: a guest that draws on a screen that is not
    /// there touches few places.
    Memory(Gpa),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port:#06x}"),
            Self::Memory(gpa) => write!(f, "memory page {gpa:#x}"),
        }
    }
}

/// One place and how often it was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclaimed {
    /// Where.
    pub place: Place,
    /// Reads, each answered with all-ones.
    pub reads: u64,
    /// Writes, each ignored.
    pub writes: u64,
}

#[derive(Default)]
pub(super) struct UnclaimedPlaces(Mutex<BTreeMap<Place, (u64, u64)>>);

impl UnclaimedPlaces {
    /// Counts an access, and logs the first at `place`.
    pub(super) fn note(&self, place: Place, write: bool) {
        let place = match place {
            Place::Memory(gpa) => Place::Memory(gpa.page()),
            port @ Place::Port(_) => port,
        };
        let mut places = lock(&self.0);
        let full = places.len() >= PLACES_MAX;
        let (reads, writes) = match places.entry(place) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => return,
            std::collections::btree_map::Entry::Vacant(entry) => {
                let verb = if write { "wrote to" } else { "read from" };
                tracing::warn!(target: "unclaimed", "the guest {verb} {place}, where no device is");
                entry.insert((0, 0))
            }
        };
        let counter = if write { writes } else { reads };
        *counter = counter.saturating_add(1);
    }

    pub(super) fn list(&self) -> Vec<Unclaimed> {
        let places = lock(&self.0);
        places.iter().map(|(&place, &(reads, writes))| Unclaimed { place, reads, writes }).collect()
    }
}
