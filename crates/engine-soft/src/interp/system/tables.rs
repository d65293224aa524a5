//! Registers of descriptor tables: GDTR, IDTR, LDTR and TR (SDM vol. 3, 2.4).

use super::{privileged, protected, store_word, user_may_look, word_operand};
use crate::cpu::Cpu;
use crate::cpu::Op;
use crate::op::{Fallible, Step, step};
use x86::addr::{La, Width};
use x86::bus::AccessKind;
use x86::debug::DataAccess;
use x86::segment;
use x86::state::{Mode, TableRegister};

/// SLDT (`imm` 0), STR (1).
pub(crate) fn sldt_str<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        user_may_look(cpu)?;
        let register = if op.imm == 0 { cpu.state.ldtr } else { cpu.state.tr };
        store_word::<MEMORY>(cpu, op, u64::from(register.selector))
    };
    step(body(cpu))
}

/// LLDT (`imm` 0), LTR (1).
pub(crate) fn lldt_ltr<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        protected(cpu)?;
        privileged(cpu)?;
        let selector = word_operand::<MEMORY>(cpu, op)?;
        let (_, state, mut bus) = cpu.parts();
        let result = if op.imm == 0 {
            segment::lldt(state, &mut bus, selector)
        } else {
            segment::ltr(state, &mut bus, selector)
        };
        cpu.check(result)
    };
    step(body(cpu))
}

/// Bytes of a table register's base in memory, behind its limit's two.
fn base_size(cpu: &Cpu) -> Width {
    if cpu.mode == Mode::Long64 { Width::B8 } else { Width::B4 }
}

/// SGDT (`imm` 0), SIDT (1).
pub(crate) fn sgdt_sidt(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        user_may_look(cpu)?;
        let table = if op.imm == 0 { cpu.state.gdtr } else { cpu.state.idtr };
        let parts = [(0, Width::B2, table.limit.into()), (2, base_size(cpu), table.base)];
        let privilege = cpu.privilege();
        // Both must be writable before one is written.
        for (at, size, _) in parts {
            let la = cpu.part(op, at, size.into(), AccessKind::Write)?;
            let probe = cpu.mmu.probe_write(La(la), size.into(), privilege);
            cpu.check(probe)?;
        }
        for (at, size, value) in parts {
            let la = cpu.part(op, at, size.into(), AccessKind::Write)?;
            let written = cpu.bus().store(La(la), size, value, privilege);
            cpu.check(written)?;
            cpu.watch(la, size as u8, DataAccess::Write);
        }
        Ok(())
    };
    step(body(cpu))
}

/// LGDT (`imm` 0), LIDT (1).
pub(crate) fn lgdt_lidt(cpu: &mut Cpu, op: &Op) -> Step {
    let body = |cpu: &mut Cpu| -> Fallible {
        privileged(cpu)?;
        let mut values = [0; 2];
        for (value, (at, size)) in values.iter_mut().zip([(0, Width::B2), (2, base_size(cpu))]) {
            let la = cpu.part(op, at, size.into(), AccessKind::Read)?;
            let read = {
                let privilege = cpu.privilege();
                cpu.bus().load(La(la), size, privilege)
            };
            *value = cpu.check(read)?;
            cpu.watch(la, size as u8, DataAccess::Read);
        }
        let [limit, mut base] = values;
        if cpu.mode == Mode::Long64 && !La(base).is_canonical() {
            return cpu.gp();
        }
        if op.size == 2 && cpu.mode != Mode::Long64 {
            base &= 0xff_ffff;
        }
        let table = TableRegister { base, limit: limit as u16 };
        if op.imm == 0 {
            cpu.state.gdtr = table;
        } else {
            cpu.state.idtr = table;
        }
        Ok(())
    };
    step(body(cpu))
}
