//! Memory images of the x87, SSE, AVX and PKRU state (SDM vol. 1, 8.1.10, 10.5 and 13; vol. 2, each
//! instruction).
//!
//! CR0.TS, CR0.EM, CR4.OSXSAVE, the model, CPL, alignment, segmentation and the contents are judged
//! here; an operand is accessed in parts, each of which has an address of its own
//! ([`crate::segment::Operand`]). A save touches memory only when all of it can be written; a
//! restore touches the state only when all of it has been read and judged. FCS and FDS are
//! deprecated on our models: stored as zero, ignored when loaded.

mod area;
mod environment;
mod extended;
pub mod layout;
mod legacy;

pub use environment::{fldenv, fninit, fnsave, fnstenv, frstor};
pub use extended::{RestoreForm, SaveForm, xinuse, xrstor, xsave};
pub use legacy::{fxrstor, fxsave};

use crate::addr::Vector;
use crate::exception::Exception;
use crate::regs::{Cr0, Cr4};
use crate::state::{CpuState, Mode, X87};

/// MXCSR's initial value.
pub const MXCSR_INITIAL: u32 = 0x1f80;
/// FCW's value after FNINIT.
pub const FCW_INITIAL: u16 = 0x37f;

/// The six exception flags of FSW and masks of FCW.
const X87_EXCEPTIONS: u16 = 0x3f;
/// FSW: exception summary, and the busy bit that copies it.
const SUMMARY: u16 = 1 << 7 | 1 << 15;

const NM: Exception = Exception::plain(Vector::NM);
const GP: Exception = Exception::gp(0);

/// #NM if an x87 instruction (other than WAIT) may not run: CR0.EM or CR0.TS (SDM vol. 3, 2.5).
pub fn x87_available(state: &CpuState) -> Result<(), Exception> {
    if state.paging.cr0.intersects(Cr0::EM | Cr0::TS) { Err(NM) } else { Ok(()) }
}

/// #MF if an unmasked x87 exception is pending and CR0.NE has it reported so (SDM vol. 1, 8.7).
pub fn x87_pending(state: &CpuState) -> Result<(), Exception> {
    if state.x87.fsw & 1 << 7 != 0 && state.paging.cr0.contains(Cr0::NE) {
        Err(Exception::plain(Vector::MF))
    } else {
        Ok(())
    }
}

/// LDMXCSR of `value`, already read.
///
/// # Errors
/// #UD under CR0.EM or without CR4.OSFXSR, #NM under CR0.TS, #GP(0) for a reserved bit.
pub fn ldmxcsr(state: &mut CpuState, value: u32) -> Result<(), Exception> {
    sse_available(state)?;
    check_mxcsr(state, value)?;
    state.x87.mxcsr = value;
    Ok(())
}

/// STMXCSR: the value to store.
///
/// # Errors
/// #UD under CR0.EM or without CR4.OSFXSR, #NM under CR0.TS.
pub fn stmxcsr(state: &CpuState) -> Result<u32, Exception> {
    sse_available(state).map(|()| state.x87.mxcsr)
}

fn sse_available(state: &CpuState) -> Result<(), Exception> {
    let paging = &state.paging;
    if paging.cr0.contains(Cr0::EM) || !paging.cr4.contains(Cr4::OSFXSR) {
        return Err(Exception::ud());
    }
    if paging.cr0.contains(Cr0::TS) { Err(NM) } else { Ok(()) }
}

fn check_mxcsr(state: &CpuState, value: u32) -> Result<(), Exception> {
    if value & !state.x87.mxcsr_mask == 0 { Ok(()) } else { Err(GP) }
}

/// XMM and YMM registers that exist in the current mode.
fn vector_count(state: &CpuState) -> usize {
    if state.mode() == Mode::Long64 { 16 } else { 8 }
}

/// TOP of a status word.
const fn top(fsw: u16) -> usize {
    (fsw >> 11 & 7) as usize
}

/// Loads FCW, whose bit 6 reads as one and whose other reserved bits read as zero, and FSW, whose
/// summary follows from both.
fn set_control(x87: &mut X87, fcw: u16, fsw: u16) {
    x87.fcw = fcw & 0x1f3f | 0x40;
    let pending = fsw & !x87.fcw & X87_EXCEPTIONS != 0;
    x87.fsw = if pending { fsw | SUMMARY } else { fsw & !SUMMARY };
}

#[cfg(test)]
mod tests;
