//! The counters of a run, as data. The program renders them.

use devices::bus::Unclaimed;
use devices::virtio::console::PortStats;
use devices::virtio::net::NetStats;
use memory::PagerStats;
use sched::Usage;
use share::ShareStats;
use std::time::Duration;
use vcpu::{Exit, Statistics};

/// How often each [`Exit`] ended a [`vcpu::Vcpu::run`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// The slice's instructions had run.
    pub slice_over: u64,
    /// Kicked.
    pub kicked: u64,
    /// HLT.
    pub halted: u64,
    /// A page had to come first.
    pub absent: u64,
    /// INIT or start-up IPI.
    pub reset: u64,
    /// Triple fault.
    pub shutdown: u64,
    /// The engine failed.
    pub fatal: u64,
}

impl Exits {
    pub(crate) fn count(&mut self, exit: &Exit) {
        let counter = match exit {
            Exit::SliceOver => &mut self.slice_over,
            Exit::Kicked(_) => &mut self.kicked,
            Exit::Halted(_) => &mut self.halted,
            Exit::Absent(_) => &mut self.absent,
            Exit::Reset => &mut self.reset,
            Exit::Shutdown => &mut self.shutdown,
            Exit::Fatal(_) => &mut self.fatal,
        };
        *counter += 1;
    }
}

/// One processor's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorStats {
    /// The engine's.
    pub engine: Statistics,
    /// The run loop's.
    pub exits: Exits,
    /// Pages that the guest was told to wait for: asynchronous page faults.
    pub async_faults: u64,
    /// Host time spent in the engine.
    pub busy: Duration,
    /// What it has had of the host's processors.
    pub usage: Usage,
}

/// A run's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Host time from start to end.
    pub wall: Duration,
    /// Each processor.
    pub processors: Vec<ProcessorStats>,
    /// What the threads have used that serve it beside its processors.
    pub service: Duration,
    /// Where its memory is, if it has a budget.
    pub paging: Option<PagerStats>,
    /// What has passed through each port of its console devices.
    pub ports: Vec<PortStats>,
    /// What has passed through its network device, if it has one.
    pub net: Option<NetStats>,
    /// What has been done with each shared folder.
    pub shares: Vec<ShareStats>,
    /// What the guest touched that is not there.
    pub unclaimed: Vec<Unclaimed>,
}
