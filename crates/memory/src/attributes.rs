//! One byte of attributes for each page of RAM, which every processor and device of a machine
//! consults.
//!
//! A processor looks at the byte of a page when it enters the page into its TLB, never on a hit. An
//! attribute that takes a right away (`CODE`, `TRACK_DIRTY`, `ABSENT`) is therefore set first and
//! posted to the change log second ([`crate::Change`]): from the first on nobody is given the
//! right, and once the second is acknowledged nobody has it.
//!
//! Orderings: setting and clearing are sequentially consistent read-modify-writes; looking is a
//! load with acquire ordering.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// Some processor holds decoded code of the page: a write to it must be told.
pub const CODE: u8 = 1 << 0;
/// The first write to the page must be noticed; it clears this and sets [`DIRTY`].
pub const TRACK_DIRTY: u8 = 1 << 1;
/// The page's contents are elsewhere: no processor may touch it.
pub const ABSENT: u8 = 1 << 2;
/// The page must stay where it is: a device or the host's kernel has its address.
pub const PINNED: u8 = 1 << 3;
/// Written to since it was last asked for, while dirty pages are tracked.
pub const DIRTY: u8 = 1 << 4;

/// The attributes of all pages, by page number within RAM (holes do not count).
#[derive(Debug)]
pub(crate) struct Attributes {
    bytes: Box<[AtomicU8]>,
    /// Processors that hold code of each page; `CODE` is set while there are any. Changed under the
    /// log's lock.
    holders: Box<[AtomicU16]>,
}

impl Attributes {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            bytes: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            holders: (0..pages).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// The attributes of page `n`.
    #[inline]
    pub(crate) fn get(&self, n: usize) -> u8 {
        self.bytes[n].load(Ordering::Acquire)
    }

    /// Sets `bits`, and tells what was set before.
    pub(crate) fn set(&self, n: usize, bits: u8) -> u8 {
        self.bytes[n].fetch_or(bits, Ordering::SeqCst)
    }

    /// Clears `bits`, and tells what was set before.
    pub(crate) fn clear(&self, n: usize, bits: u8) -> u8 {
        self.bytes[n].fetch_and(!bits, Ordering::SeqCst)
    }

    /// The page is about to be written, or was: notes it if that is asked for.
    pub(crate) fn touch(&self, n: usize) {
        let note = |byte| (byte & TRACK_DIRTY != 0).then_some(byte & !TRACK_DIRTY | DIRTY);
        let _ = self.bytes[n].fetch_update(Ordering::SeqCst, Ordering::Acquire, note);
    }

    /// Whether the page is dirty; if so it is tracked anew.
    pub(crate) fn take_dirty(&self, n: usize) -> bool {
        let take = |byte| (byte & DIRTY != 0).then_some(byte & !DIRTY | TRACK_DIRTY);
        self.bytes[n].fetch_update(Ordering::SeqCst, Ordering::Acquire, take).is_ok()
    }

    /// One more processor holds code of the page. True if it is the first: `CODE` was not set.
    /// Under the log's lock.
    pub(crate) fn hold_code(&self, n: usize) -> bool {
        self.holders[n].fetch_add(1, Ordering::Relaxed);
        self.set(n, CODE) & CODE == 0
    }

    /// One processor less does. Under the log's lock.
    pub(crate) fn release_code(&self, n: usize) {
        let before = self.holders[n].load(Ordering::Relaxed);
        debug_assert_ne!(before, 0, "nobody holds code of page {n}");
        self.holders[n].store(before.saturating_sub(1), Ordering::Relaxed);
        if before <= 1 {
            self.clear(n, CODE);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_stays_until_the_last_holder_has_let_go() {
        let a = Attributes::new(2);
        assert!(a.hold_code(1) && !a.hold_code(1), "the first, and not the first");
        a.release_code(1);
        assert_eq!((a.get(0), a.get(1)), (0, CODE));
        a.release_code(1);
        assert_eq!(a.get(1), 0);
    }

    #[test]
    fn a_page_is_dirty_once_for_each_time_it_is_asked_for() {
        let a = Attributes::new(1);
        a.touch(0);
        assert!(!a.take_dirty(0), "not tracked");
        a.set(0, TRACK_DIRTY);
        a.touch(0);
        a.touch(0);
        assert_eq!(a.get(0), DIRTY);
        assert!(a.take_dirty(0) && !a.take_dirty(0));
        assert_eq!(a.get(0), TRACK_DIRTY, "tracked anew");
    }
}
