//! Operating modes and the control registers that switch them (SDM vol. 3, chapters 2, 9 and 20).

use super::case;
use crate::Case;
use crate::describe::access;
use crate::guest::Guest;
use crate::layout::{CODE, DATA, EXIT, FRAME, STACK, USER_CODE, sel};
use crate::paging::{Format, Tables, pte};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::gpr::{RAX, RBX, RSP};
use x86::state::{Mode, Seg};

/// RETF with a 64-bit operand.
const RETFQ: [u8; 2] = [0x48, 0xcb];
const EFER: u32 = 0xc000_0080;

/// `setup`, then an instruction that must raise #GP(0).
fn gp(
    g: &mut Guest,
    setup: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    g.emit(setup);
    let at = g.emit(code);
    g.faults(Vector::GP, 0, at);
}

/// Expects the mode at the end.
fn want_mode(g: &mut Guest, mode: Mode) {
    g.want("mode", |e| e.state.mode() as u64, mode as u64);
}

/// JMP ptr16:32, as 32-bit code has it by default.
fn far_jump32(selector: u16, offset: u64) -> Vec<u8> {
    let offset = (offset as u32).to_le_bytes();
    [&[0xea], &offset[..], &selector.to_le_bytes()].concat()
}

/// JMP ptr16:16, as 16-bit code has it by default.
fn far_jump16(selector: u16, offset: u64) -> Vec<u8> {
    let offset = (offset as u16).to_le_bytes();
    [&[0xea], &offset[..], &selector.to_le_bytes()].concat()
}

/// The top of a stack that 32 bits cannot form.
const HIGH_STACK: u64 = 0xffff_8000_1234_5000;

/// 64-bit code on [`HIGH_STACK`].
fn high_stack(g: &mut Guest) {
    g.long();
    g.map(HIGH_STACK - 0x1000, FRAME, pte::KERNEL);
    g.emit(|a| a.mov(rsp, HIGH_STACK));
}

/// 32-bit code at CODE + 80H, which halts, and what RSP is there.
fn compatible_with(g: &mut Guest, pointer: u64) {
    g.seek(CODE + 0x80, 32);
    g.emit(|a| a.nop());
    g.want_reg(RSP, pointer);
}

/// IRETQ to it with a stack of `stack`.
fn return_to_compatible(g: &mut Guest, stack: u16) {
    g.emit(|a| {
        a.push(i32::from(stack))?;
        a.push(0x8000)?;
        a.push(2)?;
        a.push(i32::from(sel::CODE32))?;
        a.push((CODE + 0x80) as i32)?;
        a.iretq()
    });
}

