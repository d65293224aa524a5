//! Questions about segments, asked without loading them: LAR, LSL, VERR, VERW, and ARPL (SDM vol.
//! 3, 5.10; vol. 2).

use crate::addr::Width;
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::{Selector, locate, system};
use crate::exception::Exception;
use crate::state::{CpuState, Mode, Segment};

/// LAR: the access rights in bits 8–23 (a 16-bit destination takes the low word). `None`: ZF is
/// cleared.
///
/// Bits 16–19, undefined in the manual, are the limit's, as processors give them.
///
/// # Errors
/// #UD in real and virtual-8086 mode; #PF.
pub fn lar<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Option<u32>, Exception> {
    let Some((segment, raw)) = visible(state, bus, selector)? else { return Ok(None) };
    let gates = match segment.kind() {
        system::CALL_GATE => true,
        system::CALL_GATE16 | system::TASK_GATE => !state.long_mode(),
        _ => false,
    };
    let valid = !segment.is_system() || gates || has_limit(state, &segment);
    Ok(valid.then_some((raw >> 32) as u32 & 0x00ff_ff00))
}

/// LSL: the limit in bytes. `None`: ZF is cleared.
///
/// # Errors
/// #UD in real and virtual-8086 mode; #PF.
pub fn lsl<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Option<u32>, Exception> {
    let Some((segment, _)) = visible(state, bus, selector)? else { return Ok(None) };
    let valid = !segment.is_system() || has_limit(state, &segment);
    Ok(valid.then_some(segment.limit))
}

/// VERR: the new ZF.
///
/// # Errors
/// #UD in real and virtual-8086 mode; #PF.
pub fn verr<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<bool, Exception> {
    Ok(visible(state, bus, selector)?.is_some_and(|(segment, _)| segment.is_readable()))
}

/// VERW: the new ZF.
///
/// # Errors
/// #UD in real and virtual-8086 mode; #PF.
pub fn verw<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<bool, Exception> {
    Ok(visible(state, bus, selector)?.is_some_and(|(segment, _)| segment.is_writable()))
}

/// ARPL: the adjusted destination; `None` if its RPL is high enough already (ZF is cleared).
pub const fn arpl(destination: u16, source: u16) -> Option<u16> {
    if destination & 3 < source & 3 { Some((destination & !3) | (source & 3)) } else { None }
}

/// The descriptor, if `selector` names one that CPL and RPL may see. Presence does not matter.
fn visible<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Option<(Segment, u64)>, Exception> {
    if matches!(state.mode(), Mode::Real | Mode::Virtual8086) {
        return Err(Exception::ud());
    }
    let selector = Selector(selector);
    let Some(la) = locate(state, selector, 8).filter(|_| !selector.is_null()) else {
        return Ok(None);
    };
    let raw = bus.read(la, Width::B8, Privilege::Implicit)?;
    let segment = Segment::decode(selector.0, raw);
    let allowed = segment.is_conforming() || segment.dpl() >= selector.rpl().max(state.cpl);
    Ok(allowed.then_some((segment, raw)))
}

/// LDT and TSS; the 16-bit TSS does not exist in IA-32e mode.
fn has_limit(state: &CpuState, segment: &Segment) -> bool {
    match segment.kind() {
        system::LDT | system::TSS_AVAILABLE | system::TSS_BUSY => segment.is_system(),
        system::TSS16_AVAILABLE | system::TSS16_BUSY => segment.is_system() && !state.long_mode(),
        _ => false,
    }
}
