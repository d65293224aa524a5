//! Address ranges that a signal handler looks up while other threads enter theirs and take them
//! away.
//!
//! A handler may not wait. It reads a range as a whole or not at all: each has a version, which is
//! odd while the range changes. One that is changing is another thread's, and cannot be what the
//! handler looks for.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

/// See the module.
pub struct Ranges<const N: usize> {
    slots: [Slot; N],
}

/// A range, or none (`end` is 0).
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// What its owner wants to find.
    data: AtomicUsize,
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            data: AtomicUsize::new(0),
        }
    }

    /// Makes the version odd, if nobody else changes the slot.
    fn claim(&self) -> bool {
        let version = self.version.load(SeqCst);
        let next = version.wrapping_add(1);
        version & 1 == 0 && self.version.compare_exchange(version, next, SeqCst, SeqCst).is_ok()
    }

    fn release(&self) {
        self.version.fetch_add(1, SeqCst);
    }

    fn set(&self, start: usize, end: usize, data: usize) {
        self.start.store(start, SeqCst);
        self.end.store(end, SeqCst);
        self.data.store(data, SeqCst);
    }

    /// The data, if `address` is in the range.
    fn find(&self, address: usize) -> Option<usize> {
        let version = self.version.load(SeqCst);
        if address < self.start.load(SeqCst) || address >= self.end.load(SeqCst) {
            return None;
        }
        let data = self.data.load(SeqCst);
        (version & 1 == 0 && self.version.load(SeqCst) == version).then_some(data)
    }
}

impl<const N: usize> Default for Ranges<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ranges<N> {
    /// No range.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: [const { Slot::new() }; N] }
    }

    /// Enters start..end with `data`; the number by which to take it away. `None`: there is no
    /// room.
    #[must_use]
    pub fn enter(&self, start: usize, end: usize, data: usize) -> Option<usize> {
        self.slots.iter().position(|slot| {
            if slot.end.load(SeqCst) != 0 || !slot.claim() {
                return false;
            }
            let free = slot.end.load(SeqCst) == 0;
            if free {
                slot.set(start, end, data);
            }
            slot.release();
            free
        })
    }

    /// Takes away what [`Ranges::enter`] gave number `n`; its data.
    pub fn take(&self, n: usize) -> usize {
        let slot = &self.slots[n];
        let data = slot.data.load(SeqCst);
        while !slot.claim() {
            std::hint::spin_loop();
        }
        slot.set(0, 0, 0);
        slot.release();
        data
    }

    /// The data of the range that `address` lies in.
    #[must_use]
    pub fn find(&self, address: usize) -> Option<usize> {
        self.slots.iter().find_map(|slot| slot.find(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn nothing_is_found_between_two_ranges_that_come_and_go() {
        static RANGES: Ranges<2> = Ranges::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        let own = RANGES.enter(500, 510, 5).expect("room");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !DONE.load(SeqCst) {
                    for (start, data) in [(100, 1), (300, 3)] {
                        let n = RANGES.enter(start, start + 10, data).expect("room");
                        assert_eq!(RANGES.take(n), data);
                    }
                }
            });
            let right = (0..10_000_000).all(|_| {
                RANGES.find(200).is_none()
                    && RANGES.find(505) == Some(5)
                    && matches!(RANGES.find(305), None | Some(3))
            });
            DONE.store(true, SeqCst);
            assert!(right);
        });
        assert_eq!(RANGES.take(own), 5);
        assert_eq!(RANGES.find(505), None);
    }

    #[test]
    fn a_full_table_says_so() {
        let ranges = Ranges::<1>::new();
        let n = ranges.enter(1, 2, 0).expect("room");
        assert_eq!(ranges.enter(3, 4, 0), None);
        ranges.take(n);
        assert!(ranges.enter(3, 4, 0).is_some());
    }
}
