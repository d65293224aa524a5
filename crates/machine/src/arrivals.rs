//! Pages that a processor has asked the pager for, and that have come.
//!
//! The pager's threads tell of them ([`Signal::Arrival`]); the processor's thread takes them.

use memory::{Arrival, GuestRam};
use std::fmt;
use std::sync::{Arc, Mutex};
use sync::lock;
use vcpu::{Signal, Signals};
use x86::addr::Gpa;

/// See the module.
pub(crate) struct Arrivals {
    ram: GuestRam,
    signals: Arc<Signals>,
    come: Arc<Mutex<Vec<Gpa>>>,
    told: Arrival,
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("come", &self.come).finish_non_exhaustive()
    }
}

impl Arrivals {
    /// None yet, of `ram`, for the processor with `signals`.
    pub(crate) fn new(ram: &GuestRam, signals: &Arc<Signals>) -> Self {
        let come = Arc::new(Mutex::new(Vec::new()));
        let (list, raise) = (Arc::clone(&come), Arc::clone(signals));
        let told = move |page| {
            lock(&list).push(page);
            raise.raise(Signal::Arrival);
        };
        Self { ram: ram.clone(), signals: Arc::clone(signals), come, told: Arc::new(told) }
    }

    /// Has the page of `gpa` brought in. False: it is there already.
    pub(crate) fn request(&self, gpa: Gpa) -> bool {
        self.ram.request(gpa, &self.told)
    }

    /// Which have come since the last call.
    pub(crate) fn take(&self) -> Vec<Gpa> {
        if !self.signals.is_raised(Signal::Arrival) {
            return Vec::new();
        }
        // Before the list is taken: who adds to it later raises it again.
        self.signals.clear(Signal::Arrival);
        std::mem::take(&mut lock(&self.come))
    }
}
