//! Stacks that the current TSS provides (SDM vol. 3, 7.2.1, 7.6, 7.7, 6.14.5).

use crate::addr::{Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::{Selector, system, table_address};
use crate::exception::Exception;
use crate::state::CpuState;

/// SS and ESP for level `cpl` (0–2) from a 16- or 32-bit TSS.
///
/// # Errors
/// #TS with TR's selector beyond the limit; #PF.
pub fn stack_segment_pointer<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    cpl: u8,
) -> Result<(u16, u64), Exception> {
    let level = u64::from(cpl);
    let wide = matches!(state.tr.kind(), system::TSS_AVAILABLE | system::TSS_BUSY);
    let (offset, size) = if wide { (4 + 8 * level, Width::B4) } else { (2 + 4 * level, Width::B2) };
    let pointer = field(state, bus, offset, size, u64::from(size) + 2)?;
    let selector = field(state, bus, offset + u64::from(size), Width::B2, 2)?;
    Ok((selector as u16, pointer))
}

/// RSP0, RSP1 or RSP2 from a 64-bit TSS.
///
/// # Errors
/// #TS with TR's selector beyond the limit; #PF.
pub fn stack_pointer<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    cpl: u8,
) -> Result<u64, Exception> {
    field(state, bus, 4 + 8 * u64::from(cpl & 3), Width::B8, 8)
}

/// IST1 to IST7 from a 64-bit TSS.
///
/// # Errors
/// #TS with TR's selector beyond the limit; #PF.
pub fn interrupt_stack<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    index: u8,
) -> Result<u64, Exception> {
    field(state, bus, 0x1c + 8 * u64::from(index & 7), Width::B8, 8)
}

/// The `size` bytes at `offset`, provided that `needed` bytes from there lie in the TSS.
fn field<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    offset: u64,
    size: Width,
    needed: u64,
) -> Result<u64, Exception> {
    let inside = offset + needed - 1 <= u64::from(state.tr.limit);
    match table_address(state, state.tr.base, offset, needed) {
        Some(la) if inside => bus.read(la, size, Privilege::Implicit),
        _ => Err(Selector(state.tr.selector).fault(Vector::TS)),
    }
}

/// The selector of the task to return to (SDM vol. 3, 7.4).
///
/// # Errors
/// #PF.
pub(crate) fn back_link<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
) -> Result<u16, Exception> {
    field(state, bus, 0, Width::B2, 2).map(|link| link as u16)
}
