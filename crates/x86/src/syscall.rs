//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS (SDM vol. 2).
use crate::exception::Exception;
use crate::state::CpuState;

/// SYSCALL; `next_rip` is the address after the instruction.
pub fn syscall(state: &mut CpuState, next_rip: u64) -> Result<(), Exception> {
    let _ = (state, next_rip);
    Err(Exception::ud())
}
/// SYSRET; `wide`: REX.W, return to 64-bit mode.
pub fn sysret(state: &mut CpuState, wide: bool) -> Result<(), Exception> {
    let _ = (state, wide);
    Err(Exception::ud())
}
/// SYSENTER.
pub fn sysenter(state: &mut CpuState) -> Result<(), Exception> {
    let _ = state;
    Err(Exception::ud())
}
/// SYSEXIT; `wide`: REX.W, return to 64-bit mode.
pub fn sysexit(state: &mut CpuState, wide: bool) -> Result<(), Exception> {
    let _ = (state, wide);
    Err(Exception::ud())
}
/// SWAPGS.
pub fn swapgs(state: &mut CpuState) -> Result<(), Exception> {
    let _ = state;
    Err(Exception::ud())
}
