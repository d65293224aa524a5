//! Interrupt and alignment flags (SDM vol. 2: CLI, STI, STAC, CLAC).

use super::system;
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Step, step};
use x86::exception::Exception;
use x86::flags;
use x86::regs::Rflags;

/// CLI.
pub(crate) fn cli(cpu: &mut Cpu, _: &Op) -> Step {
    let result = flags::cli(&mut cpu.state);
    step(cpu.check(result))
}

/// STI.
pub(crate) fn sti(cpu: &mut Cpu, op: &Op) -> Step {
    system(cpu, op, |state, _| flags::sti(state))
}

/// STAC and CLAC: #UD above level 0.
pub(crate) fn set_ac<const ON: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    system(cpu, op, |state, _| {
        if state.cpl != 0 {
            return Err(Exception::ud());
        }
        state.flags.set(Rflags::AC, ON);
        Ok(())
    })
}
