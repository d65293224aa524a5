//! Fast system calls and SWAPGS (SDM vol. 3, 6.8.7 and 6.8.8).

use super::transfer;
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Step, step};
use x86::debug;
use x86::exception::Exception;
use x86::regs::Rflags;
use x86::syscall;

/// SYSCALL.
pub(crate) fn syscall(cpu: &mut Cpu, op: &Op) -> Step {
    let step = transfer(cpu, op, |state, _, next| syscall::syscall(state, next));
    step_by_new_flag(cpu, step)
}

/// Raises the single-step trap of SYSCALL and SYSRET, which depends on the new TF, not the old one.
/// IA32_FMASK so keeps the kernel from being stepped, and a return with TF set traps before the
/// program's next instruction.
fn step_by_new_flag(cpu: &mut Cpu, step: Step) -> Step {
    if step != Step::Sync || !cpu.state.flags.has(Rflags::TF) {
        return step;
    }
    cpu.fault = Exception::db(debug::BS | std::mem::take(&mut cpu.data_hits)).into();
    Step::FaultHere
}

/// SYSRET; operand size 8: to 64-bit mode.
pub(crate) fn sysret(cpu: &mut Cpu, op: &Op) -> Step {
    let size = op.width();
    let step = transfer(cpu, op, |state, _, _| syscall::sysret(state, size));
    step_by_new_flag(cpu, step)
}

/// SYSENTER.
pub(crate) fn sysenter(cpu: &mut Cpu, op: &Op) -> Step {
    transfer(cpu, op, |state, _, _| syscall::sysenter(state))
}

/// SYSEXIT.
pub(crate) fn sysexit(cpu: &mut Cpu, op: &Op) -> Step {
    let size = op.width();
    transfer(cpu, op, |state, _, _| syscall::sysexit(state, size))
}

/// SWAPGS. The block goes on: only the base of GS changes.
pub(crate) fn swapgs(cpu: &mut Cpu, _: &Op) -> Step {
    let result = syscall::swapgs(&mut cpu.state);
    step(cpu.check(result))
}
