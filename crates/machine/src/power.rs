//! The end of a run, and how any thread may cause it.
//!
//! The first cause wins; every processor and the I/O thread are then called back. Thread-safe;
//! takes only leaf locks.

use crate::control::{Control, Phase};
use devices::power::PowerEvent;
use std::sync::Arc;

/// Why the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest wrote this byte to the debug-exit port.
    DebugExit(u8),
    /// A processor shut down after a triple fault; this is its last state, explained.
    TripleFault(String),
    /// The guest's kernel panicked; these are its last lines, printable.
    GuestPanic(String),
    /// The time given is over.
    TimedOut,
    /// The user, through the console or a signal.
    Interrupted,
    /// Nobody reads the console's output any more.
    OutputClosed,
    /// The console's output cannot be written; this is why.
    OutputFailed(String),
    /// The host refused a thread, and nothing was run; this is why.
    NotStarted(String),
    /// An engine cannot go on: a defect of gemello or an exhausted host.
    EngineFailed(String),
}

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

    pub(crate) fn power(&self, event: PowerEvent) {
        self.stop(match event {
            PowerEvent::PowerOff => End::PowerOff,
            PowerEvent::Reset => End::Reset,
            PowerEvent::DebugExit(code) => End::DebugExit(code),
        });
    }
}
