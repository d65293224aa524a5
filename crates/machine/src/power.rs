//! How any thread may end a run.
//!
//! The first cause wins; every processor and the I/O thread are then called back. Thread-safe;
//! takes only leaf locks.

use crate::control::{Control, Phase};
use crate::end::End;
use devices::power::PowerEvent;
use std::sync::Arc;

/// Ends a machine's run from any thread. Clones end the same machine.
#[derive(Clone, Debug)]
pub struct Stopper(pub(crate) Arc<Control>);

impl Stopper {
    /// Ends the run for this reason, unless it has ended already.
    pub fn stop(&self, end: End) {
        self.0.stop(end);
    }

    /// Why the run has ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.0.ended()
    }

    /// Whether the run has ended.
    pub fn is_ended(&self) -> bool {
        self.0.phase() == Phase::Ended
    }

    /// In whose name threads work for the machine: a panic ends it.
    pub(crate) fn owner(&self) -> host::Owner {
        let stopper = self.clone();
        let tell = move |why: &str| stopper.stop(End::Defect(why.into()));
        host::Owner::new(tell, self.0.service.clone())
    }

    pub(crate) fn power(&self, event: PowerEvent) {
        self.stop(match event {
            PowerEvent::PowerOff => End::PowerOff,
            PowerEvent::Reset => End::Reset,
            PowerEvent::DebugExit(code) => End::DebugExit(code),
        });
    }
}
