//! Segment loads, limits and types, and far transfers (SDM vol. 3, chapters 3 and 5).

use super::case;
use crate::Case;
use crate::describe::{access, descriptor};
use crate::guest::{GATE_USER, Guest};
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr4, Rflags};
use x86::state::Seg;
use x86::state::gpr::{RAX, RBX, RSP};

/// A 32-bit or 64-bit call gate, present.
const CALL_GATE: u8 = 0x8c;
/// The LDT's second descriptor.
const IN_LDT: u16 = 0x0c;

/// MOV DS from `selector`.
fn load_ds(g: &mut Guest, selector: u16) -> u64 {
    g.emit(|a| a.mov(eax, u32::from(selector)));
    g.emit(|a| a.mov(ds, eax))
}

/// MOV SS from `selector`.
fn load_ss(g: &mut Guest, selector: u16) -> u64 {
    g.emit(|a| a.mov(eax, u32::from(selector)));
    g.emit(|a| a.mov(ss, eax))
}

/// JMP ptr16:32.
fn jump(g: &mut Guest, selector: u16, offset: u64) -> u64 {
    let mut bytes = vec![0xea];
    bytes.extend((offset as u32).to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    g.raw(&bytes)
}

/// CALL ptr16:32.
fn call(g: &mut Guest, selector: u16) -> u64 {
    let mut bytes = vec![0x9a, 0, 0, 0, 0];
    bytes.extend(selector.to_le_bytes());
    g.raw(&bytes)
}

/// Expects a segment register's selector at the end.
fn want_selector(g: &mut Guest, seg: Seg, want: u16) {
    g.want("selector", move |e| e.state.seg[seg as usize].selector.into(), want.into());
}

/// Null selectors of every RPL but 0 in DS, ES, FS and GS; user code that ends at once.
fn load_nulls(g: &mut Guest) {
    g.write(USER_CODE, &[0xcd, EXIT]);
    for (seg, selector) in [(ds, 1), (es, 2), (fs, 3), (gs, 3)] {
        g.emit(|a| {
            a.mov(eax, selector)?;
            a.mov(seg, eax)
        });
    }
}

/// IRETQ to user code of selector `code`.
fn outwards(g: &mut Guest, code: u16) {
    g.write(USER_CODE, &[0xcd, EXIT]);
    g.emit(|a| {
        a.push(i32::from(sel::USER_DATA))?;
        a.push(USER_STACK as i32)?;
        a.push(2)?;
        a.push(i32::from(code))?;
        a.push(USER_CODE as i32)?;
        a.iretq()
    });
}

/// Expects the user code to have ended with 0 in all four.
fn want_zeros(g: &mut Guest) {
    g.delivers(EXIT);
    [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs].into_iter().for_each(|seg| want_selector(g, seg, 0));
}

pub(super) const CASES: &[Case] = &[
    case("segments/ss-null", "SDM 2B MOV", |g| {
        g.protected();
        let at = load_ss(g, 0);
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/ss-null-is-fine-in-64-bit-supervisor-code", "SDM 2B MOV", |g| {
        g.long();
        load_ss(g, 0);
        g.emit(|a| a.push(rax));
        want_selector(g, Seg::Ss, 0);
    }),
    case("segments/ss-null-in-64-bit-user-code", "SDM 2B MOV", |g| {
        g.user();
        let at = load_ss(g, 3);
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/null-loads-but-cannot-be-used", "SDM 3A 5.4.1", |g| {
        g.protected();
        load_ds(g, 0);
        let at = g.emit(|a| a.mov(al, byte_ptr(DATA)));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/ds-not-present", "SDM 3A 6.15 #NP", |g| {
        g.protected();
        let at = load_ds(g, sel::ABSENT);
        g.faults(Vector::NP, sel::ABSENT.into(), at);
    }),
    case("segments/ss-not-present", "SDM 3A 6.15 #SS", |g| {
        g.protected();
        let at = load_ss(g, sel::ABSENT);
        g.faults(Vector::SS, sel::ABSENT.into(), at);
    }),
    case("segments/beyond-the-table", "SDM 3A 5.3", |g| {
        g.protected();
        let at = load_ds(g, sel::BEYOND);
        g.faults(Vector::GP, sel::BEYOND.into(), at);
    }),
    case("segments/ds-execute-only", "SDM 3A 5.5", |g| {
        g.protected();
        let at = load_ds(g, sel::EXECUTE_ONLY);
        g.faults(Vector::GP, sel::EXECUTE_ONLY.into(), at);
    }),
    case("segments/ss-read-only", "SDM 3A 5.7", |g| {
        g.protected();
        let at = load_ss(g, sel::READ_ONLY);
        g.faults(Vector::GP, sel::READ_ONLY.into(), at);
    }),
    case("segments/ss-rpl-differs-from-cpl", "SDM 3A 5.7", |g| {
        g.protected();
        let at = load_ss(g, sel::DATA | 3);
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("segments/user-loads-supervisor-data", "SDM 3A 5.6", |g| {
        g.protected_user();
        let at = load_ds(g, sel::DATA);
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("segments/supervisor-with-user-rpl", "SDM 3A 5.6", |g| {
        g.protected();
        let at = load_ds(g, sel::DATA | 3);
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("segments/load-sets-accessed", "SDM 3A 3.4.5.1", |g| {
        g.protected();
        load_ds(g, sel::FRESH);
        g.want("type", |e| e.mem(GDT + u64::from(sel::FRESH) + 5, 1), 0x93);
    }),
    case("segments/local-descriptor-table", "SDM 3A 3.5.1", |g| {
        g.protected();
        g.poke(LDT + 8, descriptor(DATA, 0xffff, access::DATA16));
        load_ds(g, IN_LDT);
        g.emit(|a| a.mov(byte_ptr(4), 0x42));
        g.want_mem(DATA + 4, 1, 0x42);
    }),
    case("segments/no-local-descriptor-table", "SDM 3A 3.5.1", |g| {
        g.protected();
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.lldt(ax)
        });
        let at = load_ds(g, IN_LDT);
        g.faults(Vector::GP, IN_LDT.into(), at);
    }),
    case("segments/lldt-of-another-type", "SDM 2A LLDT", |g| {
        g.protected();
        g.emit(|a| a.mov(eax, u32::from(sel::DATA)));
        let at = g.emit(|a| a.lldt(ax));
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("segments/ltr-marks-busy", "SDM 2A LTR", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(eax, u32::from(sel::TSS2))?;
            a.ltr(ax)
        });
        g.want("type", |e| e.mem(GDT + u64::from(sel::TSS2) + 5, 1), 0x8b);
    }),
    case("segments/ltr-of-a-busy-tss", "SDM 2A LTR", |g| {
        g.protected();
        g.emit(|a| a.mov(eax, u32::from(sel::TSS)));
        let at = g.emit(|a| a.ltr(ax));
        g.faults(Vector::GP, sel::TSS.into(), at);
    }),
    case("segments/limit", "SDM 3A 5.3", |g| {
        g.protected();
        load_ds(g, sel::SHORT);
        g.emit(|a| a.mov(ebx, dword_ptr(0xfc)));
        let at = g.emit(|a| a.mov(ebx, dword_ptr(0xfd)));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/stack-limit", "SDM 3A 5.3", |g| {
        g.protected();
        g.emit(|a| a.mov(esp, 0xf0));
        load_ss(g, sel::SHORT);
        g.emit(|a| a.xor(ebp, ebp));
        let at = g.emit(|a| a.mov(ebx, dword_ptr(ebp + 0x200)));
        g.faults(Vector::SS, 0, at);
    }),
    case("segments/expand-down", "SDM 3A 5.3", |g| {
        g.protected();
        load_ds(g, sel::DOWN);
        g.emit(|a| a.mov(bl, byte_ptr(0x1000)));
        let at = g.emit(|a| a.mov(bl, byte_ptr(0xfff)));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/write-to-read-only", "SDM 3A 5.5", |g| {
        g.protected();
        load_ds(g, sel::READ_ONLY);
        let at = g.emit(|a| a.mov(byte_ptr(DATA), al));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/write-to-code", "SDM 3A 5.5", |g| {
        g.protected();
        let at = g.emit(|a| a.mov(byte_ptr(DATA).cs(), al));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/read-of-execute-only-code", "SDM 3A 5.5", |g| {
        g.protected();
        jump(g, sel::EXECUTE_ONLY, CODE + 0x40);
        g.seek(CODE + 0x40, 32);
        let at = g.emit(|a| a.mov(al, byte_ptr(DATA).cs()));
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/limits-are-not-checked-in-64-bit-mode", "SDM 3A 5.3.1", |g| {
        g.long();
        load_ds(g, sel::SHORT);
        g.emit(|a| a.mov(dword_ptr(DATA), 3));
        g.want_mem(DATA, 4, 3);
    }),
    case("segments/fs-base-msr", "SDM 3A 3.4.4", |g| {
        g.long();
        g.poke(DATA + 8, 0x5151);
        g.emit(|a| {
            a.mov(ecx, 0xc000_0100u32)?;
            a.mov(eax, DATA as u32)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.mov(ebx, dword_ptr(8).fs())
        });
        g.want_reg(RBX, 0x5151);
    }),
    case("segments/swapgs", "SDM 2B SWAPGS", |g| {
        g.long();
        g.state.seg[Seg::Gs as usize].base = 0x1111;
        g.state.msr.kernel_gs_base = DATA;
        g.emit(|a| a.swapgs());
        g.want("GS base", |e| e.state.seg[Seg::Gs as usize].base, DATA);
        g.want("kernel GS base", |e| e.state.msr.kernel_gs_base, 0x1111);
    }),
    case("segments/lar-and-lsl", "SDM 2A LAR, LSL", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(ecx, u32::from(sel::DATA))?;
            a.lar(eax, ecx)?;
            a.lsl(ebx, ecx)
        });
        g.want("access rights", |e| e.reg(RAX) & 0x00f0_ff00, 0x00c0_9300);
        g.want_reg(RBX, 0xffff_ffff);
        g.want_flag(Rflags::ZF, true);
    }),
    case("segments/lar-beyond-the-table", "SDM 2A LAR", |g| {
        g.protected();
        g.flags(Rflags::ZF);
        g.emit(|a| {
            a.mov(ecx, u32::from(sel::BEYOND))?;
            a.lar(eax, ecx)
        });
        g.want_flag(Rflags::ZF, false);
    }),
    case("segments/lar-without-privilege", "SDM 2A LAR", |g| {
        g.protected_user();
        g.flags(Rflags::ZF);
        g.emit(|a| {
            a.mov(ecx, u32::from(sel::DATA))?;
            a.lar(eax, ecx)
        });
        g.want_pushed(Rflags::ZF, false);
    }),
    case("segments/verr-of-execute-only", "SDM 2B VERR", |g| {
        g.protected();
        g.flags(Rflags::ZF);
        g.emit(|a| {
            a.mov(ecx, u32::from(sel::EXECUTE_ONLY))?;
            a.verr(cx)
        });
        g.want_flag(Rflags::ZF, false);
    }),
    case("segments/verw-of-data", "SDM 2B VERW", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(ecx, u32::from(sel::DATA))?;
            a.verw(cx)
        });
        g.want_flag(Rflags::ZF, true);
    }),
    case("segments/jump-to-data", "SDM 3A 5.8.1", |g| {
        g.protected();
        let at = jump(g, sel::DATA, CODE);
        g.faults(Vector::GP, sel::DATA.into(), at);
    }),
    case("segments/jump-to-null", "SDM 3A 5.8.1", |g| {
        g.protected();
        let at = jump(g, 0, CODE);
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/jump-to-absent-code", "SDM 3A 6.15 #NP", |g| {
        g.protected();
        g.set_gdt(sel::SPARE, descriptor(0, 0xf_ffff, access::CODE32 & !0x80));
        let at = jump(g, sel::SPARE, CODE);
        g.faults(Vector::NP, sel::SPARE.into(), at);
    }),
    case("segments/jump-beyond-the-limit", "SDM 2A JMP", |g| {
        g.protected();
        let at = jump(g, sel::CODE16, 0x1_0000);
        g.faults(Vector::GP, 0, at);
    }),
    case("segments/user-jumps-to-supervisor-code", "SDM 3A 5.8.1.1", |g| {
        g.protected_user();
        let at = jump(g, sel::CODE32, CODE);
        g.faults(Vector::GP, sel::CODE32.into(), at);
    }),
    case("segments/conforming-code-keeps-cpl", "SDM 3A 5.8.1.2", |g| {
        g.protected_user();
        jump(g, sel::CONFORMING, USER_CODE + 0x40);
        g.seek(USER_CODE + 0x40, 32);
        g.emit(|a| a.nop());
        g.want("pushed CS", |e| e.pushed().cs, u64::from(sel::CONFORMING) | 3);
    }),
    case("segments/two-code-bits-l-and-d", "SDM 3A 3.4.5", |g| {
        g.long();
        g.set_gdt(sel::SPARE, descriptor(0, 0xf_ffff, access::CODE64 | 0x4000));
        g.emit(|a| {
            a.push(i32::from(sel::SPARE))?;
            a.push(CODE as i32)
        });
        let at = g.raw(&[0x48, 0xcb]); // RETF, 64-bit
        g.faults(Vector::GP, sel::SPARE.into(), at);
    }),
    case("segments/call-gate-same-privilege", "SDM 3A 5.8.4", |g| {
        g.protected();
        let target = g.aside(32, |a| a.hlt());
        g.set_call_gate(sel::CODE32, target, CALL_GATE, 0);
        let at = call(g, sel::GATE);
        g.halts_at(target + 1);
        g.want_mem(STACK - 4, 4, sel::CODE32.into());
        g.want_mem(STACK - 8, 4, at + 7);
    }),
    case("segments/call-gate-copies-parameters-inwards", "SDM 3A 5.8.5", |g| {
        g.protected_user();
        let target = g.aside(32, |a| a.hlt());
        g.set_call_gate(sel::CODE32, target, CALL_GATE | GATE_USER, 2);
        g.emit(|a| {
            a.push(0x1111)?;
            a.push(0x2222)
        });
        let at = call(g, sel::GATE | 3);
        g.halts_at(target + 1);
        let words = [
            at + 7,
            sel::USER_CODE32.into(),
            0x2222,
            0x1111,
            USER_STACK - 8,
            sel::USER_DATA.into(),
        ];
        for (n, word) in words.into_iter().enumerate() {
            g.want_mem(STACK0 - 24 + 4 * n as u64, 4, word);
        }
    }),
    case("segments/call-gate-privilege", "SDM 3A 5.8.4", |g| {
        g.protected_user();
        g.set_call_gate(sel::CODE32, CODE, CALL_GATE, 0);
        let at = call(g, sel::GATE | 3);
        g.faults(Vector::GP, sel::GATE.into(), at);
    }),
    case("segments/call-gate-not-present", "SDM 3A 6.15 #NP", |g| {
        g.protected();
        g.set_call_gate(sel::CODE32, CODE, CALL_GATE & !0x80, 0);
        let at = call(g, sel::GATE);
        g.faults(Vector::NP, sel::GATE.into(), at);
    }),
    case("segments/64-bit-call-gate", "SDM 3A 5.8.5.1", |g| {
        g.user();
        let target = g.aside(64, |a| a.hlt());
        g.set_call_gate(sel::CODE64, target, CALL_GATE | GATE_USER, 0);
        g.write(USER_DATA, &[0, 0, 0, 0, sel::GATE as u8 | 3, 0]);
        let at = g.emit(|a| a.call(fword_ptr(USER_DATA)));
        g.halts_at(target + 1);
        g.want("return address", |e| e.u64(STACK0 - 32), at + 7);
        g.want("return CS", |e| e.u64(STACK0 - 24), sel::USER_CODE64.into());
        g.want("return RSP", |e| e.u64(STACK0 - 16), USER_STACK);
        g.want("return SS", |e| e.u64(STACK0 - 8), sel::USER_DATA.into());
        want_selector(g, Seg::Ss, 0);
    }),
    case("segments/far-return-outwards-nulls-data-segments", "SDM 3A 5.8.6", |g| {
        g.protected();
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.push(i32::from(sel::USER_DATA))?;
            a.push(USER_STACK as i32)?;
            a.push(i32::from(sel::USER_CODE32))?;
            a.push(USER_CODE as i32)?;
            a.retf()
        });
        g.delivers(EXIT);
        g.want("pushed CS", |e| e.pushed().cs, sel::USER_CODE32.into());
        g.want("pushed ESP", |e| e.pushed().rsp, USER_STACK);
        want_selector(g, Seg::Ds, 0);
        want_selector(g, Seg::Es, 0);
    }),
    case("segments/far-return-outwards-makes-null-selectors-0", "SDM 2B RET", |g| {
        g.protected();
        load_nulls(g);
        g.emit(|a| {
            a.push(i32::from(sel::USER_DATA))?;
            a.push(USER_STACK as i32)?;
            a.push(i32::from(sel::USER_CODE32))?;
            a.push(USER_CODE as i32)?;
            a.retf()
        });
        want_zeros(g);
    }),
    case("segments/iret-outwards-makes-null-selectors-0", "SDM 2A IRET", |g| {
        g.protected();
        load_nulls(g);
        g.emit(|a| {
            a.push(i32::from(sel::USER_DATA))?;
            a.push(USER_STACK as i32)?;
            a.push(2)?;
            a.push(i32::from(sel::USER_CODE32))?;
            a.push(USER_CODE as i32)?;
            a.iretd()
        });
        want_zeros(g);
    }),
    case("segments/iretq-outwards-makes-null-selectors-0", "SDM 2A IRET", |g| {
        g.long();
        load_nulls(g);
        outwards(g, sel::USER_CODE64);
        want_zeros(g);
    }),
    case("segments/an-outward-return-keeps-bases", "SDM 2A IRET", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::FSGSBASE;
        load_nulls(g);
        g.emit(|a| {
            a.mov(eax, 0x1234_5678)?;
            a.wrfsbase(rax)?;
            a.wrgsbase(rax)
        });
        outwards(g, sel::USER_CODE64);
        want_zeros(g);
        g.want("FS base", |e| e.state.seg[Seg::Fs as usize].base, 0x1234_5678);
        g.want("GS base", |e| e.state.seg[Seg::Gs as usize].base, 0x1234_5678);
    }),
    case("segments/an-outward-return-goes-by-descriptors", "SDM 2A IRET", |g| {
        g.long();
        for (seg, selector) in [(ds, sel::USER_DATA), (es, sel::CONFORMING | 3), (fs, sel::DATA)] {
            g.emit(|a| {
                a.mov(eax, u32::from(selector))?;
                a.mov(seg, eax)
            });
        }
        outwards(g, sel::USER_CODE64);
        g.delivers(EXIT);
        want_selector(g, Seg::Ds, sel::USER_DATA);
        want_selector(g, Seg::Es, sel::CONFORMING | 3);
        want_selector(g, Seg::Fs, 0);
    }),
    case("segments/a-return-to-the-same-level-keeps-null-selectors", "SDM 2A IRET", |g| {
        g.protected();
        load_nulls(g);
        g.emit(|a| {
            a.pushfd()?;
            a.push(i32::from(sel::CODE32))?;
            a.push((CODE + 0x80) as i32)?;
            a.iretd()
        });
        g.seek(CODE + 0x80, 32);
        g.emit(|a| a.nop());
        want_selector(g, Seg::Ds, 1);
        want_selector(g, Seg::Gs, 3);
    }),
    case("segments/far-return-inwards", "SDM 3A 5.8.6", |g| {
        g.protected_user();
        g.emit(|a| {
            a.push(i32::from(sel::CODE32))?;
            a.push(CODE as i32)
        });
        let at = g.emit(|a| a.retf());
        g.faults(Vector::GP, sel::CODE32.into(), at);
        g.want("pushed ESP", |e| e.pushed().rsp, USER_STACK - 8);
    }),
    case("segments/pop-into-ss-uses-the-old-stack", "SDM 2B POP", |g| {
        g.protected();
        g.emit(|a| {
            a.push(i32::from(sel::DATA))?;
            a.pop(ss)
        });
        g.want_reg(RSP, STACK);
    }),
    case("segments/bases-are-ignored-in-64-bit-mode", "SDM 3A 3.4.4", |g| {
        g.long();
        g.state.seg[Seg::Ds as usize].base = 0x5000;
        g.state.seg[Seg::Es as usize].base = 0x5000;
        g.emit(|a| a.mov(dword_ptr(DATA), 3));
        g.want_mem(DATA, 4, 3);
    }),
    case("segments/null-fs-clears-its-base", "SDM 3A 3.4.4", |g| {
        g.long();
        g.state.seg[Seg::Fs as usize].base = 0x5000;
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.mov(fs, eax)
        });
        g.want("FS base", |e| e.state.seg[Seg::Fs as usize].base, 0);
    }),
    case("segments/arpl", "SDM 2A ARPL", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(eax, u32::from(sel::DATA))?;
            a.mov(ecx, 3)?;
            a.arpl(ax, cx)
        });
        g.want_reg(RAX, u64::from(sel::DATA) | 3);
        g.want_flag(Rflags::ZF, true);
    }),
    case("segments/lar-in-real-mode", "SDM 2A LAR", |g| {
        let at = g.emit(|a| a.lar(ax, cx));
        g.traps(Vector::UD, at);
    }),
    case("segments/lldt-in-real-mode", "SDM 2A LLDT", |g| {
        let at = g.emit(|a| a.lldt(ax));
        g.traps(Vector::UD, at);
    }),
    case("segments/16-bit-lgdt-loads-24-bits", "SDM 2A LGDT", |g| {
        g.write(0x500, &[0x77, 0, 0x44, 0x33, 0x22, 0x11]);
        g.emit(|a| a.lgdt(fword_ptr(0x500)));
        g.want("GDTR limit", |e| e.state.gdtr.limit.into(), 0x77);
        g.want("GDTR base", |e| e.state.gdtr.base, 0x22_3344);
    }),
    case("segments/lgdt-in-64-bit-mode-loads-ten-bytes", "SDM 2A LGDT", |g| {
        g.long();
        g.write(DATA, &[0x77, 0, 0, 0x10, 0, 0, 0, 0x80, 0xff, 0xff]);
        g.emit(|a| a.lgdt(tbyte_ptr(DATA)));
        g.want("GDTR base", |e| e.state.gdtr.base, 0xffff_8000_0000_1000);
    }),
    case("segments/lgdt-of-a-non-canonical-base", "SDM 2A LGDT", |g| {
        g.long();
        g.write(DATA, &[0x77, 0, 0, 0x10, 0, 0, 0, 0x80, 0, 0]);
        let at = g.emit(|a| a.lgdt(tbyte_ptr(DATA)));
        g.faults(Vector::GP, 0, at);
    }),
];
