//! System instructions. Each performs the manual's checks by `x86`'s functions, then lets the run
//! loop poll events.
//!
//! This file holds what the groups share; each group has a file of its own.

pub(crate) mod caches;
pub(crate) mod cpuid;
pub(crate) mod flags;
pub(crate) mod interrupts;
pub(crate) mod msr;
pub(crate) mod ports;
pub(crate) mod registers;
pub(crate) mod segments;
pub(crate) mod selectors;
pub(crate) mod syscall;
pub(crate) mod tables;

use crate::cpu::Bus;
use crate::cpu::Op;
use crate::cpu::{Cpu, LEGACY};
use crate::op::{Fallible, Step, step, step_to};
use x86::bus::AccessKind;
use x86::exception::Exception;
use x86::regs::Cr4;
use x86::state::{CpuState, Mode};

/// Runs one of `x86`'s operations, then continues behind the instruction and refreshes what is
/// derived from the state.
fn system(
    cpu: &mut Cpu,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Bus<'_>) -> Result<(), Exception>,
) -> Step {
    let next = cpu.next_ip(op);
    let (_, state, mut bus) = cpu.parts();
    let result = operation(state, &mut bus);
    step_to(cpu.check(result).map(|()| {
        cpu.state.rip = next;
        Step::Sync
    }))
}

/// As [`system`], for operations that set RIP themselves.
fn transfer(
    cpu: &mut Cpu,
    op: &Op,
    operation: impl FnOnce(&mut CpuState, &mut Bus<'_>, u64) -> Result<(), Exception>,
) -> Step {
    let next = cpu.next_ip(op);
    cpu.state.rip = cpu.ip(op);
    let (_, state, mut bus) = cpu.parts();
    match operation(state, &mut bus, next) {
        Ok(()) => Step::Sync,
        Err(exception) => {
            cpu.fault = exception.into();
            Step::FaultHere
        }
    }
}

/// #GP(0) unless at level 0.
fn privileged(cpu: &mut Cpu) -> Fallible {
    if cpu.state.cpl == 0 { Ok(()) } else { cpu.gp() }
}

/// #GP(0) above level 0 while CR4.UMIP is set (SDM vol. 3, 2.5).
fn user_may_look(cpu: &mut Cpu) -> Fallible {
    if cpu.state.cpl > 0 && cpu.state.paging.cr4.contains(Cr4::UMIP) { cpu.gp() } else { Ok(()) }
}

/// #UD in real and virtual-8086 mode.
fn protected(cpu: &mut Cpu) -> Fallible {
    if matches!(cpu.mode, Mode::Real | Mode::Virtual8086) { cpu.ud() } else { Ok(()) }
}

/// UD0, UD1, UD2 and everything that is no instruction.
pub(crate) fn undefined(cpu: &mut Cpu, _: &Op) -> Step {
    step(cpu.ud())
}

/// An instruction longer than 15 bytes, or another decode-time #GP(0).
pub(crate) fn general_protection(cpu: &mut Cpu, _: &Op) -> Step {
    step(cpu.gp())
}

fn set_long_or_double(cpu: &mut Cpu, op: &Op, value: u64) {
    if op.size == 8 {
        cpu.set_reg::<u64>(op.dst, value);
    } else {
        cpu.set_reg::<u32>(op.dst, value as u32);
    }
}

fn word_operand<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        cpu.load::<u16>(la)
    } else {
        Ok(cpu.reg::<u16>(op.dst))
    }
}

/// Stores a selector-like value: 16 bits to memory, `op.size` bytes to a register.
fn store_word<const MEMORY: bool>(cpu: &mut Cpu, op: &Op, value: u64) -> Fallible {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Write)?;
        return cpu.store::<u16>(la, value as u16);
    }
    match op.size {
        2 => cpu.set_reg::<u16>(op.dst, value as u16),
        4 => cpu.set_reg::<u32>(op.dst, value as u32),
        _ => cpu.set_reg::<u64>(op.dst, value),
    }
    Ok(())
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    let zf = crate::alu::ZF;
    cpu.state.flags.arith = cpu.state.flags.arith & !zf | if on { zf } else { 0 };
}

fn set_pair(cpu: &mut Cpu, value: u64) {
    cpu.set_reg::<u32>(0, value as u32);
    cpu.set_reg::<u32>(2, (value >> 32) as u32);
}

fn pair(cpu: &Cpu) -> u64 {
    u64::from(cpu.reg::<u32>(2)) << 32 | u64::from(cpu.reg::<u32>(0))
}
