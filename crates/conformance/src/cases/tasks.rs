//! The hardware task switch (SDM vol. 3, chapter 7).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Rflags};
use x86::state::gpr::{RAX, RBX, RSP};

/// Offsets in the 32-bit TSS (figure 7-2).
mod tss {
    pub(super) const LINK: u64 = 0;
    pub(super) const EIP: u64 = 0x20;
    pub(super) const EFLAGS: u64 = 0x24;
    pub(super) const EAX: u64 = 0x28;
    pub(super) const EBX: u64 = 0x34;
    pub(super) const ESP: u64 = 0x38;
    pub(super) const ES: u64 = 0x48;
    pub(super) const CS: u64 = 0x4c;
    pub(super) const SS: u64 = 0x50;
    pub(super) const TRAP: u64 = 0x64;
}

/// A present task gate.
const TASK_GATE: u8 = 0x85;
/// Initial stack of the second task.
const STACK2: u64 = IST1;

/// Protected mode with a second task that starts at `entry`.
fn two_tasks(g: &mut Guest, entry: u64) {
    g.protected();
    for offset in (tss::ES..=0x5c).step_by(4) {
        g.poke32(TSS2 + offset, sel::DATA.into());
    }
    g.poke32(TSS2 + tss::CS, sel::CODE32.into());
    g.poke32(TSS2 + tss::EIP, entry as u32);
    g.poke32(TSS2 + tss::EFLAGS, 2);
    g.poke32(TSS2 + tss::EAX, 0xaaaa);
    g.poke32(TSS2 + tss::ESP, STACK2 as u32);
}

/// JMP or CALL to the second task's TSS.
fn far(g: &mut Guest, opcode: u8) -> u64 {
    g.raw(&[opcode, 0, 0, 0, 0, sel::TSS2 as u8, 0])
}

/// Expects the type of a TSS descriptor: 9 available, B busy.
fn want_type(g: &mut Guest, selector: u16, kind: u64) {
    g.want("TSS type", move |e| e.mem(GDT + u64::from(selector) + 5, 1) & 0xf, kind);
}

