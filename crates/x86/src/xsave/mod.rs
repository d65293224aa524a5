//! Memory images of the x87, SSE, AVX and PKRU state (SDM vol. 1, 10.5 and 13).
//!
//! Addresses are linear, segmentation and its limit checks done by the caller. Checks of CR0.TS, CR0.EM,
//! CR4.OSFXSR, CR4.OSXSAVE and CPL are made here.
pub mod layout;

use crate::bus::SystemBus;
use crate::cpuid::CpuModel;
use crate::exception::Exception;
use crate::state::CpuState;

/// Which XSAVE instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SaveForm {
    Xsave,
    Xsaveopt,
    Xsavec,
    Xsaves,
}

/// Which XRSTOR instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RestoreForm {
    Xrstor,
    Xrstors,
}

/// FXSAVE; `wide`: REX.W in 64-bit mode (FXSAVE64).
pub fn fxsave(
    state: &CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// FXRSTOR.
pub fn fxrstor(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// XSAVE and kin with EDX:EAX = `mask`.
pub fn xsave(
    model: &CpuModel,
    state: &CpuState,
    bus: &mut dyn SystemBus,
    form: SaveForm,
    la: u64,
    mask: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (model, state, bus, form, la, mask, wide);
    Err(Exception::ud())
}
/// XRSTOR and XRSTORS with EDX:EAX = `mask`.
pub fn xrstor(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    form: RestoreForm,
    la: u64,
    mask: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (model, state, bus, form, la, mask, wide);
    Err(Exception::ud())
}
/// FNSTENV with operand size 16 or 32 (`wide`: 28 bytes).
pub fn fnstenv(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// FLDENV.
pub fn fldenv(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// FNSAVE.
pub fn fnsave(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// FRSTOR.
pub fn frstor(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    la: u64,
    wide: bool,
) -> Result<(), Exception> {
    let _ = (state, bus, la, wide);
    Err(Exception::ud())
}
/// FNINIT.
pub fn fninit(state: &mut CpuState) -> Result<(), Exception> {
    let _ = state;
    Err(Exception::ud())
}
/// LDMXCSR of `value`, already read.
pub fn ldmxcsr(state: &mut CpuState, value: u32) -> Result<(), Exception> {
    let _ = (state, value);
    Err(Exception::ud())
}
/// STMXCSR: the value to store.
pub fn stmxcsr(state: &CpuState) -> Result<u32, Exception> {
    let _ = state;
    Err(Exception::ud())
}

/// Which components are not in their initial state (SDM vol. 1, 13.6).
pub fn xinuse(state: &CpuState) -> u64 {
    let _ = state;
    0x207
}
