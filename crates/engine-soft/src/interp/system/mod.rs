//! System instructions. Each performs the manual's checks by `x86`'s functions, then lets the run
//! loop poll events.
//!
//! This file holds what the groups share; each group has a file of its own.

pub(crate) mod caches;
pub(crate) mod cpuid;
pub(crate) mod flags;
pub(crate) mod hypercall;
pub(crate) mod interrupts;
pub(crate) mod msr;
pub(crate) mod ports;
pub(crate) mod registers;
pub(crate) mod segments;
pub(crate) mod selectors;
pub(crate) mod syscall;
pub(crate) mod tables;

use crate::core::Bus;
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::op::{Fallible, Step, step, step_to};
use x86::bus::AccessKind;
use x86::exception::Exception;
use x86::regs::Cr4;
use x86::state::{CpuState, Mode};

/// Runs one of `x86`'s operations, then continues behind the instruction and refreshes what is
/// derived from the state.
fn system(
    core: &mut Core,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Bus<'_>) -> Result<(), Exception>,
) -> Step {
    let next = core.next_ip(op);
    let (_, state, mut bus) = core.parts();
    let result = operation(state, &mut bus);
    step_to(core.check(result).map(|()| {
        core.state.rip = next;
        Step::Sync
    }))
}

/// As [`system`], for operations that set RIP themselves.
fn transfer(
    core: &mut Core,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Bus<'_>, u64) -> Result<(), Exception>,
) -> Step {
    let next = core.next_ip(op);
    core.state.rip = core.ip(op);
    let (_, state, mut bus) = core.parts();
    match operation(state, &mut bus, next) {
        Ok(()) => Step::Sync,
        Err(exception) => {
            core.fault = exception.into();
            Step::FaultHere
        }
    }
}

/// What serializing instructions do to memory: the stores before are visible to all processors
/// before anything after is read (SDM vol. 3, 10.3). The decoder ends blocks behind them.
fn drain_stores(core: &Core) {
    if !core.mmu.reader.is_alone() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// #GP(0) unless at level 0.
fn privileged(core: &mut Core) -> Fallible {
    if core.state.cpl == 0 { Ok(()) } else { core.gp() }
}

/// #GP(0) above level 0 while CR4.UMIP is set (SDM vol. 3, 2.5).
fn user_may_look(core: &mut Core) -> Fallible {
    if core.state.cpl > 0 && core.state.paging.cr4.contains(Cr4::UMIP) { core.gp() } else { Ok(()) }
}

/// #UD in real and virtual-8086 mode.
fn protected(core: &mut Core) -> Fallible {
    if matches!(core.mode, Mode::Real | Mode::Virtual8086) { core.ud() } else { Ok(()) }
}

/// UD0, UD1, UD2 and everything that is no instruction.
pub(crate) fn undefined(core: &mut Core, _: &Op) -> Step {
    step(core.ud())
}

/// An instruction longer than 15 bytes, or another decode-time #GP(0).
pub(crate) fn general_protection(core: &mut Core, _: &Op) -> Step {
    step(core.gp())
}

fn set_long_or_double(core: &mut Core, op: &Op, value: u64) {
    if op.size == 8 {
        core.set_reg::<u64>(op.dst, value);
    } else {
        core.set_reg::<u32>(op.dst, value as u32);
    }
}

fn word_operand<const MEMORY: bool>(core: &mut Core, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = core.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        core.load::<u16>(la)
    } else {
        Ok(core.reg::<u16>(op.dst))
    }
}

/// Stores a selector-like value: 16 bits to memory, `op.size` bytes to a register.
fn store_word<const MEMORY: bool>(core: &mut Core, op: &Op, value: u64) -> Fallible {
    if MEMORY {
        let la = core.linear::<LEGACY>(op, 2, AccessKind::Write)?;
        return core.store::<u16>(la, value as u16);
    }
    match op.size {
        2 => core.set_reg::<u16>(op.dst, value as u16),
        4 => core.set_reg::<u32>(op.dst, value as u32),
        _ => core.set_reg::<u64>(op.dst, value),
    }
    Ok(())
}

fn set_zf(core: &mut Core, on: bool) {
    let zf = crate::alu::ZF;
    core.state.flags.arith = core.state.flags.arith & !zf | if on { zf } else { 0 };
}

fn set_pair(core: &mut Core, value: u64) {
    core.set_reg::<u32>(0, value as u32);
    core.set_reg::<u32>(2, (value >> 32) as u32);
}

fn pair(core: &Core) -> u64 {
    u64::from(core.reg::<u32>(2)) << 32 | u64::from(core.reg::<u32>(0))
}
