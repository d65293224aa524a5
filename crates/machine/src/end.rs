//! How a run ends.

use std::io;

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
    /// The swap file has failed, and the guest's memory with it; this is how.
    MemoryLost(String),
    /// A thread that worked for it panicked: a defect of gemello; this is what it said.
    Defect(String),
    /// An engine cannot go on: a defect of gemello or an exhausted host.
    EngineFailed(String),
}

impl End {
    /// The host refused a thread.
    pub fn no_thread(error: &io::Error) -> Self {
        let what = "it has no thread left; raise the limits (ulimit -u, -v)";
        Self::NotStarted(format!("{what}: {error}"))
    }
}
