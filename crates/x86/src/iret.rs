//! IRET, IRETD, IRETQ (SDM vol. 2, IRET; vol. 3, 6.14.3, 7.3, 20.2.6, 20.3).
//!
//! RF is loaded as popped: an engine that clears RF after each instruction makes an exception of
//! this one.

use crate::addr::Width;
use crate::bus::SystemBus;
use crate::descriptor::Selector;
use crate::exception::Exception;
use crate::regs::{Cr4, Rflags};
use crate::segment::{
    self, Stack, check_ip, drop_privileged, new_stack, real_mode_code, return_target, virtual_8086,
};
use crate::state::{CpuState, Flags, Mode, Seg};
use crate::task;

/// What every IRET may load.
const ALWAYS: Rflags = Rflags::ARITH.union(Rflags::TF).union(Rflags::DF).union(Rflags::NT);
/// What a 32- or 64-bit one loads besides.
const WIDE: Rflags = Rflags::RF.union(Rflags::AC).union(Rflags::ID);
const VIRTUAL: Rflags = Rflags::VIF.union(Rflags::VIP);

/// Executes IRET with an operand size of 2, 4 or 8 bytes; `next_rip` is what a return to another
/// task saves.
///
/// # Errors
/// #GP, #NP, #SS, #TS, #PF; `state` is then unchanged, but for NMI blocking, which IRET ends even
/// so (SDM vol. 3, 6.7.1), and for a task switch that fails late ([`task::switch`]).
pub fn iret<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    operand_size: Width,
    next_rip: u64,
) -> Result<(), Exception> {
    state.blocking.nmi = false;
    match state.mode() {
        Mode::Real => real(state, bus, operand_size),
        Mode::Virtual8086 => from_8086(state, bus, operand_size),
        _ if state.flags.has(Rflags::NT) => from_task(state, bus, next_rip),
        _ => protected(state, bus, operand_size),
    }
}

/// The three items every form pops first.
struct Frame {
    ip: u64,
    cs: u16,
    flags: u64,
}

impl Frame {
    fn pop<B: SystemBus + ?Sized>(
        stack: &mut Stack,
        bus: &mut B,
        size: Width,
    ) -> Result<Self, Exception> {
        let ip = stack.pop(bus, size)?;
        let cs = stack.pop(bus, size)? as u16;
        let flags = stack.pop(bus, size)?;
        Ok(Self { ip, cs, flags })
    }
}

fn load_flags(state: &mut CpuState, image: u64, mask: Rflags) {
    let kept = state.flags.bits() & !mask.bits();
    state.flags = Flags::from_bits(kept | (image & mask.bits()));
}

fn real<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    size: Width,
) -> Result<(), Exception> {
    let mut stack = Stack::current(state);
    let frame = Frame::pop(&mut stack, bus, size)?;
    let cs = real_mode_code(state.seg[Seg::Cs as usize], frame.cs);
    check_ip(&cs, false, frame.ip)?;
    stack.store_pointer(state);
    state.seg[Seg::Cs as usize] = cs;
    state.rip = frame.ip;
    let narrow = ALWAYS | Rflags::IF | Rflags::IOPL;
    load_flags(state, frame.flags, if size == Width::B2 { narrow } else { narrow | WIDE });
    Ok(())
}

fn from_8086<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    size: Width,
) -> Result<(), Exception> {
    let iopl3 = state.flags.bits() & Rflags::IOPL.bits() == Rflags::IOPL.bits();
    let extended = size == Width::B2 && state.paging.cr4.contains(Cr4::VME);
    if !iopl3 && !extended {
        return Err(Exception::gp(0));
    }
    let mut stack = Stack::current(state);
    let frame = Frame::pop(&mut stack, bus, size)?;
    let cs = virtual_8086(frame.cs);
    check_ip(&cs, false, frame.ip)?;
    if iopl3 {
        let narrow = ALWAYS | Rflags::IF;
        load_flags(state, frame.flags, if size == Width::B2 { narrow } else { narrow | WIDE });
    } else {
        // IF of the image is the program's virtual one (SDM vol. 3, 20.3.3.3).
        let enable = frame.flags & Rflags::IF.bits() != 0;
        let pending = enable && state.flags.has(Rflags::VIP);
        if pending || frame.flags & Rflags::TF.bits() != 0 {
            return Err(Exception::gp(0));
        }
        load_flags(state, frame.flags, ALWAYS);
        state.flags.set(Rflags::VIF, enable);
    }
    stack.store_pointer(state);
    state.seg[Seg::Cs as usize] = cs;
    state.rip = frame.ip;
    Ok(())
}

/// NT: return to the task that the back link names.
fn from_task<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    next_rip: u64,
) -> Result<(), Exception> {
    if state.long_mode() {
        return Err(Exception::gp(0));
    }
    let link = task::back_link(state, bus)?;
    let image = state.flags.bits();
    task::switch(state, bus, Selector(link), task::Cause::Return, next_rip, image)
}

fn protected<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    size: Width,
) -> Result<(), Exception> {
    let mut stack = Stack::current(state);
    let frame = Frame::pop(&mut stack, bus, size)?;
    let to_8086 = frame.flags & Rflags::VM.bits() != 0;
    if to_8086 && state.cpl == 0 && size == Width::B4 && !state.long_mode() {
        return to_virtual_8086(state, bus, &mut stack, &frame);
    }
    let target = return_target(state, bus, frame.cs)?;
    let outward = target.cpl > state.cpl;
    let mut segment = None;
    if outward || state.mode() == Mode::Long64 {
        let pointer = stack.pop(bus, size)?;
        let selector = stack.pop(bus, size)? as u16;
        let ss = segment::return_stack(state, bus, &target, selector)?;
        stack = new_stack(&target, ss, pointer);
        segment = Some(ss);
    }
    target.check_ip(frame.ip)?;
    target.mark_accessed(bus)?;

    let mask = flag_mask(state, size);
    load_flags(state, frame.flags, mask);
    stack.store_pointer(state);
    if let Some(ss) = segment {
        state.seg[Seg::Ss as usize] = ss;
    }
    target.enter(state, frame.ip);
    if outward {
        drop_privileged(state);
    }
    Ok(())
}

/// What may be loaded, by the level that returns (not the one returned to).
fn flag_mask(state: &CpuState, size: Width) -> Rflags {
    let iopl = (state.flags.bits() >> 12 & 3) as u8;
    let mut mask = ALWAYS;
    mask.set(WIDE, size > Width::B2);
    mask.set(Rflags::IF, state.cpl <= iopl);
    mask.set(Rflags::IOPL, state.cpl == 0);
    mask.set(VIRTUAL, state.cpl == 0 && size > Width::B2);
    mask
}

fn to_virtual_8086<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    stack: &mut Stack,
    frame: &Frame,
) -> Result<(), Exception> {
    let pointer = stack.pop(bus, Width::B4)?;
    let mut selectors = [0u16; 5];
    for selector in &mut selectors {
        *selector = stack.pop(bus, Width::B4)? as u16;
    }
    let cs = virtual_8086(frame.cs);
    check_ip(&cs, false, frame.ip)?;
    let order = [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs];
    for (seg, selector) in order.into_iter().zip(selectors) {
        state.seg[seg as usize] = virtual_8086(selector);
    }
    state.gpr[crate::state::gpr::RSP] = pointer;
    state.seg[Seg::Cs as usize] = cs;
    state.cpl = 3;
    state.rip = frame.ip;
    let all = ALWAYS | WIDE | VIRTUAL | Rflags::IF | Rflags::IOPL | Rflags::VM;
    load_flags(state, frame.flags, all);
    Ok(())
}
