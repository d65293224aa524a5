//! Questions about selectors: LAR, LSL, VERR, VERW, and ARPL (SDM vol. 3, 6.10).

use super::{protected, set_zf, word_operand};
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::op::{Fallible, Step, step};
use x86::bus::AccessKind;
use x86::protect;

/// LAR (`imm` 0), LSL (1): destination `dst`, selector in `src` or memory.
pub(crate) fn lar_lsl<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        protected(core)?;
        let selector = selector_source::<MEMORY>(core, op)?;
        let (_, state, mut bus) = core.parts();
        let result = if op.imm == 0 {
            protect::lar(state, &mut bus, selector)
        } else {
            protect::lsl(state, &mut bus, selector)
        };
        let found = core.check(result)?;
        set_zf(core, found.is_some());
        if let Some(value) = found {
            match op.size {
                2 => core.set_reg::<u16>(op.dst, value as u16),
                4 => core.set_reg::<u32>(op.dst, value),
                _ => core.set_reg::<u64>(op.dst, u64::from(value)),
            }
        }
        Ok(())
    };
    step(body(core))
}

fn selector_source<const MEMORY: bool>(core: &mut Core, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = core.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        core.load::<u16>(la)
    } else {
        Ok(core.reg::<u16>(op.src))
    }
}

/// VERR (`imm` 0), VERW (1).
pub(crate) fn verr_verw<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        protected(core)?;
        let selector = word_operand::<MEMORY>(core, op)?;
        let (_, state, mut bus) = core.parts();
        let result = if op.imm == 0 {
            protect::verr(state, &mut bus, selector)
        } else {
            protect::verw(state, &mut bus, selector)
        };
        let ok = core.check(result)?;
        set_zf(core, ok);
        Ok(())
    };
    step(body(core))
}

/// ARPL dst, src.
pub(crate) fn arpl<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        protected(core)?;
        let source = core.reg::<u16>(op.src);
        if MEMORY {
            // Written only if it changes: until then it is a read.
            let la = core.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            let new = protect::arpl(core.load::<u16>(la)?, source);
            if let Some(value) = new {
                let la = core.linear::<LEGACY>(op, 2, AccessKind::Write)?;
                core.store::<u16>(la, value)?;
            }
            set_zf(core, new.is_some());
        } else {
            let new = protect::arpl(core.reg::<u16>(op.dst), source);
            if let Some(value) = new {
                core.set_reg::<u16>(op.dst, value);
            }
            set_zf(core, new.is_some());
        }
        Ok(())
    };
    step(body(core))
}
