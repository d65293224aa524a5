//! Who may see and change which system flags (SDM vol. 2, PUSHF, POPF, CLI, STI; vol. 3, 20.3).
use crate::exception::Exception;
use crate::state::CpuState;

/// The image that PUSHF pushes with an operand of `size` bytes (2, 4, 8); VM and RF read as zero.
pub fn pushf(state: &CpuState, size: u8) -> Result<u64, Exception> {
    let _ = (state, size);
    Err(Exception::ud())
}
/// POPF of `image`, `size` bytes wide (2, 4, 8).
pub fn popf(state: &mut CpuState, image: u64, size: u8) -> Result<(), Exception> {
    let _ = (state, image, size);
    Err(Exception::ud())
}
/// CLI.
pub fn cli(state: &mut CpuState) -> Result<(), Exception> {
    let _ = state;
    Err(Exception::ud())
}
/// STI; raises the interrupt shadow where IF goes from 0 to 1.
pub fn sti(state: &mut CpuState) -> Result<(), Exception> {
    let _ = state;
    Err(Exception::ud())
}
/// The current I/O privilege level.
pub const fn iopl(state: &CpuState) -> u8 {
    ((state.flags.system >> 12) & 3) as u8
}
