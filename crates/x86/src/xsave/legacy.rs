//! FXSAVE and FXRSTOR, and the 512-byte legacy region that XSAVE shares with them (SDM vol. 1,
//! 10.5.1 and 13.4.1).

use super::area::{Area, Pass};
use super::{GP, check_mxcsr, set_control, vector_count, x87_available};
use crate::addr::Width;
use crate::bus::{AccessKind, SystemBus};
use crate::exception::Exception;
use crate::segment::Operand;
use crate::state::{CpuState, X87, Ymm};

/// Offset of MXCSR and its mask.
pub(super) const MXCSR: usize = 24;
/// Offset of ST(0).
pub(super) const ST: usize = 32;
/// Bytes of the operand.
const SIZE: usize = 512;
/// Offset of XMM0.
pub(super) const XMM: usize = 160;

/// The first 24 bytes: control, status, tags, opcode and pointers.
pub(super) fn x87_header(x87: &X87, size: Width) -> [u8; 24] {
    let mut image = [0; 24];
    image[0..2].copy_from_slice(&x87.fcw.to_le_bytes());
    image[2..4].copy_from_slice(&x87.fsw.to_le_bytes());
    image[4] = x87.ftw;
    image[6..8].copy_from_slice(&(x87.fop & 0x7ff).to_le_bytes());
    // Narrow: 32 bits, a selector (deprecated, zero), two reserved bytes.
    let pointer = |p: u64| if size == Width::B8 { p } else { p & 0xffff_ffff };
    image[8..16].copy_from_slice(&pointer(x87.fip).to_le_bytes());
    image[16..24].copy_from_slice(&pointer(x87.fdp).to_le_bytes());
    image
}

/// ST(0) to ST(7), 16 bytes each, of which six are reserved.
pub(super) fn x87_registers(x87: &X87) -> [u8; 128] {
    let mut image = [0; 128];
    for (slot, st) in image.chunks_exact_mut(16).zip(&x87.st) {
        slot[..10].copy_from_slice(&st[..10]);
    }
    image
}

/// MXCSR and MXCSR_MASK.
pub(super) fn mxcsr_pair(x87: &X87) -> [u8; 8] {
    (u64::from(x87.mxcsr) | u64::from(x87.mxcsr_mask) << 32).to_le_bytes()
}

/// One half of each vector register: bytes 0–15 of them (`upper` false) or 16–31.
pub(super) fn vector_halves(ymm: &[Ymm; 16], upper: bool) -> [u8; 256] {
    let mut image = [0; 256];
    let start = if upper { 16 } else { 0 };
    for (slot, register) in image.chunks_exact_mut(16).zip(ymm) {
        slot.copy_from_slice(&register.0[start..start + 16]);
    }
    image
}

/// Loads one half of the first registers from `image`, as many as it has.
pub(super) fn set_vector_halves(ymm: &mut [Ymm; 16], upper: bool, image: &[u8]) {
    let start = if upper { 16 } else { 0 };
    for (slot, register) in image.chunks_exact(16).zip(ymm) {
        register.0[start..start + 16].copy_from_slice(slot);
    }
}

/// Loads the x87 part of `x87` from the two images; MXCSR stays.
pub(super) fn set_x87(x87: &mut X87, header: &[u8; 24], registers: &[u8; 128], size: Width) {
    let u16_at = |i: usize| u16::from_le_bytes([header[i], header[i + 1]]);
    let pointer = |i: usize| {
        let low = u64::from(u16_at(i)) | u64::from(u16_at(i + 2)) << 16;
        let high = u64::from(u16_at(i + 4)) | u64::from(u16_at(i + 6)) << 16;
        if size == Width::B8 { low | high << 32 } else { low }
    };
    set_control(x87, u16_at(0), u16_at(2));
    x87.ftw = header[4];
    x87.fop = u16_at(6) & 0x7ff;
    x87.fip = pointer(8);
    x87.fdp = pointer(16);
    (x87.fcs, x87.fds) = (0, 0);
    for (slot, st) in registers.chunks_exact(16).zip(&mut x87.st) {
        *st = [0; 16];
        st[..10].copy_from_slice(&slot[..10]);
    }
}

/// What goes before the accesses: the unit, then the first byte's being within bounds, then
/// alignment.
fn check(state: &CpuState, operand: &Operand, kind: AccessKind) -> Result<(), Exception> {
    x87_available(state)?;
    operand.part(state, 0, 1, kind)?;
    if operand.start(state).is_aligned(16) { Ok(()) } else { Err(GP) }
}

/// FXSAVE; pointers are of `size` 8 under REX.W in 64-bit mode (FXSAVE64), else 4. Outside 64-bit
/// mode XMM8–15 are left out.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS, #GP(0) for an address that 16 does not divide, whatever the writes
/// raise.
pub fn fxsave<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    check(state, &operand, AccessKind::Write)?;
    let mut image = [0; XMM + 256];
    image[..MXCSR].copy_from_slice(&x87_header(&state.x87, size));
    image[MXCSR..ST].copy_from_slice(&mxcsr_pair(&state.x87));
    image[ST..XMM].copy_from_slice(&x87_registers(&state.x87));
    image[XMM..].copy_from_slice(&vector_halves(&state.ymm, false));
    let image = &image[..XMM + 16 * vector_count(state)];
    let mut area = Area::new(state, bus, operand);
    // All of the operand is judged, its end first, though what follows the registers is left as it
    // is.
    area.put(Pass::Probe, SIZE - 1, &[0])?;
    area.put(Pass::Probe, 0, &[0; SIZE])?;
    area.put(Pass::Write, 0, image)
}

/// FXRSTOR.
///
/// # Errors
/// As [`fxsave`], and #GP(0) for a reserved bit of MXCSR.
pub fn fxrstor<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    check(state, &operand, AccessKind::Read)?;
    let mut area = Area::new(state, bus, operand);
    let _judged: [u8; 1] = area.get(SIZE - 1)?;
    let header = area.get(0)?;
    let mxcsr = area.get_u64(MXCSR)? as u32;
    let registers = area.get(ST)?;
    let mut vectors = [0; 256];
    let vectors = &mut vectors[..16 * vector_count(state)];
    area.get_into(XMM, vectors)?;
    check_mxcsr(state, mxcsr)?;
    set_x87(&mut state.x87, &header, &registers, size);
    state.x87.mxcsr = mxcsr;
    set_vector_halves(&mut state.ymm, false, vectors);
    Ok(())
}