pub(super) const CASES: &[Case] = &[
    case("tasks/jump", "SDM 3A 7.3", |g| {
        let entry = g.aside(32, |a| a.hlt());
        two_tasks(g, entry);
        g.emit(|a| a.mov(ebx, 0xbbbb));
        let at = far(g, 0xea);
        g.halts_at(entry + 1);
        g.want_reg(RAX, 0xaaaa);
        g.want_reg(RSP, STACK2);
        g.want_mem(TSS + tss::EIP, 4, at + 7);
        g.want_mem(TSS + tss::EBX, 4, 0xbbbb);
        g.want_mem(TSS + tss::ESP, 4, STACK);
        g.want_mem(TSS + tss::SS, 2, sel::DATA.into());
        want_type(g, sel::TSS, 9);
        want_type(g, sel::TSS2, 0xb);
        g.want("TR", |e| e.state.tr.selector.into(), sel::TSS2.into());
        g.want("CR0.TS", |e| (e.state.paging.cr0 & Cr0::TS).bits(), Cr0::TS.bits());
        g.want_flag(Rflags::NT, false);
    }),
    case("tasks/call-and-iret", "SDM 3A 7.4", |g| {
        let entry = g.aside(32, |a| {
            a.mov(eax, 0xcccc)?;
            a.pushfd()?;
            a.pop(ecx)?;
            a.mov(dword_ptr(DATA), ecx)?;
            a.iretd()
        });
        two_tasks(g, entry);
        g.emit(|a| a.mov(eax, 1));
        far(g, 0x9a);
        g.emit(|a| a.mov(ebx, 2));
        g.want_reg(RAX, 1);
        g.want_reg(RBX, 2);
        g.want("NT in the callee", |e| e.mem(DATA, 4) & 0x4000, 0x4000);
        g.want_mem(TSS2 + tss::LINK, 2, sel::TSS.into());
        g.want_mem(TSS2 + tss::EAX, 4, 0xcccc);
        g.want("NT saved by IRET", |e| e.mem(TSS2 + tss::EFLAGS, 4) & 0x4000, 0);
        want_type(g, sel::TSS, 0xb);
        want_type(g, sel::TSS2, 9);
        g.want("TR", |e| e.state.tr.selector.into(), sel::TSS.into());
    }),
    case("tasks/int-n-through-a-task-gate-is-not-stepped", "SDM 3A 17.3.1.4", |g| {
        let entry = g.aside(32, |a| a.hlt());
        two_tasks(g, entry);
        g.set_gate(INTERRUPT, sel::TSS2, 0, TASK_GATE, 0);
        g.flags(Rflags::TF);
        g.emit(|a| a.int(i32::from(INTERRUPT)));
        g.halts_at(entry + 1);
        g.want("DR6.BS", |e| e.state.dr.dr6 & 1 << 14, 0);
        g.want("TF saved", |e| e.mem(TSS + tss::EFLAGS, 4) & 0x100, 0x100);
    }),
    case("tasks/tf-of-a-new-task-traps-after-its-first-instruction", "SDM 3A 17.3.1.4", |g| {
        let entry = g.aside(32, |a| {
            a.inc(eax)?;
            a.inc(eax)
        });
        two_tasks(g, entry);
        g.poke32(TSS2 + tss::EFLAGS, Rflags::TF.bits() as u32 | 2);
        far(g, 0xea);
        g.traps(Vector::DB, entry + 1);
        g.want_reg(RAX, 0xaaab);
    }),
    case("tasks/gate-in-the-idt-takes-the-error-code", "SDM 3A 6.12.2", |g| {
        let entry = g.aside(32, |a| {
            a.pop(ebx)?;
            a.hlt()
        });
        two_tasks(g, entry);
        g.set_gate(13, sel::TSS2, 0, TASK_GATE, 0);
        g.emit(|a| a.mov(eax, u32::from(sel::BEYOND)));
        let at = g.emit(|a| a.mov(ds, eax));
        g.halts_at(entry + 2);
        g.want_reg(RBX, sel::BEYOND.into());
        g.want_mem(TSS + tss::EIP, 4, at);
        g.want_flag(Rflags::NT, true);
    }),
    case("tasks/busy", "SDM 3A 7.2.2", |g| {
        g.protected();
        let at = g.raw(&[0xea, 0, 0, 0, 0, sel::TSS as u8, 0]);
        g.faults(Vector::GP, sel::TSS.into(), at);
    }),
    case("tasks/short-limit", "SDM 3A 6.15 #TS", |g| {
        two_tasks(g, CODE);
        g.set_gdt(sel::TSS2, crate::describe::descriptor(TSS2, 0x66, crate::describe::access::TSS));
        let at = far(g, 0xea);
        g.faults(Vector::TS, sel::TSS2.into(), at);
    }),
    case("tasks/not-present", "SDM 3A 6.15 #NP", |g| {
        two_tasks(g, CODE);
        let absent = crate::describe::access::TSS & !0x80;
        g.set_gdt(sel::TSS2, crate::describe::descriptor(TSS2, 0x67, absent));
        let at = far(g, 0xea);
        g.faults(Vector::NP, sel::TSS2.into(), at);
    }),
    case("tasks/debug-trap-flag", "SDM 3A 17.3.1.5", |g| {
        let entry = g.aside(32, |a| a.hlt());
        two_tasks(g, entry);
        g.poke32(TSS2 + tss::TRAP, 1);
        far(g, 0xea);
        g.traps(Vector::DB, entry);
        g.want("DR6.BT", |e| e.state.dr.dr6 & 0x8000, 0x8000);
    }),
    case("tasks/none-in-long-mode", "SDM 3A 7.7", |g| {
        g.long();
        g.write(DATA, &[0, 0, 0, 0, sel::TSS2 as u8, 0]);
        let at = g.emit(|a| a.jmp(fword_ptr(DATA)));
        g.faults(Vector::GP, sel::TSS2.into(), at);
    }),
    case("tasks/bad-inner-stack-is-an-invalid-tss", "SDM 3A 6.15 #TS", |g| {
        let entry = g.aside(32, |a| {
            a.pop(ebx)?;
            a.hlt()
        });
        two_tasks(g, entry);
        g.poke32(TSS + 8, sel::READ_ONLY.into()); // SS0
        g.set_gate(10, sel::TSS2, 0, TASK_GATE, 0);
        g.continue_as_user_32();
        g.emit(|a| a.int(i32::from(EXIT)));
        g.halts_at(entry + 2);
        g.want_reg(RBX, sel::READ_ONLY.into());
    }),
    case("tasks/user-cannot-jump-to-a-supervisor-task", "SDM 3A 7.3", |g| {
        two_tasks(g, CODE);
        g.continue_as_user_32();
        let at = far(g, 0xea);
        g.faults(Vector::GP, sel::TSS2.into(), at);
    }),
    case("tasks/iret-without-a-busy-link", "SDM 3A 7.4; 6.15 #TS", |g| {
        g.protected();
        g.flags(Rflags::NT);
        g.write(TSS + tss::LINK, &sel::TSS2.to_le_bytes());
        let at = g.emit(|a| a.iretd());
        g.faults(Vector::TS, sel::TSS2.into(), at);
    }),
];
