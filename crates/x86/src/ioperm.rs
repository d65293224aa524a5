//! Who may use which I/O port (SDM vol. 1, 19.5).
//!
//! Real mode and CPL ≤ IOPL: everybody. Otherwise, and always in virtual-8086 mode, the permission bitmap of the
//! current TSS decides, a set bit meaning no.

use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::flags::iopl;
use crate::regs::{Cr0, Rflags};
use crate::state::CpuState;

/// Offset in a 32-bit or 64-bit TSS of the 16-bit offset of the bitmap.
const IO_MAP_BASE: u64 = 102;
const GP: Exception = Exception::gp(0);

/// Checks an access of `size` bytes (1, 2, 4) to `port`: IN, OUT, INS, OUTS.
///
/// # Errors
/// #GP(0) if the bitmap forbids one of the ports or does not reach that far, and if TR names no 32-bit or 64-bit TSS;
/// whatever reading the TSS raises.
pub fn check<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    port: u16,
    size: u8,
) -> Result<(), Exception> {
    let vm86 = state.flags.has(Rflags::VM);
    if !state.paging.cr0.contains(Cr0::PE) || (!vm86 && state.cpl <= iopl(state)) {
        return Ok(());
    }
    let map = read_u16(state, bus, IO_MAP_BASE)?;
    // The processor reads two bytes whatever the size; a byte of ones closes the map for that.
    let bits = read_u16(state, bus, map + u64::from(port >> 3))?;
    let wanted = ((1 << (size & 7)) - 1) << (port & 7);
    if bits & wanted == 0 { Ok(()) } else { Err(GP) }
}

/// Two bytes of the current TSS.
fn read_u16<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    offset: u64,
) -> Result<u64, Exception> {
    let tss = state.tr;
    let wide = matches!(tss.kind(), 9 | 11);
    if !wide || !tss.present() || offset + 1 > u64::from(tss.limit) {
        return Err(GP);
    }
    bus.read(tss.base.wrapping_add(offset), 2, Privilege::Implicit)
}
