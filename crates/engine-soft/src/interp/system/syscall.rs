//! Fast system calls and SWAPGS (SDM vol. 3, 6.8.7 and 6.8.8).

use super::transfer;
use crate::core::Core;
use crate::core::Op;
use crate::op::{Step, step};
use x86::debug;
use x86::exception::Exception;
use x86::regs::Rflags;
use x86::syscall;

/// SYSCALL.
pub(crate) fn syscall(core: &mut Core, op: &Op) -> Step {
    let step = transfer(core, op, |state, _, next| syscall::syscall(state, next));
    step_by_new_flag(core, step)
}

/// Raises the single-step trap of SYSCALL and SYSRET, which depends on the new TF, not the old one.
/// IA32_FMASK so keeps the kernel from being stepped, and a return with TF set traps before the
/// program's next instruction.
fn step_by_new_flag(core: &mut Core, step: Step) -> Step {
    if step != Step::Sync || !core.state.flags.has(Rflags::TF) {
        return step;
    }
    core.fault = Exception::db(debug::BS | std::mem::take(&mut core.data_hits)).into();
    Step::FaultHere
}

/// SYSRET; operand size 8: to 64-bit mode.
pub(crate) fn sysret(core: &mut Core, op: &Op) -> Step {
    let size = op.width();
    let step = transfer(core, op, |state, _, _| syscall::sysret(state, size));
    step_by_new_flag(core, step)
}

/// SYSENTER.
pub(crate) fn sysenter(core: &mut Core, op: &Op) -> Step {
    transfer(core, op, |state, _, _| syscall::sysenter(state))
}

/// SYSEXIT.
pub(crate) fn sysexit(core: &mut Core, op: &Op) -> Step {
    let size = op.width();
    transfer(core, op, |state, _, _| syscall::sysexit(state, size))
}

/// SWAPGS. The block goes on: only the base of GS changes.
pub(crate) fn swapgs(core: &mut Core, _: &Op) -> Step {
    let result = syscall::swapgs(&mut core.state);
    step(core.check(result))
}
