//! Questions about selectors: LAR, LSL, VERR, VERW, and ARPL (SDM vol. 3, 6.10).

use super::{protected, set_zf, word_operand};
use crate::cpu::Op;
use crate::cpu::{Cpu, LEGACY};
use crate::op::{Fallible, Step, step};
use x86::bus::AccessKind;
use x86::protect;

/// LAR (`imm` 0), LSL (1): destination `dst`, selector in `src` or memory.
pub(crate) fn lar_lsl<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let selector = selector_source::<MEMORY>(cpu, op)?;
        let (_, state, mut bus) = cpu.parts();
        let result = if op.imm == 0 {
            protect::lar(state, &mut bus, selector)
        } else {
            protect::lsl(state, &mut bus, selector)
        };
        let found = cpu.check(result)?;
        set_zf(cpu, found.is_some());
        if let Some(value) = found {
            match op.size {
                2 => cpu.set_reg::<u16>(op.dst, value as u16),
                4 => cpu.set_reg::<u32>(op.dst, value),
                _ => cpu.set_reg::<u64>(op.dst, u64::from(value)),
            }
        }
        Ok(())
    };
    step(body(cpu))
}

fn selector_source<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Fallible<u16> {
    if MEMORY {
        let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
        cpu.load::<u16>(la)
    } else {
        Ok(cpu.reg::<u16>(op.src))
    }
}

/// VERR (`imm` 0), VERW (1).
pub(crate) fn verr_verw<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let selector = word_operand::<MEMORY>(cpu, op)?;
        let (_, state, mut bus) = cpu.parts();
        let result = if op.imm == 0 {
            protect::verr(state, &mut bus, selector)
        } else {
            protect::verw(state, &mut bus, selector)
        };
        let ok = cpu.check(result)?;
        set_zf(cpu, ok);
        Ok(())
    };
    step(body(cpu))
}

/// ARPL dst, src.
pub(crate) fn arpl<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        let source = cpu.reg::<u16>(op.src);
        if MEMORY {
            // Written only if it changes: until then it is a read.
            let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Read)?;
            let new = protect::arpl(cpu.load::<u16>(la)?, source);
            if let Some(value) = new {
                let la = cpu.linear::<LEGACY>(op, 2, AccessKind::Write)?;
                cpu.store::<u16>(la, value)?;
            }
            set_zf(cpu, new.is_some());
        } else {
            let new = protect::arpl(cpu.reg::<u16>(op.dst), source);
            if let Some(value) = new {
                cpu.set_reg::<u16>(op.dst, value);
            }
            set_zf(cpu, new.is_some());
        }
        Ok(())
    };
    step(body(cpu))
}
