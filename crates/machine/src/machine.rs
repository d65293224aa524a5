//! A whole computer: its board, and the host's side of its serial lines.

use crate::board::Board;
use crate::console::Pump;
use crate::handle::MachineHandle;
use crate::io_thread::Feed;
use crate::notifier::Notifier;
use crate::power::Stopper;
use crate::stats::Stats;
use crate::virtio::Slotted;
use devices::virtio::net::Forward;
use memory::GuestRam;
use sched::{Pool, Share};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A whole computer, ready to run.
pub struct Machine {
    pub(crate) board: Arc<Board>,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pumps: Vec<Pump>,
    pub(crate) timeout: Option<Duration>,
    /// `None`: one of its own, made when it runs.
    pub(crate) pool: Option<Pool>,
    pub(crate) share: Share,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Machine {
    /// Its memory.
    pub fn ram(&self) -> &GuestRam {
        &self.board.ram
    }

    /// Ends the run from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.board.control))
    }

    /// Wakes the I/O thread, so that it asks the inputs again.
    pub fn notifier(&self) -> Notifier {
        self.board.notifier.clone()
    }

    /// Ends the run after this much host time; `None`: never.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// How many processors it has.
    pub fn processors(&self) -> usize {
        self.board.processors.len()
    }

    /// How many host threads can run its processors at a time.
    pub fn tasks(&self) -> usize {
        if self.board.clock.instructions().is_some() { 1 } else { self.processors() }
    }

    /// Has `pool` run its processors, which other machines may use as well, for `share` of the
    /// pool's time. Without, the machine has a pool of its own, with a worker for each processor as
    /// far as the host has as many.
    pub fn set_pool(&mut self, pool: Pool, share: Share) {
        (self.pool, self.share) = (Some(pool), share);
    }

    /// The ports of the host's that lead to the guest, as they are open now.
    pub fn forwards(&self) -> Vec<Forward> {
        self.board.virtio.iter().flat_map(Slotted::forwards).copied().collect()
    }

    /// Asks things of the machine from any thread.
    pub fn handle(&self) -> MachineHandle {
        MachineHandle { board: Arc::clone(&self.board) }
    }

    /// The counters up to now.
    pub fn stats(&self) -> Stats {
        self.handle().stats()
    }
}
