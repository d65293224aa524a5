//! What a share has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// A share's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareStats {
    /// What the guest mounts.
    pub tag: String,
    /// Requests of the guest's.
    pub requests: u64,
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
}

/// The ones that are counted while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn value(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
