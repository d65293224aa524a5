//! An entry of the IVT or IDT, for those who look on: inspector, trace, fault reports. Nothing is
//! judged or changed.

use crate::addr::{Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::{Gate, table_address};
use crate::exception::Exception;
use crate::regs::Cr0;
use crate::state::CpuState;

/// What the table holds for a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableEntry {
    /// Real mode: CS and IP.
    Pointer {
        /// CS.
        segment: u16,
        /// IP.
        offset: u16,
    },
    /// A gate; whether it may be used is another question.
    Gate(Gate),
    /// No gate that the mode knows: the raw halves (the upper one is 0 outside IA-32e mode).
    Invalid(u64, u64),
    /// Beyond the table's limit.
    Beyond,
}

/// Reads the entry of `vector` in the table that IDTR names.
///
/// # Errors
/// #PF if the table is not mapped there.
pub fn peek<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    vector: Vector,
) -> Result<TableEntry, Exception> {
    let long_mode = state.long_mode();
    let real = !state.paging.cr0.contains(Cr0::PE);
    let size = match (real, long_mode) {
        (true, _) => 4,
        (_, false) => 8,
        (_, true) => 16,
    };
    let offset = size * u64::from(vector.0);
    let la = match table_address(state, state.idtr.base, offset, size) {
        Some(la) if offset + size - 1 <= u64::from(state.idtr.limit) => la,
        _ => return Ok(TableEntry::Beyond),
    };
    if real {
        let pointer = bus.read(la, Width::B4, Privilege::Implicit)?;
        return Ok(TableEntry::Pointer { segment: (pointer >> 16) as u16, offset: pointer as u16 });
    }
    let low = bus.read(la, Width::B8, Privilege::Implicit)?;
    let high =
        if long_mode { bus.read(la.wrapping_add(8), Width::B8, Privilege::Implicit)? } else { 0 };
    Ok(Gate::decode(low, high, long_mode).map_or(TableEntry::Invalid(low, high), TableEntry::Gate))
}
