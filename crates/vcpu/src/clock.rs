//! Time in guest instructions, for machines whose runs are to be the same each time.

use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that processors move on, in turn: by one tick for each instruction that they complete.
///
/// Only the thread that runs a processor, or that has them all stand still, moves it.
#[derive(Debug, Default)]
pub struct InstructionClock(AtomicU64);

impl InstructionClock {
    /// Ticks up to now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves it to `now`.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}
