//! The lock that makes locked accesses atomic which the host cannot make so: those that cross a
//! page.
//!
//! One for each machine. It is a word rather than a mutex: who waits for it is a processor, which
//! must go on taking note of changes meanwhile, so it tries.

use crate::GuestRam;
use crate::ram::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Taken, or not.
#[derive(Debug, Default)]
pub(crate) struct SplitWord(AtomicBool);

/// Holds the lock until it is dropped. No device may be accessed meanwhile.
#[derive(Debug)]
pub struct SplitLock(Arc<Shared>);

impl GuestRam {
    /// The lock, if nobody has it.
    pub fn try_split_lock(&self) -> Option<SplitLock> {
        let word = &self.shared.split.0;
        let taken = word.swap(true, Ordering::Acquire);
        (!taken).then(|| SplitLock(self.shared.clone()))
    }
}

impl Drop for SplitLock {
    fn drop(&mut self) {
        self.0.split.0.store(false, Ordering::Release);
    }
}
