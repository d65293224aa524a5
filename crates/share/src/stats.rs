//! What a share has done.

use crate::wire::opcode;
use std::sync::atomic::{AtomicU64, Ordering};

/// A share's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareStats {
    /// What the guest mounts.
    pub tag: String,
    /// Requests of the guest's.
    pub requests: u64,
    /// How many of each kind, the most frequent first.
    pub kinds: Vec<(&'static str, u64)>,
    /// Those that were answered with an error; a name that is not there is one.
    pub errors: u64,
    /// Bytes read from files.
    pub read: u64,
    /// Bytes written to files.
    pub written: u64,
    /// Files that the guest knows.
    pub known: u64,
    /// Those that are kept open to be at hand.
    pub kept: u64,
    /// Directories of the host's that are watched.
    pub watched: u64,
}

/// The ones that are counted while it goes on.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    /// By their numbers.
    kinds: [AtomicU64; opcode::END],
    pub(crate) errors: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let kinds = std::array::from_fn(|_| zero());
        Self { requests: zero(), kinds, errors: zero(), read: zero(), written: zero() }
    }
}

impl Counters {
    /// Another request of this kind.
    pub(crate) fn request(&self, opcode: u32) {
        Self::count(&self.requests, 1);
        if let Some(counter) = self.kinds.get(opcode as usize) {
            Self::count(counter, 1);
        }
    }

    /// How many of each kind there were.
    pub(crate) fn kinds(&self) -> Vec<(&'static str, u64)> {
        let count = |&(opcode, name): &(u32, &'static str)| {
            let count = self.kinds.get(opcode as usize).map_or(0, Self::value);
            (count > 0).then_some((name, count))
        };
        let mut kinds: Vec<_> = opcode::NAMES.iter().filter_map(count).collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        kinds
    }

    pub(crate) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
