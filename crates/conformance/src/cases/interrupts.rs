//! Interrupts and exceptions: gates, stacks, error codes, double faults, IRET, shadows, NMI (SDM
//! vol. 3, chapter 6).

use super::case;
use crate::Case;
use crate::describe::{access, descriptor};
use crate::guest::{GATE_USER, Guest, INTERRUPT_GATE, TRAP_GATE};
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::Rflags;
use x86::state::gpr::{RAX, RCX, RSP};
use x86::state::{Seg, Segment};

/// The vector that cases define gates for.
const V: u8 = 0x30;
/// The error code that names V's gate.
const V_CODE: u32 = V as u32 * 8 + 2;

/// INT V.
fn int(g: &mut Guest) -> u64 {
    g.emit(|a| a.int(i32::from(V)))
}

/// A frame for IRETQ to user code: SS, RSP, RFLAGS, CS, RIP.
fn push_frame(g: &mut Guest, stack: u16, code: u16, rip: u64) {
    g.emit(|a| {
        a.push(i32::from(stack))?;
        a.push(USER_STACK as i32)?;
        a.push(2)?;
        a.push(i32::from(code))?;
        a.mov(rax, rip)?;
        a.push(rax)
    });
}

pub(super) const CASES: &[Case] = &[
    case("interrupts/user-int-needs-gate-privilege", "SDM 3A 6.12.1.1", |g| {
        g.user();
        let at = int(g);
        g.faults(Vector::GP, V_CODE, at);
    }),
    case("interrupts/user-int-through-a-user-gate", "SDM 3A 6.14.2", |g| {
        g.user();
        g.set_gate(V, sel::CODE64, Guest::stub(V), INTERRUPT_GATE | GATE_USER, 0);
        let at = int(g);
        g.delivers(V);
        g.want("pushed RIP", |e| e.pushed().rip, at + 2);
        g.want("pushed CS", |e| e.pushed().cs, sel::USER_CODE64.into());
        g.want("pushed RSP", |e| e.pushed().rsp, USER_STACK);
        g.want("pushed SS", |e| e.pushed().ss, sel::USER_DATA.into());
        g.want_reg(RSP, STACK0 - 40);
        g.want("SS", |e| e.state.seg[Seg::Ss as usize].selector.into(), 0);
        g.want("CPL", |e| e.state.cpl.into(), 0);
    }),
    case("interrupts/32-bit-privilege-change", "SDM 3A 6.12.1", |g| {
        g.protected_user();
        let at = g.emit(|a| a.int(i32::from(EXIT)));
        g.delivers(EXIT);
        g.want("pushed EIP", |e| e.pushed().rip, at + 2);
        g.want("pushed ESP", |e| e.pushed().rsp, USER_STACK);
        g.want("pushed SS", |e| e.pushed().ss, sel::USER_DATA.into());
        g.want_reg(RSP, STACK0 - 20);
        g.want("SS", |e| e.state.seg[Seg::Ss as usize].selector.into(), sel::DATA.into());
    }),
    case("interrupts/exceptions-ignore-gate-privilege", "SDM 3A 6.12.1.1", |g| {
        g.user();
        let at = g.emit(|a| a.ud2());
        g.traps(Vector::UD, at);
    }),
    case("interrupts/gate-not-present", "SDM 3A 6.13", |g| {
        g.long();
        g.set_gate(V, sel::CODE64, CODE, INTERRUPT_GATE & !0x80, 0);
        let at = int(g);
        g.faults(Vector::NP, V_CODE, at);
    }),
    case("interrupts/beyond-the-idt", "SDM 3A 6.10", |g| {
        g.long();
        g.state.idtr.limit = 16 * u16::from(V) - 1;
        let at = int(g);
        g.faults(Vector::GP, V_CODE, at);
    }),
    case("interrupts/gate-of-another-type", "SDM 3A 6.14.1", |g| {
        g.long();
        g.set_gate(V, sel::CODE64, CODE, 0x8c, 0);
        let at = int(g);
        g.faults(Vector::GP, V_CODE, at);
    }),
    case("interrupts/gate-to-null", "SDM 3A 6.15 #GP", |g| {
        g.long();
        g.set_gate(V, 0, CODE, INTERRUPT_GATE, 0);
        let at = int(g);
        g.faults(Vector::GP, 0, at);
    }),
    case("interrupts/gate-to-data", "SDM 3A 6.15 #GP", |g| {
        g.long();
        g.set_gate(V, sel::DATA, CODE, INTERRUPT_GATE, 0);
        let at = int(g);
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("interrupts/long-mode-handlers-are-64-bit", "SDM 3A 6.14.1", |g| {
        g.long();
        g.set_gate(V, sel::CODE32, CODE, INTERRUPT_GATE, 0);
        let at = int(g);
        g.faults(Vector::GP, sel::CODE32.into(), at);
    }),
    case("interrupts/interrupt-gate-masks", "SDM 3A 6.12.1.2", |g| {
        g.long();
        g.flags(Rflags::IF | Rflags::NT | Rflags::DF);
        int(g);
        g.delivers(V);
        g.want_pushed(Rflags::IF, true);
        g.want_pushed(Rflags::NT, true);
        g.want_flag(Rflags::IF, false);
        g.want_flag(Rflags::NT, false);
        g.want_flag(Rflags::DF, true);
    }),
    case("interrupts/trap-gate-does-not-mask", "SDM 3A 6.12.1.2", |g| {
        g.long();
        g.flags(Rflags::IF);
        let handler = g.aside(64, |a| {
            a.pushfq()?;
            a.pop(rcx)?;
            a.cli()?;
            a.hlt()
        });
        g.set_gate(V, sel::CODE64, handler, TRAP_GATE, 0);
        int(g);
        g.halts_at(handler + 4);
        g.want("IF in the handler", |e| e.reg(RCX) & 0x200, 0x200);
    }),
    case("interrupts/64-bit-stack-is-aligned", "SDM 3A 6.14.2", |g| {
        g.long();
        g.emit(|a| a.sub(rsp, 3));
        int(g);
        g.delivers(V);
        g.want("pushed RSP", |e| e.pushed().rsp, STACK - 3);
        g.want_reg(RSP, STACK - 16 - 40);
    }),
    case("interrupts/interrupt-stack-table", "SDM 3A 6.14.5", |g| {
        g.long();
        g.set_gate(V, sel::CODE64, Guest::stub(V), INTERRUPT_GATE, 1);
        int(g);
        g.delivers(V);
        g.want_reg(RSP, IST1 - 40);
        g.want("pushed RSP", |e| e.pushed().rsp, STACK);
    }),
    case("interrupts/int3-is-a-trap", "SDM 3A 6.15 #BP", |g| {
        g.long();
        let at = g.raw(&[0xcc]);
        g.traps(Vector::BP, at + 1);
    }),
    case("interrupts/user-int3-needs-gate-privilege", "SDM 3A 6.12.1.1", |g| {
        g.user();
        let at = g.raw(&[0xcc]);
        g.faults(Vector::GP, 3 * 8 + 2, at);
    }),
    case("interrupts/into", "SDM 3A 6.15 #OF", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(al, 0x7f)?;
            a.inc(al)
        });
        let at = g.raw(&[0xce]);
        g.traps(Vector::OF, at + 1);
    }),
    case("interrupts/bound", "SDM 3A 6.15 #BR", |g| {
        g.protected();
        g.poke32(DATA, 10);
        g.poke32(DATA + 4, 20);
        g.emit(|a| a.mov(eax, 20));
        g.emit(|a| a.bound(eax, qword_ptr(DATA)));
        g.emit(|a| a.inc(eax));
        let at = g.emit(|a| a.bound(eax, qword_ptr(DATA)));
        g.traps(Vector::BR, at);
    }),
    case("interrupts/divide-by-zero", "SDM 3A 6.15 #DE", |g| {
        g.long();
        g.emit(|a| a.xor(ecx, ecx));
        let at = g.emit(|a| a.div(ecx));
        g.traps(Vector::DE, at);
        g.want_reg(RAX, 0);
    }),
    case("interrupts/divide-overflow", "SDM 2A IDIV", |g| {
        g.long();
        g.emit(|a| {
            a.mov(eax, 0x8000_0000u32)?;
            a.cdq()?;
            a.mov(ecx, -1)
        });
        let at = g.emit(|a| a.idiv(ecx));
        g.traps(Vector::DE, at);
    }),
    case("interrupts/double-fault", "SDM 3A 6.15 #DF", |g| {
        g.long();
        g.set_gate(13, sel::CODE64, CODE, INTERRUPT_GATE & !0x80, 0);
        g.emit(|a| a.mov(eax, u32::from(sel::BEYOND)));
        let at = g.emit(|a| a.mov(ds, eax));
        g.faults(Vector::DF, 0, at);
    }),
    case("interrupts/triple-fault", "SDM 3A 6.15 #DF", |g| {
        g.long();
        g.state.idtr.limit = 0;
        g.emit(|a| a.ud2());
        g.shuts_down();
    }),
    case("interrupts/page-fault-twice-is-a-double-fault", "SDM 3A table 6-5", |g| {
        g.long();
        g.poke(TSS + 0x24, PLAY); // IST1: not mapped
        g.set_gate(14, sel::CODE64, Guest::stub(14), INTERRUPT_GATE, 1);
        let at = g.emit(|a| a.mov(eax, dword_ptr(PLAY + 0x5000)));
        g.faults(Vector::DF, 0, at);
    }),
    case("interrupts/page-fault-during-gp-is-served", "SDM 3A table 6-5", |g| {
        g.long();
        g.poke(TSS + 0x24, PLAY);
        g.set_gate(13, sel::CODE64, Guest::stub(13), INTERRUPT_GATE, 1);
        g.emit(|a| a.mov(eax, u32::from(sel::BEYOND)));
        let at = g.emit(|a| a.mov(ds, eax));
        g.faults(Vector::PF, 2, at);
        g.want("page of CR2", |e| e.state.cr2 & !0xfff, PLAY - 0x1000);
    }),
    case("interrupts/benign-then-contributory-is-served", "SDM 3A table 6-5", |g| {
        g.long();
        g.set_gate(6, sel::CODE64, CODE, INTERRUPT_GATE & !0x80, 0);
        let at = g.emit(|a| a.ud2());
        g.faults(Vector::NP, 6 * 8 + 2 + 1, at);
    }),
    case("interrupts/user-stack-fault-on-entry", "SDM 3A 6.15 #PF", |g| {
        g.user();
        g.poke(TSS + 4, PLAY); // RSP0: not mapped
        g.set_gate(14, sel::CODE64, Guest::stub(14), INTERRUPT_GATE, 1);
        let at = g.emit(|a| a.int(i32::from(EXIT)));
        g.page_faults_on(PLAY - 0x1000, 2, at);
    }),
    case("interrupts/iretq-to-user", "SDM 2A IRET", |g| {
        g.long();
        g.write(USER_CODE, &[0xcd, EXIT]);
        push_frame(g, sel::USER_DATA, sel::USER_CODE64, USER_CODE);
        g.emit(|a| a.iretq());
        g.delivers(EXIT);
        g.want("pushed CS", |e| e.pushed().cs, sel::USER_CODE64.into());
        g.want("pushed RSP", |e| e.pushed().rsp, USER_STACK);
    }),
    case("interrupts/iretq-to-compatibility-mode", "SDM 2A IRET", |g| {
        g.long();
        g.write(USER_CODE, &[0xb8, 1, 0, 0, 0, 0x40, 0xcd, EXIT]); // MOV EAX, 1; INC EAX; INT 80H
        push_frame(g, sel::USER_DATA, sel::USER_CODE32, USER_CODE);
        g.emit(|a| a.iretq());
        g.delivers(EXIT);
        g.want_reg(RAX, 2);
    }),
    case("interrupts/iretq-pops-the-stack-pointer-at-the-same-level", "SDM 3A 6.14.3", |g| {
        g.long();
        g.emit(|a| {
            a.push(0)?;
            a.push(0x2000)?;
            a.push(2)?;
            a.push(i32::from(sel::CODE64))?;
            a.push((CODE + 0x40) as i32)?;
            a.iretq()
        });
        g.seek(CODE + 0x40, 64);
        g.emit(|a| a.nop());
        g.want_reg(RSP, 0x2000);
        g.want("SS", |e| e.state.seg[Seg::Ss as usize].selector.into(), 0);
    }),
    case("interrupts/iretq-with-nt", "SDM 2A IRET", |g| {
        g.long();
        g.flags(Rflags::NT);
        let at = g.emit(|a| a.iretq());
        g.faults(Vector::GP, 0, at);
    }),
    case("interrupts/iretq-to-a-non-canonical-address", "SDM 2A IRET", |g| {
        g.long();
        push_frame(g, sel::USER_DATA, sel::USER_CODE64, 0x0000_8000_0000_0000);
        let at = g.emit(|a| a.iretq());
        g.faults(Vector::GP, 0, at);
        g.want("pushed CS", |e| e.pushed().cs, sel::CODE64.into());
    }),
    case("interrupts/iretq-inwards", "SDM 2A IRET", |g| {
        g.user();
        push_frame(g, sel::DATA, sel::CODE64, CODE);
        let at = g.emit(|a| a.iretq());
        g.faults(Vector::GP, sel::CODE64.into(), at);
    }),
    case("interrupts/iretq-with-a-null-user-stack", "SDM 2A IRET", |g| {
        g.long();
        push_frame(g, 3, sel::USER_CODE32, USER_CODE);
        let at = g.emit(|a| a.iretq());
        g.faults(Vector::GP, 0, at);
    }),
    case("interrupts/user-iret-keeps-if-and-iopl", "SDM 2A IRET", |g| {
        g.user();
        g.emit(|a| {
            a.push(i32::from(sel::USER_DATA))?;
            a.push(USER_STACK as i32)?;
            a.push(0x3202)?; // IOPL 3, IF
            a.push(i32::from(sel::USER_CODE64))?;
            a.push((USER_CODE + 0x40) as i32)?;
            a.iretq()
        });
        g.seek(USER_CODE + 0x40, 64);
        g.emit(|a| a.nop());
        g.want_pushed(Rflags::IF, false);
        g.want_pushed(Rflags::IOPL, false);
    }),
    case("interrupts/iretd-at-the-same-level-leaves-the-stack", "SDM 2A IRET", |g| {
        g.protected();
        g.emit(|a| {
            a.push(0x0202)?;
            a.push(i32::from(sel::CODE32))?;
            a.push((CODE + 0x40) as i32)?;
            a.iretd()
        });
        g.seek(CODE + 0x40, 32);
        g.emit(|a| a.cli());
        g.want_reg(RSP, STACK);
    }),
    case("interrupts/iretd-to-virtual-8086-mode", "SDM 3B 20.2.5", |g| {
        g.protected();
        g.write(USER_CODE, &[0xf4]); // HLT: #GP at CPL 3
        g.emit(|a| {
            (0..4).try_for_each(|_| a.push(0x3000))?; // GS, FS, DS, ES
            a.push(0x1000)?; // SS
            a.push(0x800)?; // ESP
            a.push(0x2_0002)?; // EFLAGS.VM
            a.push(0x1000)?; // CS: 10000H
            a.push(0)?;
            a.iretd()
        });
        g.faults(Vector::GP, 0, 0);
        g.want("pushed CS", |e| e.pushed().cs, 0x1000);
        g.want_pushed(Rflags::VM, true);
        g.want("pushed ES", |e| e.mem(e.reg(RSP) + 24, 2), 0x3000);
        g.want("pushed GS", |e| e.mem(e.reg(RSP) + 36, 2), 0x3000);
        g.want("DS", |e| e.state.seg[Seg::Ds as usize].selector.into(), 0);
        g.want_flag(Rflags::VM, false);
    }),
    case("interrupts/virtual-8086-int-needs-iopl-3", "SDM 3B 20.2.7", |g| {
        virtual_8086(g);
        let at = g.raw(&[0xcd, EXIT]);
        g.faults(Vector::GP, 0, at - USER_CODE);
    }),
    case("interrupts/virtual-8086-int-with-iopl-3", "SDM 3B 20.3.1", |g| {
        virtual_8086(g);
        g.flags(Rflags::VM | Rflags::IOPL);
        g.raw(&[0xcd, EXIT]);
        g.delivers(EXIT);
        g.want_pushed(Rflags::VM, true);
    }),
    case("interrupts/external", "SDM 3A 6.8.1", |g| {
        g.long();
        g.flags(Rflags::IF);
        g.interrupt_at_start = true;
        g.emit(|a| a.nop());
        g.delivers(INTERRUPT);
        g.want("pushed RIP", |e| e.pushed().rip, CODE);
    }),
    case("interrupts/external-sets-ext-in-error-codes", "SDM 3A 6.13", |g| {
        g.long();
        g.flags(Rflags::IF);
        g.interrupt_at_start = true;
        g.set_gate(INTERRUPT, sel::CODE64, CODE, INTERRUPT_GATE & !0x80, 0);
        g.emit(|a| a.nop());
        g.faults(Vector::NP, u32::from(INTERRUPT) * 8 + 3, CODE);
    }),
    case("interrupts/if-holds-external-interrupts-back", "SDM 3A 6.8.1", |g| {
        g.long();
        g.interrupt_at_start = true;
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.mov(ebx, 2)
        });
        g.want_reg(RAX, 1);
    }),
    case("interrupts/sti-delays-by-one-instruction", "SDM 2B STI", |g| {
        g.long();
        g.interrupt_at_start = true;
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.sti()?;
            a.inc(eax)
        });
        let at = g.raw(&[0xeb, 0xfe]); // JMP to itself
        g.delivers(INTERRUPT);
        g.want("pushed RIP", |e| e.pushed().rip, at);
        g.want_reg(RAX, 1);
    }),
    case("interrupts/sti-cli-lets-nothing-in", "SDM 2B STI", |g| {
        g.long();
        g.interrupt_at_start = true;
        g.emit(|a| {
            a.sti()?;
            a.cli()?;
            a.mov(eax, 7)
        });
        g.want_reg(RAX, 7);
    }),
    case("interrupts/popf-delays-nothing", "SDM 2B POPF", |g| {
        g.long();
        g.interrupt_at_start = true;
        g.emit(|a| {
            a.push(0x202)?;
            a.popfq()
        });
        let at = g.emit(|a| a.inc(eax));
        g.raw(&[0xeb, 0xfe]);
        g.delivers(INTERRUPT);
        g.want("pushed RIP", |e| e.pushed().rip, at);
    }),
    case("interrupts/sti-hlt-wakes-after-hlt", "SDM 2A HLT", |g| {
        g.long();
        g.interrupt_at_start = true;
        g.emit(|a| a.sti());
        let at = g.emit(|a| a.hlt());
        g.delivers(INTERRUPT);
        g.want("pushed RIP", |e| e.pushed().rip, at + 1);
    }),
    case("interrupts/nmi-ignores-if", "SDM 3A 6.7", |g| {
        g.long();
        g.nmi_at_start = true;
        g.emit(|a| a.nop());
        g.traps(Vector::NMI, CODE);
    }),
    case("interrupts/nmi-before-interrupt", "SDM 3A table 6-2", |g| {
        g.long();
        g.flags(Rflags::IF);
        g.nmi_at_start = true;
        g.interrupt_at_start = true;
        g.emit(|a| a.nop());
        g.traps(Vector::NMI, CODE);
    }),
    case("interrupts/nmi-blocks-nmi-until-iret", "SDM 3A 6.7.1", |g| {
        g.long();
        g.nmi_at_start = true;
        g.handler(Vector::NMI, |a| {
            let mut done = a.create_label();
            a.inc(ecx)?;
            a.mov(eax, ecx)?;
            a.out(i32::from(REPORT), al)?;
            a.cmp(ecx, 1)?;
            a.jne(done)?;
            a.out(i32::from(RAISE_NMI), al)?;
            a.nop()?;
            a.mov(al, 0x10)?;
            a.out(i32::from(REPORT), al)?;
            a.set_label(&mut done)?;
            a.iretq()
        });
        g.emit(|a| a.nop());
        g.emit(|a| a.nop());
        g.want_reports(&[1, 0x10, 2]);
    }),
    case("interrupts/int-2-does-not-block-nmi", "SDM 3A 6.7.1", |g| {
        g.long();
        g.handler(Vector::NMI, |a| {
            let (mut done, mut on) = (a.create_label(), a.create_label());
            a.inc(ecx)?;
            a.cmp(ecx, 1)?;
            a.jne(done)?;
            a.out(i32::from(RAISE_NMI), al)?;
            a.jmp(on)?; // an engine may look only where blocks end
            a.set_label(&mut on)?;
            a.mov(al, 0x10)?;
            a.out(i32::from(REPORT), al)?;
            a.iretq()?;
            a.set_label(&mut done)?;
            a.mov(al, 0x20)?;
            a.out(i32::from(REPORT), al)?;
            a.iretq()
        });
        g.emit(|a| a.int(2));
        g.want_reports(&[0x20, 0x10]);
    }),
    case("interrupts/mov-ss-holds-external-interrupts-back", "SDM 3A 6.8.3", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ebx, u32::from(sel::DATA))?;
            a.push(0x202)?;
            a.popfq()?;
            a.mov(ss, ebx)?;
            a.cli()?; // in the shadow: nothing can come between
            a.mov(eax, 9)
        });
        g.want_reg(RAX, 9);
    }),
    case("interrupts/conforming-handler-keeps-cpl", "SDM 3A 6.12.1.1", |g| {
        g.user();
        g.set_gdt(sel::SPARE, descriptor(0, 0xf_ffff, access::CODE64 | 4));
        g.set_gate(V, sel::SPARE, USER_CODE + 0x100, INTERRUPT_GATE | GATE_USER, 0);
        g.write(USER_CODE + 0x100, &[0xcd, EXIT]);
        int(g);
        g.delivers(EXIT);
        g.want("pushed CS", |e| e.pushed().cs, u64::from(sel::SPARE) | 3);
        g.want("pushed RSP", |e| e.pushed().rsp, USER_STACK - 40);
    }),
    case("interrupts/ist-beyond-the-tss", "SDM 3A 6.15 #TS", |g| {
        g.long();
        g.state.tr.limit = 0x23;
        g.set_gate(V, sel::CODE64, Guest::stub(V), INTERRUPT_GATE, 1);
        let at = int(g);
        g.faults(Vector::TS, sel::TSS.into(), at);
    }),
    case("interrupts/non-canonical-ist", "SDM 3A 6.14.5; 6.15 #SS", |g| {
        g.long();
        g.poke(TSS + 0x24, 0x0000_9000_0000_0000);
        g.set_gate(V, sel::CODE64, Guest::stub(V), INTERRUPT_GATE, 1);
        let at = int(g);
        g.faults(Vector::SS, 0, at);
    }),
    case("interrupts/popf-clears-rf", "SDM 2B POPF", |g| {
        g.long();
        g.emit(|a| {
            a.push((Rflags::RF | Rflags::CF).bits() as i32 | 2)?;
            a.popfq()
        });
        g.want_flag(Rflags::RF, false);
        g.want_flag(Rflags::CF, true);
    }),
    case("interrupts/virtual-8086-sti-needs-iopl-3", "SDM 3B 20.2.7", |g| {
        virtual_8086(g);
        let at = g.raw(&[0xfb]);
        g.faults(Vector::GP, 0, at - USER_CODE);
    }),
    case("interrupts/virtual-8086-pushf-needs-iopl-3", "SDM 3B 20.2.7", |g| {
        virtual_8086(g);
        let at = g.raw(&[0x9c]);
        g.faults(Vector::GP, 0, at - USER_CODE);
    }),
    case("interrupts/virtual-8086-ports-obey-the-bitmap-alone", "SDM 1 18.5.2", |g| {
        virtual_8086(g);
        g.flags(Rflags::VM | Rflags::IOPL);
        let at = g.raw(&[0xe6, REPORT as u8]);
        g.faults(Vector::GP, 0, at - USER_CODE);
        g.want_reports(&[]);
    }),
    case("interrupts/virtual-8086-loads-segments-as-in-real-mode", "SDM 3B 20.2.1", |g| {
        virtual_8086(g);
        g.raw(&[0xb8, 0x00, 0x18, 0x8e, 0xd8]); // MOV AX, 1800H; MOV DS, AX
        g.raw(&[0xc6, 0x06, 0x10, 0x00, 0x5a]); // MOV byte [10H], 5AH
        g.raw(&[0xf4]);
        g.delivers(Vector::GP.0);
        g.want_mem(USER_DATA + 0x10, 1, 0x5a);
    }),
    case("interrupts/pending-x87-error-waits-for-no-control-instruction", "SDM 1 8.6", |g| {
        g.long();
        g.write(DATA, &(0x037fu16 & !4).to_le_bytes());
        g.emit(|a| {
            a.fldcw(word_ptr(DATA))?;
            a.fld1()?;
            a.fldz()?;
            a.fdivp(st1, st0)?;
            a.fnstsw(word_ptr(DATA + 8))?;
            a.fnclex()
        });
        g.raw(&[0x9b]);
        g.want("FSW.ES and ZE", |e| e.mem(DATA + 8, 2) & 0x84, 0x84);
    }),
];

/// Virtual-8086 code at [`USER_CODE`], IOPL 0, all segments based there.
fn virtual_8086(g: &mut Guest) {
    g.protected();
    let base = USER_CODE;
    let segment = Segment { base, limit: 0xffff, selector: (base >> 4) as u16, access: 0x00f3 };
    g.state.seg = [segment; 6];
    g.state.cpl = 3;
    g.state.rip = 0;
    g.state.gpr[RSP] = 0x800;
    g.flags(Rflags::VM);
    g.seek(USER_CODE, 16);
}
