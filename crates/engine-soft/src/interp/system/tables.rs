//! Registers of descriptor tables: GDTR, IDTR, LDTR and TR (SDM vol. 3, 2.4).

use super::{drain_stores, privileged, protected, store_word, user_may_look, word_operand};
use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step};
use x86::addr::{La, Width};
use x86::bus::AccessKind;
use x86::debug::DataAccess;
use x86::segment;
use x86::state::{Mode, TableRegister};

/// SLDT (`imm` 0), STR (1).
pub(crate) fn sldt_str<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        protected(core)?;
        user_may_look(core)?;
        let register = if op.imm == 0 { core.state.ldtr } else { core.state.tr };
        store_word::<MEMORY>(core, op, u64::from(register.selector))
    };
    step(body(core))
}

/// LLDT (`imm` 0), LTR (1).
pub(crate) fn lldt_ltr<const MEMORY: bool>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        protected(core)?;
        privileged(core)?;
        drain_stores(core);
        let selector = word_operand::<MEMORY>(core, op)?;
        let (_, state, mut bus) = core.parts();
        let result = if op.imm == 0 {
            segment::lldt(state, &mut bus, selector)
        } else {
            segment::ltr(state, &mut bus, selector)
        };
        core.check(result)
    };
    step(body(core))
}

/// Bytes of a table register's base in memory, behind its limit's two.
fn base_size(core: &Core) -> Width {
    if core.mode == Mode::Long64 { Width::B8 } else { Width::B4 }
}

/// SGDT (`imm` 0), SIDT (1).
pub(crate) fn sgdt_sidt(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        user_may_look(core)?;
        let table = if op.imm == 0 { core.state.gdtr } else { core.state.idtr };
        let parts = [(0, Width::B2, table.limit.into()), (2, base_size(core), table.base)];
        let privilege = core.privilege();
        // Both must be writable before one is written.
        for (at, size, _) in parts {
            let la = core.part(op, at, size.into(), AccessKind::Write)?;
            let probe = core.mmu.probe_write(La(la), size.into(), privilege);
            core.check(probe)?;
        }
        for (at, size, value) in parts {
            let la = core.part(op, at, size.into(), AccessKind::Write)?;
            let written = core.bus().store(La(la), size, value, privilege);
            core.check(written)?;
            core.watch(la, size as u8, DataAccess::Write);
        }
        Ok(())
    };
    step(body(core))
}

/// LGDT (`imm` 0), LIDT (1).
pub(crate) fn lgdt_lidt(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        privileged(core)?;
        drain_stores(core);
        let mut values = [0; 2];
        for (value, (at, size)) in values.iter_mut().zip([(0, Width::B2), (2, base_size(core))]) {
            let la = core.part(op, at, size.into(), AccessKind::Read)?;
            let read = {
                let privilege = core.privilege();
                core.bus().load(La(la), size, privilege)
            };
            *value = core.check(read)?;
            core.watch(la, size as u8, DataAccess::Read);
        }
        let [limit, mut base] = values;
        if core.mode == Mode::Long64 && !La(base).is_canonical() {
            return core.gp();
        }
        if op.size == 2 && core.mode != Mode::Long64 {
            base &= 0xff_ffff;
        }
        let table = TableRegister { base, limit: limit as u16 };
        if op.imm == 0 {
            core.state.gdtr = table;
        } else {
            core.state.idtr = table;
        }
        Ok(())
    };
    step(body(core))
}
