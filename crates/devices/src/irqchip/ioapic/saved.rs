//! Saved state of the IOAPIC.

use super::core::Core;
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of an IOAPIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoApicState {
    /// [`IoApicState::VERSION`] of the writer.
    pub version: u32,
    /// IOAPICID.
    pub id: u8,
    /// IOREGSEL.
    pub select: u8,
    /// IOREDTBL.
    pub entries: [u64; PINS],
    /// Levels of the inputs, one bit each.
    pub inputs: u32,
}

impl IoApicState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

impl Core {
    pub(super) fn save(&self) -> IoApicState {
        let Self { id, select, entries, inputs } = *self;
        IoApicState { version: IoApicState::VERSION, id, select, entries, inputs }
    }

    pub(super) fn restored(state: &IoApicState) -> Result<Self, RestoreError> {
        let IoApicState { version, id, select, entries, inputs } = *state;
        let check = Check::version("IOAPIC", version, IoApicState::VERSION)?;
        check.within("id", id, 0..=ID_MAX)?;
        check.bits("inputs", inputs, (1 << PINS) - 1)?;
        for entry in entries {
            check.bits("entries", entry, WRITABLE | REMOTE_IRR)?;
            let level = entry & REMOTE_IRR == 0 || entry & LEVEL != 0;
            check.that(level, "entries", format_args!("{entry:#x}"), "level with remote IRR")?;
        }
        Ok(Self { id, select, entries, inputs })
    }
}
