//! FNINIT, FNSTENV, FLDENV, FNSAVE and FRSTOR (SDM vol. 1, 8.1.10 and figures 8-9 to 8-12).
//!
//! The environment has four layouts, by operand size and by real or protected mode. In memory the
//! tag word is full, two bits a register; our state keeps FXSAVE's abridged one, so the full one is
//! computed from the contents.

use super::area::{Area, Parts, Pass};
use super::{FCW_INITIAL, X87_EXCEPTIONS, set_control, top, x87_available, x87_pending};
use crate::addr::Width;
use crate::bus::SystemBus;
use crate::exception::Exception;
use crate::segment::Operand;
use crate::state::{CpuState, Mode, X87};

/// Bytes of the eight registers, ten each, behind the environment of FNSAVE.
const REGISTERS: usize = 80;

/// Which of the four layouts.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of a field: 2 or 4.
    field: Width,
    /// Linear pointers and the opcode, rather than selectors.
    real: bool,
}

impl Layout {
    fn of(state: &CpuState, size: Width) -> Self {
        let field = size.min(Width::B4);
        Self { field, real: matches!(state.mode(), Mode::Real | Mode::Virtual8086) }
    }

    /// The operand, accessed field by field.
    fn area<'a, B: SystemBus + ?Sized>(
        self,
        state: &'a CpuState,
        bus: &'a mut B,
        operand: Operand,
    ) -> Area<'a, B> {
        let parts = Parts::Fields { size: self.field.bytes(), end: self.len() };
        Area::in_parts(state, bus, operand, parts)
    }

    /// Whether fields have 32 bits.
    const fn is_wide(self) -> bool {
        matches!(self.field, Width::B4)
    }

    const fn len(self) -> usize {
        7 * self.field.bytes()
    }

    /// What the unused upper half of a 32-bit field holds: the processor writes ones.
    const fn filler(self) -> u32 {
        if self.is_wide() { 0xffff_0000 } else { 0 }
    }

    /// Instruction pointer (with the opcode) and data pointer, two fields each.
    fn pointers(self, x87: &X87) -> [u32; 4] {
        let (fip, fdp) = (x87.fip as u32, x87.fdp as u32);
        let fop = u32::from(x87.fop & 0x7ff);
        match (self.real, self.is_wide()) {
            (false, true) => [fip, fop << 16, fdp, self.filler()],
            (false, false) => [fip, 0, fdp, 0],
            (true, true) => [
                fip & 0xffff | self.filler(),
                (fip & 0xffff_0000) >> 4 | fop,
                fdp & 0xffff | self.filler(),
                (fdp & 0xffff_0000) >> 4,
            ],
            (true, false) => [fip, (fip & 0xf_0000) >> 4 | fop, fdp, (fdp & 0xf_0000) >> 4],
        }
    }

    fn encode(self, x87: &X87) -> [u8; 28] {
        let control = [x87.fcw, x87.fsw, full_tags(x87)].map(|w| u32::from(w) | self.filler());
        let fields = control.into_iter().chain(self.pointers(x87));
        let mut image = [0; 28];
        if self.is_wide() {
            for (slot, field) in image.chunks_exact_mut(4).zip(fields) {
                slot.copy_from_slice(&field.to_le_bytes());
            }
        } else {
            for (slot, field) in image.chunks_exact_mut(2).zip(fields) {
                slot.copy_from_slice(&(field as u16).to_le_bytes());
            }
        }
        image
    }

    fn decode(self, image: &[u8; 28], x87: &mut X87) {
        let byte = |i: usize| u32::from(image[i]);
        let fields: [u32; 7] = core::array::from_fn(|i| {
            if self.is_wide() {
                byte(4 * i) | byte(4 * i + 1) << 8 | byte(4 * i + 2) << 16 | byte(4 * i + 3) << 24
            } else {
                byte(2 * i) | byte(2 * i + 1) << 8
            }
        });
        let [fcw, fsw, tags, ip, ip_high, dp, dp_high] = fields;
        let upper = |field: u32| {
            if self.is_wide() { (field & 0x0fff_f000) << 4 } else { (field & 0xf000) << 4 }
        };
        let (fip, fdp, fop) = match (self.real, self.is_wide()) {
            (false, true) => (ip, dp, ip_high >> 16),
            (false, false) => (ip, dp, 0),
            (true, _) => (ip & 0xffff | upper(ip_high), dp & 0xffff | upper(dp_high), ip_high),
        };
        rotate_to(x87, top(fsw as u16));
        set_control(x87, fcw as u16, fsw as u16);
        x87.ftw = abridged_tags(tags as u16);
        x87.fop = fop as u16 & 0x7ff;
        (x87.fip, x87.fdp) = (u64::from(fip), u64::from(fdp));
        (x87.fcs, x87.fds) = (0, 0);
    }
}

