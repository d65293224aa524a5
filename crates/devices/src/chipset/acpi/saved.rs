//! Saved state of the ACPI fixed hardware.

use super::core::Core;
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of the ACPI fixed hardware. The PM timer is VM time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcpiPmState {
    /// [`AcpiPmState::VERSION`] of the writer.
    pub version: u32,
    /// PM1_STS.
    pub status: u16,
    /// PM1_EN.
    pub enable: u16,
    /// PM1_CNT.
    pub control: u16,
    /// The PM timer's top bit when it was last looked at.
    pub top: bool,
}

impl AcpiPmState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
}

impl Core {
    pub(super) fn save(&self) -> AcpiPmState {
        let Self { status, enable, control, timer_bits: _, top } = *self;
        AcpiPmState { version: AcpiPmState::VERSION, status, enable, control, top }
    }

    /// The hardware of `state`, with a PM timer of `timer_bits`.
    pub(super) fn restored(state: &AcpiPmState, timer_bits: u32) -> Result<Self, RestoreError> {
        let AcpiPmState { version, status, enable, control, top } = *state;
        let check = Check::version("ACPI hardware", version, AcpiPmState::VERSION)?;
        check.bits("status", status, EVENTS)?;
        check.bits("enable", enable, ENABLES)?;
        check.bits("control", control, SCI_EN | BM_RLD | SLP_TYP)?;
        check.that(control & SCI_EN != 0, "control", control, "with SCI_EN")?;
        Ok(Self { status, enable, control, timer_bits, top })
    }
}
