//! Debug exceptions (SDM vol. 3, chapter 17): single step, breakpoints, RF, the registers
//! themselves.

use super::case;
use crate::Case;
use crate::guest::{Guest, INTERRUPT_GATE};
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr4, Rflags};
use x86::state::gpr::{RAX, RBX, RCX};

/// DR6: single step, register access, breakpoint n.
const BS: u64 = 1 << 14;
const BD: u64 = 1 << 13;
/// DR7 with nothing enabled.
const DR7: u64 = 0x400;
const TF: u64 = Rflags::TF.bits();

/// Arms breakpoint `n`: `kind` is R/W (0 execute, 1 write, 2 I/O, 3 access), `len` is LEN (0, 1,
/// 3).
fn arm(g: &mut Guest, n: u64, address: u64, kind: u64, len: u64) {
    g.state.dr.address[n as usize] = address;
    g.state.dr.dr7 |= DR7 | 1 << (2 * n) | kind << (16 + 4 * n) | len << (18 + 4 * n);
}

/// Expects #DB with pushed RIP `at` and exactly these causes in DR6.
fn want_debug(g: &mut Guest, at: u64, causes: u64) {
    g.traps(Vector::DB, at);
    g.want("DR6", |e| e.state.dr.dr6 & 0xe00f, causes);
}

/// Sets TF by POPF.
fn step(g: &mut Guest) {
    g.emit(|a| {
        a.push(TF as i32 | 2)?;
        a.popfq()
    });
}

/// User code whose only instruction is a SYSCALL under TF; the entry, which halts, with `mask` in
/// IA32_FMASK.
fn steps_into_syscall(g: &mut Guest, mask: Rflags) -> u64 {
    g.user();
    let entry = g.aside(64, |a| a.hlt());
    g.state.msr.star = 0x001b_0008 << 32;
    g.state.msr.lstar = entry;
    g.state.msr.fmask = mask.bits();
    g.flags(Rflags::TF);
    // The entry runs on the user's stack: the stub's is its own.
    g.set_gate(Vector::DB.0, sel::CODE64, Guest::stub(1), INTERRUPT_GATE, 1);
    g.emit(|a| a.syscall());
    entry
}

