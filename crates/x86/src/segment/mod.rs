//! Segment registers: what may be loaded into them and what may be reached through them.
//!
//! Loads: SDM vol. 3, 3.4.3, 5.5–5.7 and vol. 2 MOV, LLDT, LTR. Accesses: [`check_access`]. Every
//! function leaves the state unchanged when it fails. Interrupt shadows (MOV SS) belong to the
//! caller.

mod access;
mod code;
mod operand;
mod stack;

pub use access::check_access;
pub(crate) use code::{CodeTarget, check_ip, gate_target, jump_target, return_target};
pub use operand::Operand;
pub(crate) use stack::Stack;

use crate::addr::{La, Vector};
use crate::bus::SystemBus;
use crate::descriptor::{self, Selector, system};
use crate::exception::Exception;
use crate::state::{CpuState, Mode, Seg, Segment};

/// MOV, POP or LxS to ES, SS, DS, FS or GS (CS is loaded by far transfers only: #UD).
///
/// # Errors
/// #GP, #NP, #SS with the selector, #PF.
pub fn load_data_segment<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    seg: Seg,
    selector: u16,
) -> Result<(), Exception> {
    let segment = match (state.mode(), seg) {
        (_, Seg::Cs) => return Err(Exception::ud()),
        (Mode::Real, _) => real_mode(state.seg[seg as usize], selector),
        (Mode::Virtual8086, _) => virtual_8086(selector),
        (mode, Seg::Ss) => {
            let flat = mode == Mode::Long64 && state.cpl < 3;
            if flat && Selector(selector).is_null() && Selector(selector).rpl() == state.cpl {
                null_stack(state.cpl)
            } else {
                stack_segment(state, bus, state.cpl, selector, Vector::GP)?
            }
        }
        _ => data_segment(state, bus, state.cpl, selector, Vector::GP)?,
    };
    state.seg[seg as usize] = segment;
    Ok(())
}

/// A data segment register loaded in real mode: the limit survives ("big real mode").
pub(crate) fn real_mode(old: Segment, selector: u16) -> Segment {
    let access = (old.access & (Segment::G | Segment::DB)) | 0x93;
    Segment { base: u64::from(selector) << 4, selector, access, limit: old.limit }
}

/// CS loaded in real mode. D does not survive: code there is 16-bit.
pub(crate) fn real_mode_code(old: Segment, selector: u16) -> Segment {
    let access = (old.access & Segment::G) | 0x9b;
    Segment { base: u64::from(selector) << 4, selector, access, limit: old.limit }
}

/// Any segment register in virtual-8086 mode (SDM vol. 3, 20.1.1).
pub(crate) const fn virtual_8086(selector: u16) -> Segment {
    Segment { base: (selector as u64) << 4, limit: 0xffff, selector, access: 0xf3 }
}

/// SS without a segment, as 64-bit mode allows below level 3.
pub(crate) const fn null_stack(cpl: u8) -> Segment {
    Segment { base: 0, limit: 0, selector: cpl as u16, access: (cpl as u16) << 5 }
}

/// Judges `selector` for DS, ES, FS or GS at `cpl`; `invalid` is #GP, or #TS in a task switch.
pub(crate) fn data_segment<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    cpl: u8,
    selector: u16,
    invalid: Vector,
) -> Result<Segment, Exception> {
    let selector = Selector(selector);
    if selector.is_null() {
        return Ok(Segment::null(selector.0));
    }
    let entry = descriptor::read(state, bus, selector, invalid)?;
    let segment = entry.segment;
    let privileged = !segment.is_conforming() && segment.dpl() < selector.rpl().max(cpl);
    if !segment.is_readable() || privileged {
        return Err(selector.fault(invalid));
    }
    if !segment.present() {
        return Err(selector.fault(Vector::NP));
    }
    entry.accessed(bus)
}

/// Judges `selector` for SS at level `cpl`, which may be the level about to be entered.
pub(crate) fn stack_segment<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    cpl: u8,
    selector: u16,
    invalid: Vector,
) -> Result<Segment, Exception> {
    let selector = Selector(selector);
    let entry = descriptor::read(state, bus, selector, invalid)?;
    let segment = entry.segment;
    if selector.rpl() != cpl || segment.dpl() != cpl || !segment.is_writable() {
        return Err(selector.fault(invalid));
    }
    if !segment.present() {
        return Err(selector.fault(Vector::SS));
    }
    entry.accessed(bus)
}

