//! Saved state of the ports that are one register.

use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of a port with one register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatchState {
    /// [`LatchState::VERSION`] of the writer.
    pub version: u32,
    /// The register.
    pub value: u8,
}

impl LatchState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 1;

    pub(super) fn new(value: u8) -> Self {
        Self { version: Self::VERSION, value }
    }

    /// The register's value, for port `device`, in which the bits of `set` are always set and those
    /// outside `bits` never.
    pub(super) fn value_of(
        &self,
        device: &'static str,
        set: u8,
        bits: u8,
    ) -> Result<u8, RestoreError> {
        let Self { version, value } = *self;
        let check = Check::version(device, version, Self::VERSION)?;
        check.bits("value", value, bits)?;
        check.that(value & set == set, "value", value, format_args!("with {set:#x}"))?;
        Ok(value)
    }
}
