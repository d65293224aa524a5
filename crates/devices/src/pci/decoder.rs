//! Where a BAR is now, for those who look an address up.

use std::sync::atomic::{AtomicU32, Ordering};
use x86::addr::Gpa;

/// No address: a base is a multiple of 16.
const NOWHERE: u32 = u32::MAX;

/// The addresses of one memory BAR, below 4 GiB. The function writes it, any thread reads it.
#[derive(Debug)]
pub struct Decoder {
    base: AtomicU32,
    len: u32,
}

impl Decoder {
    /// Of `len` bytes, and nowhere yet.
    pub(super) fn new(len: u32) -> Self {
        Self { base: AtomicU32::new(NOWHERE), len }
    }

    /// Its bytes.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Has it answer from `base` on, or nowhere.
    pub(super) fn publish(&self, base: Option<u32>) {
        self.base.store(base.unwrap_or(NOWHERE), Ordering::Release);
    }

    /// The offset of `gpa` in the BAR, if it is there.
    pub(super) fn offset_of(&self, gpa: Gpa) -> Option<u32> {
        let base = self.base.load(Ordering::Acquire);
        let offset = u32::try_from(gpa.0).ok()?.checked_sub(base)?;
        (base != NOWHERE && offset < self.len).then_some(offset)
    }
}
