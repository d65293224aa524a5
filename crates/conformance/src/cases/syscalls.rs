//! SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2; vol. 3, 5.8.7 and 5.8.8).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Efer, Rflags};
use x86::state::Seg;
use x86::state::gpr::{RCX, RSP};

/// IA32_STAR: user selectors from 1BH, supervisor selectors from 8.
const STAR: u64 = 0x001b_0008 << 32;

/// A user world whose system-call entry halts; the entry's address.
fn with_syscall(g: &mut Guest) -> u64 {
    g.user();
    let entry = g.aside(64, |a| a.hlt());
    g.state.msr.star = STAR;
    g.state.msr.lstar = entry;
    g.state.msr.fmask = Rflags::DF.bits();
    entry
}

/// Sets the SYSENTER registers; the entry, which halts.
fn sysenter(g: &mut Guest, code: u16, bits: u32) -> u64 {
    let entry = g.aside(bits, |a| a.hlt());
    g.state.msr.sysenter_cs = code.into();
    g.state.msr.sysenter_eip = entry;
    g.state.msr.sysenter_esp = IST1;
    entry
}

/// Expects CS and SS selectors at the end.
fn want_selectors(g: &mut Guest, code: u16, stack: u16) {
    g.want("CS", |e| e.state.seg[Seg::Cs as usize].selector.into(), code.into());
    g.want("SS", |e| e.state.seg[Seg::Ss as usize].selector.into(), stack.into());
}

/// Expects to arrive in user code and to leave it with these selectors pushed.
fn want_user(g: &mut Guest, code: u16, stack: u16) {
    g.delivers(EXIT);
    g.want("pushed CS", |e| e.pushed().cs, code.into());
    g.want("pushed SS", |e| e.pushed().ss, stack.into());
    g.want("pushed RIP", |e| e.pushed().rip, USER_CODE + 2);
}

pub(super) const CASES: &[Case] = &[
    case("syscalls/syscall", "SDM 2B SYSCALL", |g| {
        let entry = with_syscall(g);
        g.flags(Rflags::DF | Rflags::CF);
        let at = g.emit(|a| a.syscall());
        g.halts_at(entry + 1);
        g.want_reg(RCX, at + 2);
        g.want_reg(11, (Rflags::DF | Rflags::CF).bits() | 2);
        g.want_reg(RSP, USER_STACK);
        g.want_flag(Rflags::DF, false);
        g.want_flag(Rflags::CF, true);
        g.want("CPL", |e| e.state.cpl.into(), 0);
        want_selectors(g, sel::CODE64, sel::DATA);
    }),
    case("syscalls/syscall-disabled", "SDM 2B SYSCALL", |g| {
        with_syscall(g);
        g.state.paging.efer &= !Efer::SCE;
        let at = g.emit(|a| a.syscall());
        g.traps(Vector::UD, at);
    }),
    case("syscalls/syscall-in-compatibility-mode", "SDM 2B SYSCALL", |g| {
        g.compat();
        g.state.msr.star = STAR;
        let at = g.raw(&[0x0f, 0x05]);
        g.traps(Vector::UD, at);
    }),
    case("syscalls/sysret-64", "SDM 2B SYSRET", |g| {
        g.long();
        g.state.msr.star = STAR;
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.mov(ecx, USER_CODE as u32)?;
            a.mov(r11d, 0x0303_0202 | Rflags::RF.bits() as u32)?;
            a.sysretq()
        });
        want_user(g, sel::USER_CODE64, sel::USER_DATA);
        g.want_pushed(Rflags::IF, true);
        g.want_pushed(Rflags::RF, false);
        g.want_pushed(Rflags::VM, false);
    }),
    case("syscalls/sysret-32", "SDM 2B SYSRET", |g| {
        g.long();
        g.state.msr.star = STAR;
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.mov(ecx, USER_CODE as u32)?;
            a.mov(r11d, 2)?;
            a.sysret()
        });
        want_user(g, sel::USER_CODE32, sel::USER_DATA);
    }),
    case("syscalls/sysret-to-a-non-canonical-address", "SDM 2B SYSRET", |g| {
        g.long();
        g.state.msr.star = STAR;
        g.emit(|a| a.mov(rcx, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.sysretq());
        g.faults(Vector::GP, 0, at);
        g.want("pushed CS", |e| e.pushed().cs, sel::CODE64.into());
    }),
    case("syscalls/sysret-in-user-code", "SDM 2B SYSRET", |g| {
        with_syscall(g);
        let at = g.emit(|a| a.sysretq());
        g.faults(Vector::GP, 0, at);
    }),
    case("syscalls/sysenter-64", "SDM 2B SYSENTER", |g| {
        g.user();
        let entry = sysenter(g, sel::CODE64, 64);
        g.flags(Rflags::IF);
        g.emit(|a| a.sysenter());
        g.halts_at(entry + 1);
        g.want_reg(RSP, IST1);
        g.want_flag(Rflags::IF, false);
        g.want("CPL", |e| e.state.cpl.into(), 0);
        want_selectors(g, sel::CODE64, sel::DATA);
    }),
    case("syscalls/sysenter-from-compatibility-mode", "SDM 2B SYSENTER", |g| {
        g.compat();
        let entry = sysenter(g, sel::CODE64, 64);
        g.emit(|a| a.sysenter());
        g.halts_at(entry + 1);
        want_selectors(g, sel::CODE64, sel::DATA);
    }),
    case("syscalls/sysenter-32", "SDM 2B SYSENTER", |g| {
        g.protected_user();
        let entry = sysenter(g, sel::CODE32, 32);
        g.emit(|a| a.sysenter());
        g.halts_at(entry + 1);
        g.want_reg(RSP, IST1);
        want_selectors(g, sel::CODE32, sel::CODE32 + 8);
    }),
    case("syscalls/sysenter-without-a-segment", "SDM 2B SYSENTER", |g| {
        g.user();
        sysenter(g, 0, 64);
        let at = g.emit(|a| a.sysenter());
        g.faults(Vector::GP, 0, at);
    }),
    case("syscalls/sysenter-in-real-mode", "SDM 2B SYSENTER", |g| {
        sysenter(g, sel::CODE32, 16);
        let at = g.emit(|a| a.sysenter());
        g.traps(Vector::GP, at);
    }),
    case("syscalls/sysexit-64", "SDM 2B SYSEXIT", |g| {
        g.long();
        g.state.msr.sysenter_cs = sel::CODE64.into();
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.mov(edx, USER_CODE as u32)?;
            a.mov(ecx, USER_STACK as u32)?;
            a.sysexitq()
        });
        want_user(g, (sel::CODE64 + 32) | 3, (sel::CODE64 + 40) | 3);
        g.want("pushed RSP", |e| e.pushed().rsp, USER_STACK);
    }),
    case("syscalls/sysexit-32", "SDM 2B SYSEXIT", |g| {
        g.long();
        g.state.msr.sysenter_cs = sel::CODE64.into();
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.mov(edx, USER_CODE as u32)?;
            a.mov(ecx, USER_STACK as u32)?;
            a.sysexit()
        });
        want_user(g, (sel::CODE64 + 16) | 3, (sel::CODE64 + 24) | 3);
    }),
    case("syscalls/sysexit-to-a-non-canonical-address", "SDM 2B SYSEXIT", |g| {
        g.long();
        g.state.msr.sysenter_cs = sel::CODE64.into();
        g.emit(|a| a.mov(rdx, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.sysexitq());
        g.faults(Vector::GP, 0, at);
    }),
];
