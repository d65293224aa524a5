//! Cases on the host processor, in a sandboxed child process.
//!
//! One child, one case after the other: whatever ends a case (INT3, a fault, a single step) is a
//! signal, whose handler records the interrupted state from its `ucontext`, writes the *next*
//! case's state into it and returns. No case costs a process or a context switch.
//!
//! [`parent`] owns the mailbox (shared memory) and the child; [`child`] is all that runs in it
//! after `fork`; [`ucontext`] reads and writes the signal frame. The parent's side is used from one
//! thread at a time.

mod child;
mod parent;
mod ucontext;

pub use parent::{NativeError, NativeRunner};

use crate::case::Case;
use crate::outcome::Outcome;

/// Cases that the mailbox holds.
pub const BATCH: usize = 128;

/// The memory that parent and child share. The parent writes `first`, `count` and `cases` while the
/// child waits for a command, the child everything else while the parent waits for the answer:
/// never both at once.
#[repr(C)]
struct Mailbox {
    /// Index of the first case to run.
    first: u32,
    /// One past the last.
    count: u32,
    /// The case that is running; the child dies with it.
    current: u32,
    cases: [Case; BATCH],
    outcomes: [Outcome; BATCH],
}

#[cfg(test)]
mod tests;