/// Keeps every physical register's contents while TOP moves to `new_top`: ours are kept in ST
/// order.
fn rotate_to(x87: &mut X87, new_top: usize) {
    let by = new_top.wrapping_sub(top(x87.fsw)) & 7;
    x87.st.rotate_left(by);
}

/// The tag of a register in use: 0 valid, 1 zero, 2 special (SDM vol. 1, 8.1.7).
fn tag(st: &[u8; 16]) -> u16 {
    let exponent = u16::from_le_bytes([st[8], st[9]]) & 0x7fff;
    let significand = st[..8].iter().rev().fold(0u64, |s, &b| s << 8 | u64::from(b));
    match (exponent, significand) {
        (0, 0) => 1,
        (0 | 0x7fff, _) => 2,
        // Unnormal: the integer bit is missing.
        (_, s) if s >> 63 == 0 => 2,
        _ => 0,
    }
}

/// The full tag word, two bits for each physical register, 3 for an empty one.
fn full_tags(x87: &X87) -> u16 {
    let top = top(x87.fsw);
    (0..8usize).fold(0, |word, physical| {
        let in_use = x87.ftw >> physical & 1 != 0;
        let st = &x87.st[physical.wrapping_sub(top) & 7];
        word | (if in_use { tag(st) } else { 3 }) << (2 * physical)
    })
}

fn abridged_tags(full: u16) -> u8 {
    (0..8).fold(0, |tags, n| tags | u8::from(full >> (2 * n) & 3 != 3) << n)
}

fn initialize(x87: &mut X87) {
    rotate_to(x87, 0);
    (x87.fcw, x87.fsw, x87.ftw, x87.fop) = (FCW_INITIAL, 0, 0, 0);
    (x87.fip, x87.fdp, x87.fcs, x87.fds) = (0, 0, 0, 0);
}

/// FNINIT. The registers keep their contents and become empty.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS.
pub fn fninit(state: &mut CpuState) -> Result<(), Exception> {
    x87_available(state)?;
    initialize(&mut state.x87);
    Ok(())
}

/// FNSTENV, 28 bytes of 32-bit or 64-bit operand size, else 14; then all exceptions are
/// masked.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS, whatever the writes raise.
pub fn fnstenv<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    x87_available(state)?;
    let layout = Layout::of(state, size);
    let image = layout.encode(&state.x87);
    let mut area = layout.area(state, bus, operand);
    area.put(Pass::Probe, 0, &image[..layout.len()])?;
    area.put(Pass::Write, 0, &image[..layout.len()])?;
    let x87 = &mut state.x87;
    let (fcw, fsw) = (x87.fcw | X87_EXCEPTIONS, x87.fsw);
    set_control(x87, fcw, fsw);
    Ok(())
}

/// FLDENV.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS, #MF for an exception pending before, whatever the reads raise.
pub fn fldenv<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    x87_available(state)?;
    x87_pending(state)?;
    let layout = Layout::of(state, size);
    let mut image = [0; 28];
    layout.area(state, bus, operand).get_into(0, &mut image[..layout.len()])?;
    layout.decode(&image, &mut state.x87);
    Ok(())
}

/// FNSAVE: the environment, the eight registers from ST(0), and FNINIT. 108 bytes of 32-bit or
/// 64-bit operand size, else
/// 94.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS, whatever the writes raise.
pub fn fnsave<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    x87_available(state)?;
    let layout = Layout::of(state, size);
    let mut image = [0; 28 + REGISTERS];
    image[..28].copy_from_slice(&layout.encode(&state.x87));
    let registers = &mut image[layout.len()..][..REGISTERS];
    for (slot, st) in registers.chunks_exact_mut(10).zip(&state.x87.st) {
        slot.copy_from_slice(&st[..10]);
    }
    let image = &image[..layout.len() + REGISTERS];
    let mut area = layout.area(state, bus, operand);
    area.put(Pass::Probe, 0, image)?;
    area.put(Pass::Write, 0, image)?;
    initialize(&mut state.x87);
    Ok(())
}

/// FRSTOR.
///
/// # Errors
/// #NM under CR0.EM or CR0.TS, #MF for an exception pending before, whatever the reads raise.
pub fn frstor<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand: Operand,
    size: Width,
) -> Result<(), Exception> {
    x87_available(state)?;
    x87_pending(state)?;
    let layout = Layout::of(state, size);
    let mut area = layout.area(state, bus, operand);
    let mut image = [0; 28];
    area.get_into(0, &mut image[..layout.len()])?;
    let registers: [u8; REGISTERS] = area.get(layout.len())?;
    layout.decode(&image, &mut state.x87);
    for (slot, st) in registers.chunks_exact(10).zip(&mut state.x87.st) {
        *st = [0; 16];
        st[..10].copy_from_slice(slot);
    }
    Ok(())
}