pub(super) const CASES: &[Case] = &[
    case("debug/single-step", "SDM 3A 17.3.1.4", |g| {
        g.long();
        g.flags(Rflags::TF);
        g.emit(|a| a.mov(eax, 1));
        let at = g.emit(|a| a.mov(eax, 2));
        want_debug(g, at, BS);
        g.want_reg(RAX, 1);
        g.want_pushed(Rflags::TF, true);
        g.want_flag(Rflags::TF, false);
    }),
    case("debug/popf-traps-after-the-next-instruction", "SDM 3A 17.3.1.4", |g| {
        g.long();
        step(g);
        g.emit(|a| a.mov(eax, 1));
        let at = g.emit(|a| a.mov(eax, 2));
        want_debug(g, at, BS);
    }),
    case("debug/clearing-tf-still-traps", "SDM 3A 17.3.1.4", |g| {
        g.long();
        g.emit(|a| a.push(2));
        step(g);
        g.emit(|a| a.popfq());
        let at = g.emit(|a| a.nop());
        want_debug(g, at, BS);
        g.want_pushed(Rflags::TF, false);
    }),
    case("debug/step-through-rep", "SDM 3A 17.3.1.4", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ecx, 3)?;
            a.mov(esi, DATA as u32)?;
            a.mov(edi, DATA as u32 + 0x100)
        });
        step(g);
        let at = g.emit(|a| a.rep().movsb());
        want_debug(g, at, BS);
        // 17.3.1.1 would have RF pushed here; processors at hand push it clear, so it is not asked
        // for.
        g.want_reg(RCX, 2);
    }),
    case("debug/mov-ss-delays-the-step", "SDM 3A 6.8.3", |g| {
        g.long();
        g.emit(|a| a.mov(ebx, u32::from(sel::DATA)));
        step(g);
        g.emit(|a| {
            a.mov(ss, ebx)?;
            a.mov(eax, 1)
        });
        let at = g.emit(|a| a.mov(eax, 2));
        want_debug(g, at, BS);
        g.want_reg(RAX, 1);
    }),
    case("debug/sti-does-not-delay-the-step", "SDM 2B STI", |g| {
        g.long();
        step(g);
        g.emit(|a| a.sti());
        let at = g.emit(|a| a.mov(eax, 2));
        want_debug(g, at, BS);
    }),
    case("debug/int-n-clears-tf", "SDM 3A 17.3.1.4", |g| {
        g.long();
        step(g);
        g.emit(|a| a.int(i32::from(EXIT)));
        g.delivers(EXIT);
        g.want_pushed(Rflags::TF, true);
        g.want_flag(Rflags::TF, false);
        g.want("DR6", |e| e.state.dr.dr6 & BS, 0);
    }),
    case("debug/into-without-overflow-is-stepped", "SDM 3A 17.3.1.4", |g| {
        g.protected();
        g.flags(Rflags::TF);
        g.raw(&[0xce]);
        let at = g.emit(|a| a.nop());
        want_debug(g, at, BS);
    }),
    case("debug/syscall-goes-by-the-tf-that-its-mask-leaves", "APM 2 6.1.1", |g| {
        let entry = steps_into_syscall(g, Rflags::TF);
        g.halts_at(entry + 1);
        g.want("DR6", |e| e.state.dr.dr6 & BS, 0);
        g.want_reg(11, TF | 2);
    }),
    case("debug/syscall-with-a-mask-without-tf", "APM 2 6.1.1", |g| {
        let entry = steps_into_syscall(g, Rflags::DF);
        want_debug(g, entry, BS);
        g.want_pushed(Rflags::TF, true);
    }),
    case("debug/syscall-tells-what-mov-ss-held-back", "SDM 3A 6.8.3", |g| {
        let entry = steps_into_syscall(g, Rflags::TF);
        g.flags(Rflags::empty());
        g.write(USER_DATA, &sel::USER_DATA.to_le_bytes());
        arm(g, 1, USER_DATA, 3, 1);
        g.seek(USER_CODE, 64);
        g.emit(|a| {
            a.mov(ss, word_ptr(USER_DATA))?;
            a.syscall()
        });
        want_debug(g, entry, 2);
    }),
    case("debug/sysret-goes-by-the-tf-that-it-loads", "APM 2 6.1.1", |g| {
        g.long();
        g.state.msr.star = 0x001b_0008 << 32;
        g.write(USER_CODE, &[0xff, 0xc0]); // INC EAX
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.mov(ecx, USER_CODE as u32)?;
            a.mov(r11d, TF as u32 | 2)?;
            a.sysretq()
        });
        want_debug(g, USER_CODE, BS);
        g.want_reg(RAX, 0);
        g.want_pushed(Rflags::TF, true);
    }),
    case("debug/sysenter-keeps-tf", "SDM 2B SYSENTER", |g| {
        g.user();
        let entry = g.aside(64, |a| a.hlt());
        g.state.msr.sysenter_cs = sel::CODE64.into();
        g.state.msr.sysenter_eip = entry;
        g.state.msr.sysenter_esp = IST1;
        g.flags(Rflags::TF);
        g.emit(|a| a.sysenter());
        want_debug(g, entry, BS);
    }),
    case("debug/a-fault-comes-before-the-step", "SDM 3A table 6-2", |g| {
        g.long();
        step(g);
        let at = g.emit(|a| a.ud2());
        g.traps(Vector::UD, at);
        g.want_pushed(Rflags::TF, true);
    }),
    case("debug/step-into-the-branch-target", "SDM 3A 17.3.1.4", |g| {
        g.long();
        step(g);
        g.emit(|a| a.jmp(CODE + 0x80));
        g.seek(CODE + 0x80, 64);
        g.emit(|a| a.nop());
        want_debug(g, CODE + 0x80, BS);
    }),
    case("debug/iret-with-tf", "SDM 3A 17.3.1.4", |g| {
        g.long();
        g.emit(|a| {
            a.push(i32::from(sel::DATA))?;
            a.push(STACK as i32)?;
            a.push(TF as i32 | 2)?;
            a.push(i32::from(sel::CODE64))?;
            a.push((CODE + 0x80) as i32)?;
            a.iretq()
        });
        g.seek(CODE + 0x80, 64);
        g.emit(|a| a.mov(eax, 1));
        let at = g.emit(|a| a.mov(eax, 2));
        want_debug(g, at, BS);
        g.want_reg(RAX, 1);
    }),
    case("debug/execution-breakpoint", "SDM 3A 17.3.1.1", |g| {
        g.long();
        g.emit(|a| a.mov(eax, 1));
        let at = g.emit(|a| a.mov(eax, 2));
        arm(g, 0, at, 0, 0);
        want_debug(g, at, 1);
        g.want_reg(RAX, 1);
        g.want_pushed(Rflags::RF, false); // the one fault that leaves this to its handler
    }),
    case("debug/rf-resumes", "SDM 3A 17.3.1.1", |g| {
        g.long();
        g.handler(Vector::DB, |a| {
            a.inc(ecx)?;
            a.or(dword_ptr(rsp + 16), Rflags::RF.bits() as i32)?;
            a.iretq()
        });
        g.emit(|a| a.nop());
        let at = g.emit(|a| a.mov(eax, 2));
        arm(g, 3, at, 0, 0);
        g.want_reg(RCX, 1);
        g.want_reg(RAX, 2);
        g.want_flag(Rflags::RF, false);
    }),
    case("debug/mov-ss-suppresses-an-execution-breakpoint", "SDM 3A 6.8.3", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ebx, u32::from(sel::DATA))?;
            a.mov(ss, ebx)
        });
        let at = g.emit(|a| a.mov(eax, 2));
        arm(g, 0, at, 0, 0);
        g.want_reg(RAX, 2);
    }),
    case("debug/int1-tells-what-mov-ss-held-back", "SDM 3A 6.8.3 and 6.9", |g| {
        g.long();
        g.poke(DATA, u64::from(sel::DATA));
        g.emit(|a| a.mov(ss, word_ptr(DATA)));
        g.raw(&[0xf1]);
        let at = g.emit(|a| a.nop());
        arm(g, 1, DATA, 3, 1);
        g.handler(Vector::DB, |a| {
            a.inc(ecx)?;
            a.mov(rbx, ptr(rsp))?;
            a.iretq()
        });
        g.want_reg(RCX, 1); // one #DB, not two
        g.want_reg(RBX, at);
        g.want("DR6", |e| e.state.dr.dr6 & 0xe00f, 2);
    }),
    case("debug/faults-push-rf", "SDM 3A 6.8.2 and 17.3.1.1", |g| {
        g.long();
        let at = g.emit(|a| a.ud2());
        g.traps(Vector::UD, at);
        g.want_pushed(Rflags::RF, true);
    }),
    case("debug/traps-push-no-rf", "SDM 3A 17.3.1.1", |g| {
        g.long();
        g.emit(|a| a.int(i32::from(EXIT)));
        g.delivers(EXIT);
        g.want_pushed(Rflags::RF, false);
    }),
    case("debug/write-breakpoint-is-a-trap", "SDM 3A 17.3.1.2", |g| {
        g.long();
        g.emit(|a| a.mov(eax, dword_ptr(DATA))); // reading does not match
        g.emit(|a| a.mov(dword_ptr(DATA), 5));
        let at = g.emit(|a| a.nop());
        arm(g, 1, DATA, 1, 3);
        want_debug(g, at, 2);
        g.want_mem(DATA, 4, 5);
    }),
    case("debug/access-breakpoint-matches-reads", "SDM 3A 17.2.4", |g| {
        g.long();
        g.emit(|a| a.mov(eax, dword_ptr(DATA)));
        let at = g.emit(|a| a.nop());
        arm(g, 2, DATA, 3, 3);
        want_debug(g, at, 4);
    }),
    case("debug/breakpoint-matches-any-overlap", "SDM 3A 17.2.5", |g| {
        g.long();
        g.emit(|a| a.mov(dword_ptr(DATA + 4), 1));
        g.emit(|a| a.mov(dword_ptr(DATA), 1));
        let at = g.emit(|a| a.nop());
        arm(g, 0, DATA + 3, 1, 0);
        want_debug(g, at, 1);
    }),
    case("debug/io-breakpoint", "SDM 3A 17.3.1.3", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::DE;
        g.emit(|a| a.out(i32::from(REPORT), al));
        let at = g.emit(|a| a.nop());
        arm(g, 0, REPORT.into(), 2, 0);
        want_debug(g, at, 1);
    }),
    case("debug/general-detect", "SDM 3A 17.3.1.3", |g| {
        g.long();
        g.state.dr.dr7 = DR7 | BD;
        let at = g.emit(|a| a.mov(rax, dr0));
        want_debug(g, at, BD);
        g.want("DR7.GD", |e| e.state.dr.dr7 & BD, 0);
    }),
    case("debug/dr4-is-undefined-with-de", "SDM 3A 17.2.2", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::DE;
        let at = g.raw(&[0x0f, 0x21, 0xe0]); // MOV RAX, DR4
        g.traps(Vector::UD, at);
    }),
    case("debug/dr4-is-dr6-without-de", "SDM 3A 17.2.2", |g| {
        g.long();
        g.raw(&[0x0f, 0x21, 0xe0]);
        g.want_reg(RAX, 0xffff_0ff0);
    }),
    case("debug/fixed-bits", "SDM 3A 17.2.3, 17.2.4", |g| {
        g.long();
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.mov(dr6, rax)?;
            a.mov(dr7, rax)?;
            a.mov(rax, dr6)?;
            a.mov(rbx, dr7)
        });
        g.want_reg(RAX, 0xffff_0ff0);
        g.want_reg(RBX, 0x400);
    }),
    case("debug/upper-half-of-dr7-is-reserved", "SDM 3A 17.2.6", |g| {
        g.long();
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.shl(rax, 32)
        });
        let at = g.emit(|a| a.mov(dr7, rax));
        g.faults(Vector::GP, 0, at);
    }),
    case("debug/icebp", "SDM 2A INT n", |g| {
        g.long();
        let at = g.raw(&[0xf1]);
        want_debug(g, at + 1, 0);
    }),
    case("debug/eight-byte-breakpoint", "SDM 3A 17.2.4", |g| {
        g.long();
        g.emit(|a| a.mov(byte_ptr(DATA + 7), 1));
        let at = g.emit(|a| a.nop());
        arm(g, 0, DATA, 1, 2);
        want_debug(g, at, 1);
    }),
    case("debug/breakpoint-in-rep-movs", "SDM 3A 17.3.1.2", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ecx, 8)?;
            a.mov(esi, DATA as u32)?;
            a.mov(edi, DATA as u32 + 0x100)
        });
        let at = g.emit(|a| a.rep().movsb());
        arm(g, 0, DATA + 0x102, 1, 0);
        want_debug(g, at, 1);
        g.want_reg(RCX, 5);
    }),
    case("debug/breakpoints-match-without-being-enabled-only-in-dr6", "SDM 3A 17.2.3", |g| {
        g.long();
        g.emit(|a| a.mov(dword_ptr(DATA), 5));
        g.state.dr.address[0] = DATA;
        g.state.dr.dr7 = DR7 | 0xd << 16; // write, 4 bytes, not enabled
        g.want_mem(DATA, 4, 5);
    }),
    case("debug/int3-is-not-a-breakpoint-register", "SDM 3A 17.3.2", |g| {
        g.long();
        let at = g.raw(&[0xcc]);
        g.traps(Vector::BP, at + 1);
        g.want("DR6", |e| e.state.dr.dr6 & 0xe00f, 0);
    }),
];
