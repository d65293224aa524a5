//! Interrupt and alignment flags (SDM vol. 2: CLI, STI, STAC, CLAC).

use super::system;
use crate::core::Core;
use crate::core::Op;
use crate::op::{Step, step};
use x86::exception::Exception;
use x86::flags;
use x86::regs::Rflags;

/// CLI.
pub(crate) fn cli(core: &mut Core, _: &Op) -> Step {
    let result = flags::cli(&mut core.state);
    step(core.check(result))
}

/// STI.
pub(crate) fn sti(core: &mut Core, op: &Op) -> Step {
    system(core, op, |state, _| flags::sti(state))
}

/// STAC and CLAC: #UD above level 0.
pub(crate) fn set_ac<const ON: bool>(core: &mut Core, op: &Op) -> Step {
    system(core, op, |state, _| {
        if state.cpl != 0 {
            return Err(Exception::ud());
        }
        state.flags.set(Rflags::AC, ON);
        Ok(())
    })
}