/// Judges the SS that RET or IRET pops for a return to `target`'s level: null is fine for 64-bit
/// code below level 3.
pub(crate) fn return_stack<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    target: &CodeTarget,
    selector: u16,
) -> Result<Segment, Exception> {
    let null = Selector(selector).is_null();
    if null && target.long && target.cpl != 3 && Selector(selector).rpl() == target.cpl {
        Ok(null_stack(target.cpl))
    } else {
        stack_segment(state, bus, target.cpl, selector, Vector::GP)
    }
}

/// RSP as the return to `target` with stack `segment` leaves it.
pub(crate) const fn new_stack(target: &CodeTarget, segment: Segment, pointer: u64) -> Stack {
    if target.long {
        Stack::flat(pointer, target.cpl)
    } else {
        Stack::segmented(segment, pointer, target.cpl, 0)
    }
}

/// After a return to an outer level: segments that level may not use become null, and null
/// selectors 0, whatever their RPL was (SDM vol. 2, IRET and RET; the level is the descriptor's,
/// whatever the selector's RPL).
///
/// The base stays (FS and GS of a 64-bit program are bases without a segment).
pub(crate) fn drop_privileged(state: &mut CpuState) {
    let cpl = state.cpl;
    for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
        let segment = &mut state.seg[seg as usize];
        let privileged = segment.present() && !segment.is_conforming() && segment.dpl() < cpl;
        if privileged || Selector(segment.selector).is_null() {
            segment.selector = 0;
            segment.access = 0;
        }
    }
}

/// LLDT.
///
/// # Errors
/// #UD outside protected mode, #GP(0) above level 0, #GP and #NP with the selector, #PF.
pub fn lldt<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<(), Exception> {
    check_system_instruction(state)?;
    state.ldtr = ldt_segment(state, bus, selector, Vector::GP)?;
    Ok(())
}

/// Judges `selector` for LDTR; `invalid` is #GP, or #TS in a task switch (which reports "not
/// present" so, too).
pub(crate) fn ldt_segment<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
    invalid: Vector,
) -> Result<Segment, Exception> {
    let selector = Selector(selector);
    if selector.is_null() {
        return Ok(Segment::null(selector.0));
    }
    if selector.local() {
        return Err(selector.fault(invalid));
    }
    let entry = descriptor::read(state, bus, selector, invalid)?;
    if !entry.segment.is_system() || entry.segment.kind() != system::LDT {
        return Err(selector.fault(invalid));
    }
    if !entry.segment.present() {
        return Err(selector.fault(if invalid == Vector::GP { Vector::NP } else { invalid }));
    }
    wide_base(state, bus, &entry, invalid)
}

/// LTR: marks the TSS busy.
///
/// # Errors
/// #UD outside protected mode, #GP(0) above level 0 or for null, #GP and #NP with the selector,
/// #PF.
pub fn ltr<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<(), Exception> {
    check_system_instruction(state)?;
    let selector = Selector(selector);
    if selector.local() {
        return Err(selector.fault(Vector::GP));
    }
    let entry = descriptor::read(state, bus, selector, Vector::GP)?;
    let usable = entry.segment.is_tss()
        && !entry.segment.is_busy_tss()
        && !(state.long_mode() && entry.segment.kind() == system::TSS16_AVAILABLE);
    if !usable {
        return Err(selector.fault(Vector::GP));
    }
    if !entry.segment.present() {
        return Err(selector.fault(Vector::NP));
    }
    let mut segment = wide_base(state, bus, &entry, Vector::GP)?;
    bus.fetch_or_u8(entry.la.wrapping_add(5), system::BUSY)?;
    segment.access |= u16::from(system::BUSY);
    state.tr = segment;
    Ok(())
}

fn check_system_instruction(state: &CpuState) -> Result<(), Exception> {
    if matches!(state.mode(), Mode::Real | Mode::Virtual8086) {
        Err(Exception::ud())
    } else if state.cpl != 0 {
        Err(Exception::gp(0))
    } else {
        Ok(())
    }
}

/// An LDT's or TSS's segment with the upper half of its base, which must be canonical.
fn wide_base<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    entry: &descriptor::Entry,
    invalid: Vector,
) -> Result<Segment, Exception> {
    let high = entry.upper(state, bus, invalid)?;
    let base = entry.segment.base | high << 32;
    if La(base).is_canonical() {
        Ok(Segment { base, ..entry.segment })
    } else {
        Err(entry.selector.fault(invalid))
    }
}
