//! IRET, IRETD, IRETQ.
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::CpuState;

/// Executes IRET with an operand size of 2, 4 or 8 bytes; `next_rip` is what a task return saves.
///
/// # Errors
/// The exception raised; `state` is unchanged but for NMI blocking, which ends in any case.
pub fn iret<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand_size: u8,
    next_rip: u64,
) -> Result<(), Exception> {
    let _ = (state, bus, operand_size, next_rip);
    todo!()
}
