//! What a task has had of the host's processors.

use std::time::Duration;

/// The account of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a worker.
    pub ran: Duration,
    /// Time in which it could have run and waited for a worker: the guest's *steal time*.
    pub steal: Duration,
    /// How often it was put on a worker.
    pub switches: u64,
    /// How often it left one because its quantum was over and another waited.
    pub quanta: u64,
    /// How often it left one because it spun.
    pub yields: u64,
}
