//! Control registers, XCR0, PKRU, INVLPG, INVPCID (SDM vol. 3, 2.5).
//!
//! CPL is checked here (rule: #GP(0) above 0), except where said.
use crate::bus::SystemBus;
use crate::cpuid::CpuModel;
use crate::exception::Exception;
use crate::state::CpuState;

/// MOV from CRn (0, 2, 3, 4; CR8 is [`crate::bus`]'s owner's: the engine asks the APIC). Others: #UD.
pub fn read_cr(state: &CpuState, n: u8) -> Result<u64, Exception> {
    let _ = (state, n);
    Err(Exception::ud())
}
/// MOV to CRn (0, 2, 3, 4), `value` zero-extended to 64 bits by the caller outside 64-bit mode.
pub fn write_cr(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    n: u8,
    value: u64,
) -> Result<(), Exception> {
    let _ = (model, state, bus, n, value);
    Err(Exception::ud())
}
/// SMSW: CR0 (the caller stores 16, 32 or 64 bits of it). UMIP applies.
pub fn smsw(state: &CpuState) -> Result<u64, Exception> {
    let _ = state;
    Err(Exception::ud())
}
/// LMSW.
pub fn lmsw(
    model: &CpuModel,
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    source: u16,
) -> Result<(), Exception> {
    let _ = (model, state, bus, source);
    Err(Exception::ud())
}
/// CLTS.
pub fn clts(state: &mut CpuState, bus: &mut dyn SystemBus) -> Result<(), Exception> {
    let _ = (state, bus);
    Err(Exception::ud())
}
/// XGETBV with ECX `index`.
pub fn xgetbv(model: &CpuModel, state: &CpuState, index: u32) -> Result<u64, Exception> {
    let _ = (model, state, index);
    Err(Exception::ud())
}
/// XSETBV with ECX `index`.
pub fn xsetbv(
    model: &CpuModel,
    state: &mut CpuState,
    index: u32,
    value: u64,
) -> Result<(), Exception> {
    let _ = (model, state, index, value);
    Err(Exception::ud())
}
/// RDPKRU: the value of EAX; `ecx` must be zero.
pub fn rdpkru(state: &CpuState, ecx: u32) -> Result<u32, Exception> {
    let _ = (state, ecx);
    Err(Exception::ud())
}
/// WRPKRU; `ecx` and `edx` must be zero.
pub fn wrpkru(
    state: &mut CpuState,
    bus: &mut dyn SystemBus,
    value: u32,
    ecx: u32,
    edx: u32,
) -> Result<(), Exception> {
    let _ = (state, bus, value, ecx, edx);
    Err(Exception::ud())
}
/// INVLPG of linear address `la` (segmentation applied by the caller, without faults).
pub fn invlpg(state: &CpuState, bus: &mut dyn SystemBus, la: u64) -> Result<(), Exception> {
    let _ = (state, bus, la);
    Err(Exception::ud())
}
/// INVPCID of type `kind` with its 16-byte descriptor at `la`.
pub fn invpcid(
    model: &CpuModel,
    state: &CpuState,
    bus: &mut dyn SystemBus,
    kind: u64,
    la: u64,
) -> Result<(), Exception> {
    let _ = (model, state, bus, kind, la);
    Err(Exception::ud())
}
