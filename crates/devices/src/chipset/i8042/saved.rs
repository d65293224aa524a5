//! Saved state of the keyboard controller.

use super::core::{Core, takes_data};
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of the keyboard controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct I8042State {
    /// [`I8042State::VERSION`] of the writer.
    pub version: u32,
    /// The controller's RAM, of which byte 0 is the command byte.
    pub ram: [u8; RAM],
    /// The output buffer.
    pub output: u8,
    /// OBF, CMD, AUX and TIMEOUT of the status.
    pub status: u8,
    /// The command whose data byte is to come.
    pub command: Option<u8>,
}

impl I8042State {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
}

impl Core {
    pub(super) fn save(&self) -> I8042State {
        let Self { ram, output, status, command } = *self;
        I8042State { version: I8042State::VERSION, ram, output, status, command }
    }

    pub(super) fn restored(state: &I8042State) -> Result<Self, RestoreError> {
        let I8042State { version, ram, output, status, command } = *state;
        let check = Check::version("keyboard controller", version, I8042State::VERSION)?;
        check.bits("status", status, OBF | CMD | AUX | TIMEOUT)?;
        let of_a_byte = status & (AUX | TIMEOUT) == 0 || status & OBF != 0;
        check.that(of_a_byte, "status", status, "AUX and TIMEOUT with OBF only")?;
        if let Some(command) = command {
            check.that(takes_data(command), "command", command, "a command that takes data")?;
            check.that(status & CMD != 0, "status", status, "with CMD after a command")?;
        }
        Ok(Self { ram, output, status, command })
    }
}
