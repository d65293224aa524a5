//! LAR, LSL, VERR, VERW, ARPL.
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::state::CpuState;

/// LAR: the access rights (32-bit form; a 16-bit destination takes the low word), `None`: ZF is cleared.
///
/// # Errors
/// #UD in real and virtual-8086 mode, #PF.
pub fn lar<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Option<u32>, Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// LSL: the limit in bytes, `None`: ZF is cleared.
///
/// # Errors
/// #UD in real and virtual-8086 mode, #PF.
pub fn lsl<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Option<u32>, Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// VERR: the new ZF.
///
/// # Errors
/// #UD in real and virtual-8086 mode, #PF.
pub fn verr<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<bool, Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// VERW: the new ZF.
///
/// # Errors
/// #UD in real and virtual-8086 mode, #PF.
pub fn verw<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<bool, Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// ARPL: the adjusted destination, `None` if its RPL is high enough already (ZF is cleared).
pub const fn arpl(destination: u16, source: u16) -> Option<u16> {
    if destination & 3 < source & 3 { Some((destination & !3) | (source & 3)) } else { None }
}
