//! What is scheduled.

use crate::ids::TaskId;
use std::time::Duration;
use vcpu::SignalSet;

/// A virtual processor as its scheduler sees it. It runs on one worker at a time, on any.
pub trait Task: Send {
    /// Runs until there is something to decide. A kick ends a turn soon.
    fn turn(&mut self) -> Turn;

    /// It is about to run on this thread, after it was queued or parked. It has waited for a
    /// worker for `steal` in all.
    fn arrives(&mut self, steal: Duration) {
        let _ = steal;
    }

    /// It is about to leave this thread: another runs next, or none.
    fn leaves(&mut self) {}
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn, now or when it is this task's time again.
    Again,
    /// It spins for what another task has to do: others run first, and above all this one, if it
    /// waits for a worker.
    Yield(Option<TaskId>),
    /// Nothing, until one of these signals is up.
    Park(SignalSet),
    /// No further turn.
    Ended,
}