pub(super) const CASES: &[Case] = &[
    case("modes/iretq-to-a-16-bit-stack-keeps-rsp-31-16-only", "SDM 3A 6.14.3", |g| {
        high_stack(g);
        return_to_compatible(g, sel::DATA16);
        compatible_with(g, 0x1234_8000);
    }),
    case("modes/iretq-to-a-32-bit-stack", "SDM 3A 6.14.3", |g| {
        high_stack(g);
        return_to_compatible(g, sel::DATA);
        compatible_with(g, 0x8000);
    }),
    case("modes/far-jump-to-compatibility-mode-cuts-rsp", "SDM 1 3.4.1.1", |g| {
        high_stack(g);
        g.write(DATA, &[0x80, 0x80, 0, 0, sel::CODE32 as u8, 0]);
        g.emit(|a| a.jmp(fword_ptr(DATA)));
        compatible_with(g, HIGH_STACK & 0xffff_ffff);
    }),
    case("modes/far-call-to-compatibility-mode-cuts-rsp", "SDM 1 3.4.1.1", |g| {
        high_stack(g);
        g.write(DATA, &[0x80, 0x80, 0, 0, sel::CODE32 as u8, 0]);
        g.emit(|a| a.call(fword_ptr(DATA)));
        compatible_with(g, (HIGH_STACK - 8) & 0xffff_ffff);
        g.want_mem(FRAME + 0xffc, 4, sel::CODE64.into());
    }),
    case("modes/far-return-to-compatibility-mode-cuts-rsp", "SDM 1 3.4.1.1", |g| {
        high_stack(g);
        g.emit(|a| {
            a.push(i32::from(sel::CODE32))?;
            a.push((CODE + 0x80) as i32)
        });
        g.raw(&RETFQ);
        compatible_with(g, HIGH_STACK & 0xffff_ffff);
    }),
    case("modes/rsp-stays-cut-back-in-64-bit-mode", "SDM 1 3.4.1.1", |g| {
        high_stack(g);
        return_to_compatible(g, sel::DATA16);
        g.seek(CODE + 0x80, 32);
        g.raw(&[0xea, 0, 0x81, 0, 0, sel::CODE64 as u8, 0]); // JMP CODE64:8100H
        g.seek(CODE + 0x100, 64);
        g.emit(|a| a.mov(rax, rsp));
        g.want_reg(RAX, 0x1234_8000);
    }),
    case("modes/sysret-to-compatibility-mode-cuts-rsp", "SDM 1 3.4.1.1", |g| {
        high_stack(g);
        g.state.msr.star = 0x001b_0008 << 32;
        g.write(USER_CODE, &[0xcd, EXIT]);
        g.emit(|a| {
            a.mov(ecx, USER_CODE as u32)?;
            a.mov(r11d, 2)?;
            a.sysret()
        });
        g.delivers(EXIT);
        g.want("pushed RSP", |e| e.pushed().rsp, HIGH_STACK & 0xffff_ffff);
    }),
    case("modes/real-addresses", "SDM 3B 20.1.1", |g| {
        g.emit(|a| {
            a.mov(ax, 0x3000)?;
            a.mov(ds, ax)?;
            a.mov(word_ptr(0x10), 0x55)
        });
        g.want_mem(0x3_0010, 2, 0x55);
        g.want("DS base", |e| e.state.seg[Seg::Ds as usize].base, 0x3_0000);
    }),
    case("modes/real-limit-is-gp-without-code", "SDM 3B 20.1.4", |g| {
        g.emit(|a| a.mov(bx, 0xffff));
        let at = g.emit(|a| a.mov(ax, word_ptr(bx)));
        g.traps(Vector::GP, at);
        g.want_reg(RSP, STACK - 6);
    }),
    case("modes/real-interrupt-and-iret", "SDM 3B 20.1.4", |g| {
        let handler = g.aside(16, |a| {
            a.pushf()?;
            a.pop(bx)?;
            a.iret()
        });
        g.poke32(4 * 0x40, handler as u32);
        g.emit(|a| {
            a.sti()?;
            a.int(0x40)
        });
        g.want("IF in the handler", |e| e.reg(RBX) & 0x200, 0);
        g.want("IF after", |e| e.state.flags.bits() & 0x200, 0x200);
        g.want_reg(RSP, STACK);
    }),
    case("modes/big-real", "SDM 3A 9.9.2", |g| {
        g.emit(|a| {
            a.mov(eax, cr0)?;
            a.or(al, 1)?;
            a.mov(cr0, eax)?;
            a.mov(cx, u32::from(sel::DATA))?;
            a.mov(ds, cx)?;
            a.and(al, 0xfeu32 as i32)?;
            a.mov(cr0, eax)?;
            a.xor(cx, cx)?;
            a.mov(ds, cx)?;
            a.mov(ebx, FRAME as u32)?;
            a.mov(dword_ptr(ebx), 0x77)
        });
        want_mode(g, Mode::Real);
        g.want_mem(FRAME, 4, 0x77);
    }),
    case("modes/real-to-protected", "SDM 3A 9.9.1", |g| {
        g.emit(|a| {
            a.mov(eax, cr0)?;
            a.or(al, 1)?;
            a.mov(cr0, eax)
        });
        let target = CODE + 0x40;
        g.raw(&[0x66]);
        g.raw(&far_jump32(sel::CODE32, target));
        g.seek(target, 32);
        g.emit(|a| a.mov(eax, 0x1234_5678));
        g.want_reg(RAX, 0x1234_5678);
        want_mode(g, Mode::Protected32);
    }),
    case("modes/protected-16-bit", "SDM 3A 3.4.5", |g| {
        g.protected();
        let target = CODE + 0x40;
        g.raw(&far_jump32(sel::CODE16, target));
        g.seek(target, 16);
        g.emit(|a| a.mov(ax, 0x1234));
        g.want("AX", |e| e.reg(RAX) & 0xffff, 0x1234);
        want_mode(g, Mode::Protected16);
    }),
    case("modes/protected-to-real", "SDM 3A 9.9.2", |g| {
        g.protected();
        let (middle, target) = (CODE + 0x40, CODE + 0x80);
        g.raw(&far_jump32(sel::CODE16, middle));
        g.seek(middle, 16);
        g.emit(|a| {
            a.mov(eax, cr0)?;
            a.and(al, 0xfeu32 as i32)?;
            a.mov(cr0, eax)
        });
        g.raw(&far_jump16(0, target));
        g.seek(target, 16);
        g.emit(|a| a.mov(ax, 0x4321));
        g.want("AX", |e| e.reg(RAX) & 0xffff, 0x4321);
        g.want("CS", |e| e.state.seg[Seg::Cs as usize].selector.into(), 0);
        want_mode(g, Mode::Real);
    }),
    case("modes/protected-to-long", "SDM 3A 9.8.5", |g| {
        g.protected();
        let root = Tables::identity(&g.ram, Format::Long).root();
        g.emit(|a| {
            a.mov(eax, cr4)?;
            a.or(eax, Cr4::PAE.bits() as i32)?;
            a.mov(cr4, eax)?;
            a.mov(eax, root as u32)?;
            a.mov(cr3, eax)?;
            a.mov(ecx, EFER)?;
            a.mov(eax, Efer::LME.bits() as u32)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.mov(eax, cr0)?;
            a.bts(eax, 31)?;
            a.mov(cr0, eax)?;
            a.rdmsr()?;
            a.mov(ebx, eax)
        });
        let target = CODE + 0x80;
        g.raw(&far_jump32(sel::CODE64, target));
        g.seek(target, 64);
        g.emit(|a| a.mov(rax, 0x1234_5678_9abc_def0u64));
        g.want_reg(RAX, 0x1234_5678_9abc_def0);
        g.want_reg(RBX, (Efer::LME | Efer::LMA).bits());
        want_mode(g, Mode::Long64);
    }),
    case("modes/leaving-long-mode-clears-lma", "SDM 3A 9.8.5.4", |g| {
        g.long();
        g.set_seg(Seg::Cs, sel::CODE32, access::CODE32);
        g.seek(CODE, 32);
        g.emit(|a| {
            a.mov(eax, cr0)?;
            a.btr(eax, 31)?;
            a.mov(cr0, eax)?;
            a.mov(ecx, EFER)?;
            a.rdmsr()
        });
        g.want("LME and LMA", |e| e.reg(RAX) & 0x500, Efer::LME.bits());
        want_mode(g, Mode::Protected32);
    }),
    case("modes/long-to-compatibility-and-back", "SDM 3A 5.8.6", |g| {
        g.long();
        let (target, back) = (CODE + 0x40, CODE + 0x80);
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.push(i32::from(sel::CODE32))?;
            a.push(target as i32)
        });
        g.raw(&RETFQ);
        g.seek(target, 32);
        g.emit(|a| a.inc(eax)); // 40H: a REX prefix in 64-bit mode
        g.raw(&far_jump32(sel::CODE64, back));
        g.seek(back, 64);
        g.emit(|a| a.shl(rax, 40));
        g.want_reg(RAX, 2 << 40);
        want_mode(g, Mode::Long64);
    }),
    case("modes/compatibility-wraps-at-4g", "SDM 3A 3.4", |g| {
        g.compat();
        g.emit(|a| {
            a.mov(ebx, 0xffff_fff0u32)?;
            a.mov(eax, dword_ptr(ebx + USER_CODE + 0x10))
        });
        g.want("the code's first bytes", |e| e.reg(RAX) & 0xff, 0xbb);
    }),
    case("modes/32-bit-results-clear-the-upper-half", "SDM 1 3.4.1.1", |g| {
        g.long();
        g.emit(|a| {
            a.mov(rax, -1i64)?;
            a.mov(rbx, -1i64)?;
            a.mov(eax, 5)?;
            a.mov(bl, 5)
        });
        g.want_reg(RAX, 5);
        g.want_reg(RBX, 0xffff_ffff_ffff_ff05);
    }),
    case("modes/lmsw-cannot-clear-pe", "SDM 2A LMSW", |g| {
        g.protected();
        g.emit(|a| {
            a.xor(eax, eax)?;
            a.lmsw(ax)
        });
        want_mode(g, Mode::Protected32);
        g.want("CR0.MP", |e| (e.state.paging.cr0 & Cr0::MP).bits(), 0);
    }),
    case("modes/cr0-et-is-fixed", "SDM 3A 2.5", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(eax, Cr0::PE.bits() as u32)?;
            a.mov(cr0, eax)?;
            a.mov(ebx, cr0)
        });
        g.want_reg(RBX, (Cr0::PE | Cr0::ET).bits());
    }),
    case("modes/cr0-pg-needs-pe", "SDM 3A 2.5", |g| {
        g.emit(|a| a.mov(eax, Cr0::PG.bits() as u32));
        let at = g.emit(|a| a.mov(cr0, eax));
        g.traps(Vector::GP, at);
    }),
    case("modes/cr0-nw-needs-cd", "SDM 3A 2.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr0)?;
                a.bts(rax, 29)
            },
            |a| a.mov(cr0, rax),
        );
    }),
    case("modes/cr0-upper-half-is-reserved", "SDM 3A 2.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr0)?;
                a.bts(rax, 32)
            },
            |a| a.mov(cr0, rax),
        );
    }),
    case("modes/cr0-pg-stays-in-64-bit-code", "SDM 3A 9.8.5.4", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr0)?;
                a.btr(rax, 31)
            },
            |a| a.mov(cr0, rax),
        );
    }),
    case("modes/long-paging-needs-pae", "SDM 3A 9.8.5", |g| {
        g.protected();
        g.state.paging.efer = Efer::LME;
        gp(
            g,
            |a| {
                a.mov(eax, cr0)?;
                a.bts(eax, 31)
            },
            |a| a.mov(cr0, eax),
        );
    }),
    case("modes/cr4-pae-stays-in-long-mode", "SDM 3A 2.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr4)?;
                a.btr(rax, 5)
            },
            |a| a.mov(cr4, rax),
        );
    }),
    case("modes/cr4-reserved-bit", "SDM 3A 2.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr4)?;
                a.bts(rax, 31)
            },
            |a| a.mov(cr4, rax),
        );
    }),
    case("modes/cr4-pcide-needs-long-mode", "SDM 3A 4.10.1", |g| {
        g.protected();
        gp(
            g,
            |a| {
                a.mov(eax, cr4)?;
                a.bts(eax, 17)
            },
            |a| a.mov(cr4, eax),
        );
    }),
    case("modes/cr4-pcide-needs-pcid-zero", "SDM 3A 4.10.1", |g| {
        g.long();
        g.state.paging.cr3 |= 0x18; // PWT and PCD: bits of the PCID to be
        gp(
            g,
            |a| {
                a.mov(rax, cr4)?;
                a.bts(rax, 17)
            },
            |a| a.mov(cr4, rax),
        );
    }),
    case("modes/cr0-pg-stays-with-pcide", "SDM 3A 4.10.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::PCIDE;
        g.set_seg(Seg::Cs, sel::CODE32, access::CODE32);
        g.seek(CODE, 32);
        gp(
            g,
            |a| {
                a.mov(eax, cr0)?;
                a.btr(eax, 31)
            },
            |a| a.mov(cr0, eax),
        );
    }),
    case("modes/cr3-reserved-bit", "SDM 3A 2.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(rax, cr3)?;
                a.bts(rax, 60)
            },
            |a| a.mov(cr3, rax),
        );
    }),
    case("modes/cr8-is-the-task-priority", "SDM 3A 10.8.6", |g| {
        g.long();
        g.emit(|a| {
            a.mov(eax, 5)?;
            a.mov(cr8, rax)?;
            a.mov(rbx, cr8)
        });
        g.want_reg(RBX, 5);
        g.want("task priority", |e| e.priority.into(), 5);
    }),
    case("modes/cr8-reserved-bits", "SDM 3A 2.5", |g| {
        g.long();
        gp(g, |a| a.mov(eax, 16), |a| a.mov(cr8, rax));
    }),
    case("modes/efer-reserved-bit", "SDM 3A 2.2.1", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(ecx, EFER)?;
                a.rdmsr()?;
                a.bts(eax, 1)
            },
            |a| a.wrmsr(),
        );
    }),
    case("modes/efer-lme-is-fixed-while-paging", "SDM 3A 9.8.5", |g| {
        g.long();
        gp(
            g,
            |a| {
                a.mov(ecx, EFER)?;
                a.rdmsr()?;
                a.btr(eax, 8)
            },
            |a| a.wrmsr(),
        );
    }),
    case("modes/sixteen-bit-addresses-wrap-in-the-segment", "SDM 1 3.3.5", |g| {
        g.protected();
        g.emit(|a| {
            a.mov(ebx, 0xffff)?;
            a.mov(byte_ptr(bx + 0x10), 0x66) // offset FH with 16-bit addressing
        });
        g.want_mem(0xf, 1, 0x66);
    }),
];
