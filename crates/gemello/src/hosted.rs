//! The machines that this process runs.
//!
//! A signal is for all of them, and so is the process's end; a control socket is one machine's.

use crate::settings::name::MachineName;
use crate::side::Side;
use machine::MachineHandle;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

static HOSTED: Mutex<Vec<Arc<Hosted>>> = Mutex::new(Vec::new());

/// The longest that a machine's end waits for who looks on: one may read nothing.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A machine of this process.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) name: MachineName,
    pub(crate) handle: MachineHandle,
    /// The user's side of it.
    pub(crate) side: Side,
    /// Bytes of its memory.
    pub(crate) memory: u64,
    /// How many processors it has.
    pub(crate) vcpus: usize,
    began: Instant,
    status: Mutex<Option<u8>>,
    ended: Condvar,
}

impl Hosted {
    /// The machine of `handle`, which is about to run.
    pub(crate) fn new(
        name: MachineName,
        handle: MachineHandle,
        side: Side,
        (memory, vcpus): (u64, usize),
    ) -> Self {
        let (status, ended) = (Mutex::new(None), Condvar::new());
        Self { name, handle, side, memory, vcpus, began: Instant::now(), status, ended }
    }

    /// For how long it has been run.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// It has ended with this exit status: its output is complete. Who looks on gets the last of
    /// it.
    pub(crate) fn end(&self, status: u8) {
        *sync::lock(&self.status) = Some(status);
        self.ended.notify_all();
        let (console, _) = self.side.console();
        console.close();
        console.wait_for_viewers(LAST_LOOK);
    }

    /// Waits until it has ended, for `limit` at the most; its exit status if it has.
    pub(crate) fn wait(&self, limit: Duration) -> Option<u8> {
        let deadline = Instant::now() + limit;
        let mut status = sync::lock(&self.status);
        while status.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (status, _) = sync::wait_for(&self.ended, status, left);
        }
        *status
    }
}

/// This process runs these machines from now on.
pub(crate) fn enter(machines: &[Arc<Hosted>]) {
    sync::lock(&HOSTED).extend_from_slice(machines);
}

/// The machine has ended, and others go on: what it has taken of the host is given back.
pub(crate) fn leave(machine: &Arc<Hosted>) {
    sync::lock(&HOSTED).retain(|one| !Arc::ptr_eq(one, machine));
}

/// The machines of this process.
pub(crate) fn all() -> Vec<Arc<Hosted>> {
    sync::lock(&HOSTED).clone()
}
