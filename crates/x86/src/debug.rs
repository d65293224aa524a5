//! Debug registers and breakpoints (SDM vol. 3, 18.2).
use crate::exception::Exception;
use crate::state::CpuState;

/// What a data access does, as DR7's R/W fields tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAccess {
    /// A load.
    Read,
    /// A store.
    Write,
    /// IN, OUT, INS, OUTS; the address is the port.
    Io,
}

/// MOV from DRn.
pub fn read_dr(state: &CpuState, n: u8) -> Result<u64, Exception> {
    let _ = (state, n);
    Err(Exception::ud())
}
/// MOV to DRn.
pub fn write_dr(state: &mut CpuState, n: u8, value: u64) -> Result<(), Exception> {
    let _ = (state, n, value);
    Err(Exception::ud())
}
/// Whether any breakpoint is enabled: engines test this before asking further.
pub const fn armed(state: &CpuState) -> bool {
    state.dr.dr7 & 0xff != 0
}
/// Bit n: DRn is enabled, locally or globally.
pub const fn enabled_mask(state: &CpuState) -> u8 {
    let _ = state;
    0
}
/// Bit n: DRn is an enabled instruction breakpoint.
pub const fn code_mask(state: &CpuState) -> u8 {
    let _ = state;
    0
}
/// Bit n: DRn is an enabled data or I/O breakpoint.
pub const fn data_mask(state: &CpuState) -> u8 {
    let _ = state;
    0
}
/// The DR6 bits of a #DB fault before the instruction at linear address `la`, or `None`. RF is the caller's.
pub fn code_breakpoint(state: &CpuState, la: u64) -> Option<u64> {
    let _ = (state, la);
    None
}
/// The DR6 bits of a #DB trap after an access of `len` bytes at `la`, or `None`.
pub fn data_breakpoint(state: &CpuState, la: u64, len: u64, access: DataAccess) -> Option<u64> {
    let _ = (state, la, len, access);
    None
}
