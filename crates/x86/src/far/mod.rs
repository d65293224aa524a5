//! Far JMP, CALL and RET.
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::CpuState;

/// JMP far.
///
/// # Errors
/// The exception raised.
pub fn far_jump<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
    offset: u64,
    operand_size: u8,
    next_rip: u64,
) -> Result<(), Exception> {
    let _ = (state, bus, selector, offset, operand_size, next_rip);
    todo!()
}

/// CALL far.
///
/// # Errors
/// The exception raised.
pub fn far_call<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
    offset: u64,
    operand_size: u8,
    next_rip: u64,
) -> Result<(), Exception> {
    let _ = (state, bus, selector, offset, operand_size, next_rip);
    todo!()
}

/// RET far, releasing `pop_bytes`.
///
/// # Errors
/// The exception raised.
pub fn far_return<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand_size: u8,
    pop_bytes: u16,
) -> Result<(), Exception> {
    let _ = (state, bus, operand_size, pop_bytes);
    todo!()
}
