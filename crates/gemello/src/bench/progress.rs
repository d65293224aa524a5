//! What is being done, on the last line of a terminal.

use super::machine::Machine;
use std::io::{IsTerminal as _, Write as _, stderr};

/// Says it on standard error if that is a terminal, and takes it back when it goes.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    round: (u32, u32),
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: stderr().is_terminal(), round: (0, 0) }
    }

    pub(super) fn round(&mut self, round: u32, of: u32) {
        self.round = (round, of);
    }

    pub(super) fn say(&self, what: &str, machine: Machine) {
        if self.shown {
            let (round, of) = self.round;
            let _ = write!(stderr(), "\r\x1b[Kround {round} of {of}: {what} on {}", machine.name());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
