//! Who owns which frame of physical memory.
//!
//! Frames that were never used are taken in ascending order; freed ones form a list through the
//! frames themselves. Each frame in use has a count of its owners: shared text and pages that were
//! copied on write have several.

use crate::physical::{self, Frame, PAGE};
use alloc::vec::Vec;

/// All frames.
pub struct Frames {
    /// Never used: (next, end).
    fresh: Vec<(u64, u64)>,
    /// First of the list of freed frames; each holds the address of the next.
    freed: u64,
    /// Physical address of the counts: one 16-bit number for every frame from address 0 on.
    counts: u64,
    total: u64,
    used: u64,
    /// No more than this many may be in use at once.
    limit: u64,
}

impl Frames {
    /// Takes over the memory in `ranges`, except what lies before `reserved` (firmware's and the
    /// nucleus's image).
    pub fn new(ranges: &[(u64, u64)], reserved: u64, top: u64) -> Self {
        let up = |address: u64| address.next_multiple_of(PAGE);
        let counts = up(reserved);
        let first = up(counts + top / PAGE * 2);
        let fresh: Vec<_> = ranges
            .iter()
            .map(|&(start, end)| (up(start.max(first)), end.min(top) / PAGE * PAGE))
            .filter(|(start, end)| start < end)
            .collect();
        let total = fresh.iter().map(|(start, end)| (end - start) / PAGE).sum();
        Self { fresh, freed: 0, counts, total, used: 0, limit: total }
    }

    /// A frame with unknown content, with one owner.
    pub fn take(&mut self) -> Option<Frame> {
        if self.used >= self.limit {
            return None;
        }
        let frame = if self.freed != 0 {
            let frame = self.freed;
            self.freed = physical::get64(frame);
            frame
        } else {
            let range = self.fresh.iter_mut().find(|(next, end)| next < end)?;
            range.0 += PAGE;
            range.0 - PAGE
        };
        self.used += 1;
        self.set_owners(Frame(frame), 1);
        Some(Frame(frame))
    }

    /// One more owner.
    pub fn share(&mut self, frame: Frame) {
        self.set_owners(frame, self.owners(frame) + 1);
    }

    /// One owner less; without owners it is free.
    pub fn release(&mut self, frame: Frame) {
        let owners = self.owners(frame) - 1;
        self.set_owners(frame, owners);
        if owners == 0 {
            physical::set64(frame.0, self.freed);
            self.freed = frame.0;
            self.used -= 1;
        }
    }

    pub fn owners(&self, frame: Frame) -> u16 {
        physical::get16(self.counts + frame.0 / PAGE * 2)
    }

    fn set_owners(&mut self, frame: Frame, owners: u16) {
        physical::set16(self.counts + frame.0 / PAGE * 2, owners);
    }

    /// Frames that may still be taken.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    /// Frames that may be used.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Pretends that there are only `frames` (but at least what is in use): to see paging without
    /// filling all memory.
    pub fn set_limit(&mut self, frames: Option<u64>) {
        self.limit = frames.unwrap_or(self.total).clamp(self.used, self.total);
    }
}
