//! Segment registers.
use crate::bus::{AccessKind, SystemBus};
use crate::exception::Exception;
use crate::state::{CpuState, Seg};

/// MOV/POP to ES, SS, DS, FS, GS.
///
/// # Errors
/// #GP, #NP, #SS, #PF; the state is unchanged.
pub fn load_data_segment<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    seg: Seg,
    selector: u16,
) -> Result<(), Exception> {
    let _ = (state, bus, seg, selector);
    todo!()
}

/// LLDT.
///
/// # Errors
/// #UD, #GP, #NP, #PF.
pub fn lldt<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<(), Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// LTR.
///
/// # Errors
/// #UD, #GP, #NP, #PF.
pub fn ltr<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<(), Exception> {
    let _ = (state, bus, selector);
    todo!()
}

/// Checks one access and gives its linear address.
///
/// # Errors
/// #GP(0) or #SS(0).
pub fn check_access(
    state: &CpuState,
    seg: Seg,
    offset: u64,
    size: u32,
    kind: AccessKind,
) -> Result<u64, Exception> {
    let _ = (state, seg, offset, size, kind);
    todo!()
}
