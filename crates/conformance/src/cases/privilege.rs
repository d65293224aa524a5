//! What user code may not do, and instructions that the control registers disable.

use super::case;
use crate::Case;
use crate::layout::*;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Cr4, Rflags};
use x86::state::Seg;
use x86::state::gpr::RAX;

/// A user instruction that raises #GP(0).
macro_rules! forbidden {
    ($name:literal, $cite:literal, $code:expr) => {
        case($name, $cite, |g| {
            g.user();
            let at = g.emit($code);
            g.faults(Vector::GP, 0, at);
        })
    };
}

/// The same under CR4.UMIP.
macro_rules! umip {
    ($name:literal, $code:expr) => {
        case($name, "SDM 3A 2.5 UMIP", |g| {
            g.user();
            g.state.paging.cr4 |= Cr4::UMIP;
            let at = g.emit($code);
            g.faults(Vector::GP, 0, at);
        })
    };
}

/// Bytes that raise #UD in 64-bit supervisor code.
macro_rules! undefined {
    ($name:literal, $cite:literal, $bytes:expr) => {
        case($name, $cite, |g| {
            g.long();
            let at = g.raw(&$bytes);
            g.traps(Vector::UD, at);
        })
    };
}

pub(super) const CASES: &[Case] = &[
    forbidden!("privilege/hlt", "SDM 2A HLT", |a| a.hlt()),
    forbidden!("privilege/cli", "SDM 2A CLI", |a| a.cli()),
    forbidden!("privilege/sti", "SDM 2B STI", |a| a.sti()),
    forbidden!("privilege/clts", "SDM 2A CLTS", |a| a.clts()),
    forbidden!("privilege/lgdt", "SDM 2A LGDT", |a| a.lgdt(tbyte_ptr(USER_DATA))),
    forbidden!("privilege/lidt", "SDM 2A LIDT", |a| a.lidt(tbyte_ptr(USER_DATA))),
    forbidden!("privilege/lldt", "SDM 2A LLDT", |a| a.lldt(ax)),
    forbidden!("privilege/ltr", "SDM 2A LTR", |a| a.ltr(ax)),
    forbidden!("privilege/lmsw", "SDM 2A LMSW", |a| a.lmsw(ax)),
    forbidden!("privilege/invlpg", "SDM 2A INVLPG", |a| a.invlpg(byte_ptr(USER_DATA))),
    forbidden!("privilege/wbinvd", "SDM 2B WBINVD", |a| a.wbinvd()),
    forbidden!("privilege/rdmsr", "SDM 2B RDMSR", |a| a.rdmsr()),
    forbidden!("privilege/wrmsr", "SDM 2B WRMSR", |a| a.wrmsr()),
    forbidden!("privilege/read-cr0", "SDM 2B MOV CR", |a| a.mov(rax, cr0)),
    forbidden!("privilege/write-cr3", "SDM 2B MOV CR", |a| a.mov(cr3, rax)),
    forbidden!("privilege/read-dr7", "SDM 2B MOV DR", |a| a.mov(rax, dr7)),
    forbidden!("privilege/swapgs", "SDM 2B SWAPGS", |a| a.swapgs()),
    forbidden!("privilege/sysexit", "SDM 2B SYSEXIT", |a| a.sysexit()),
    forbidden!("privilege/in", "SDM 1 18.5", |a| a.in_(al, i32::from(REPORT))),
    forbidden!("privilege/out", "SDM 1 18.5", |a| a.out(i32::from(REPORT), al)),
    case("privilege/iopl-3-opens-ports", "SDM 1 18.5.1", |g| {
        g.user();
        g.flags(Rflags::IOPL);
        g.emit(|a| {
            a.mov(al, 0x5a)?;
            a.out(i32::from(REPORT), al)
        });
        g.want_reports(&[0x5a]);
    }),
    case("privilege/io-permission-bitmap", "SDM 1 18.5.2", |g| {
        g.user();
        g.write(TSS + IO_MAP + u64::from(REPORT) / 8, &[!(1 << (REPORT % 8))]);
        g.emit(|a| {
            a.mov(al, 0x5b)?;
            a.out(i32::from(REPORT), al)
        });
        let at = g.emit(|a| a.out(i32::from(REPORT), ax)); // the next port's bit is set
        g.faults(Vector::GP, 0, at);
        g.want_reports(&[0x5b]);
    }),
    case("privilege/io-bitmap-beyond-the-tss", "SDM 1 18.5.2", |g| {
        g.user();
        g.emit(|a| a.mov(edx, 0x3f8));
        let at = g.emit(|a| a.out(dx, al));
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/user-popf-keeps-if-and-iopl", "SDM 2B POPF", |g| {
        g.user();
        g.emit(|a| {
            a.push(0x3202)?;
            a.popfq()
        });
        g.want_pushed(Rflags::IF, false);
        g.want_pushed(Rflags::IOPL, false);
    }),
    case("privilege/pushf-hides-rf-and-vm", "SDM 2B PUSHF", |g| {
        g.long();
        g.flags(Rflags::RF | Rflags::CF);
        g.emit(|a| {
            a.pushfq()?;
            a.pop(rax)
        });
        g.want_reg(RAX, 3);
    }),
    umip!("privilege/umip-sgdt", |a| a.sgdt(tbyte_ptr(USER_DATA))),
    umip!("privilege/umip-sidt", |a| a.sidt(tbyte_ptr(USER_DATA))),
    umip!("privilege/umip-sldt", |a| a.sldt(eax)),
    umip!("privilege/umip-str", |a| a.str(eax)),
    umip!("privilege/umip-smsw", |a| a.smsw(eax)),
    case("privilege/sgdt-without-umip", "SDM 2B SGDT", |g| {
        g.user();
        g.emit(|a| a.sgdt(tbyte_ptr(USER_DATA)));
        g.want_mem(USER_DATA, 2, u64::from(sel::BEYOND) - 1);
        g.want_mem(USER_DATA + 2, 8, GDT);
    }),
    case("privilege/unknown-msr-read", "SDM 2B RDMSR", |g| {
        g.long();
        g.emit(|a| a.mov(ecx, 0x1234_5678));
        let at = g.emit(|a| a.rdmsr());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/unknown-msr-write", "SDM 2B WRMSR", |g| {
        g.long();
        g.emit(|a| a.mov(ecx, 0x1234_5678));
        let at = g.emit(|a| a.wrmsr());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/non-canonical-address-in-an-msr", "SDM 2B WRMSR", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ecx, 0xc000_0082u32)?; // IA32_LSTAR
            a.xor(eax, eax)?;
            a.mov(edx, 0x8000)
        });
        let at = g.emit(|a| a.wrmsr());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/reserved-memory-type-in-pat", "SDM 3A 11.12.2", |g| {
        g.long();
        g.emit(|a| {
            a.mov(ecx, 0x277)?;
            a.mov(eax, 2)?; // type 2 is reserved
            a.xor(edx, edx)
        });
        let at = g.emit(|a| a.wrmsr());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/rdtsc-with-tsd", "SDM 2B RDTSC", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::TSD;
        let at = g.emit(|a| a.rdtsc());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/rdfsbase-disabled", "SDM 2B RDFSBASE", |g| {
        g.user();
        let at = g.emit(|a| a.rdfsbase(rax));
        g.traps(Vector::UD, at);
    }),
    case("privilege/wrgsbase", "SDM 2B WRGSBASE", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::FSGSBASE;
        g.emit(|a| {
            a.mov(rax, 0x7fff_0000_1234u64)?;
            a.wrgsbase(rax)
        });
        g.want("GS base", |e| e.state.seg[Seg::Gs as usize].base, 0x7fff_0000_1234);
    }),
    case("privilege/wrfsbase-non-canonical", "SDM 2B WRFSBASE", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::FSGSBASE;
        g.emit(|a| a.mov(rax, 0x0000_8000_0000_0000u64));
        let at = g.emit(|a| a.wrfsbase(rax));
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/x87-with-ts", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::TS;
        let at = g.emit(|a| a.fld1());
        g.traps(Vector::NM, at);
    }),
    case("privilege/x87-with-em", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::EM;
        let at = g.emit(|a| a.fld1());
        g.traps(Vector::NM, at);
    }),
    case("privilege/wait-with-mp-and-ts", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::TS | Cr0::MP;
        let at = g.raw(&[0x9b]);
        g.traps(Vector::NM, at);
    }),
    case("privilege/wait-with-ts-alone", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 = (g.state.paging.cr0 - Cr0::MP) | Cr0::TS;
        g.raw(&[0x9b]);
    }),
    case("privilege/sse-with-ts", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::TS;
        let at = g.emit(|a| a.pxor(xmm0, xmm0));
        g.traps(Vector::NM, at);
    }),
    case("privilege/sse-with-em", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::EM;
        let at = g.emit(|a| a.pxor(xmm0, xmm0));
        g.traps(Vector::UD, at);
    }),
    case("privilege/sse-without-osfxsr", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr4 &= !Cr4::OSFXSR;
        let at = g.emit(|a| a.pxor(xmm0, xmm0));
        g.traps(Vector::UD, at);
    }),
    case("privilege/simd-exception", "SDM 3A 6.15 #XM", |g| {
        g.long();
        g.poke32(DATA, 0x1f80 & !0x200); // divide-by-zero unmasked
        g.poke32(DATA + 16, 0x3f80_0000); // 1.0
        g.emit(|a| {
            a.ldmxcsr(dword_ptr(DATA))?;
            a.movss(xmm0, dword_ptr(DATA + 16))?;
            a.pxor(xmm1, xmm1)
        });
        let at = g.emit(|a| a.divss(xmm0, xmm1));
        g.traps(Vector::XM, at);
        g.want("MXCSR.ZE", |e| u64::from(e.state.x87.mxcsr) & 4, 4);
    }),
    case("privilege/simd-exception-without-osxmmexcpt", "SDM 3A 2.5", |g| {
        g.long();
        g.state.paging.cr4 &= !Cr4::OSXMMEXCPT;
        g.poke32(DATA, 0x1f80 & !0x200);
        g.poke32(DATA + 16, 0x3f80_0000);
        g.emit(|a| {
            a.ldmxcsr(dword_ptr(DATA))?;
            a.movss(xmm0, dword_ptr(DATA + 16))?;
            a.pxor(xmm1, xmm1)
        });
        let at = g.emit(|a| a.divss(xmm0, xmm1));
        g.traps(Vector::UD, at);
    }),
    case("privilege/x87-error-comes-with-the-next-instruction", "SDM 3A 6.15 #MF", |g| {
        g.long();
        g.write(DATA, &(0x037fu16 & !4).to_le_bytes()); // divide-by-zero unmasked
        g.emit(|a| {
            a.fldcw(word_ptr(DATA))?;
            a.fld1()?;
            a.fldz()?;
            a.fdivp(st1, st0)
        });
        let at = g.raw(&[0x9b]);
        g.traps(Vector::MF, at);
    }),
    case("privilege/alignment-check", "SDM 3A 6.15 #AC", |g| {
        g.user();
        g.state.paging.cr0 |= Cr0::AM;
        g.flags(Rflags::AC);
        let at = g.emit(|a| a.mov(eax, dword_ptr(USER_DATA + 1)));
        g.faults(Vector::AC, 0, at);
    }),
    case("privilege/no-alignment-check-for-supervisors", "SDM 3A 6.15 #AC", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::AM;
        g.flags(Rflags::AC);
        g.emit(|a| a.mov(eax, dword_ptr(DATA + 1)));
    }),
    case("privilege/movaps-misaligned", "SDM 2B MOVAPS", |g| {
        g.long();
        let at = g.emit(|a| a.movaps(xmm0, xmmword_ptr(DATA + 8)));
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/cmpxchg16b-misaligned", "SDM 2A CMPXCHG16B", |g| {
        g.long();
        let at = g.emit(|a| a.cmpxchg16b(xmmword_ptr(DATA + 8)));
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/fifteen-bytes-at-the-most", "SDM 2A 2.3.11", |g| {
        g.long();
        g.raw(&[
            0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
            0x90,
        ]);
        let at = g.here();
        g.raw(&[0x66; 15]);
        g.raw(&[0x90]);
        g.faults(Vector::GP, 0, at);
    }),
    undefined!("privilege/ud2", "SDM 2B UD", [0x0f, 0x0b]),
    undefined!("privilege/push-es-in-64-bit-mode", "SDM 2B PUSH", [0x06]),
    undefined!("privilege/daa-in-64-bit-mode", "SDM 2A DAA", [0x27]),
    undefined!("privilege/lock-on-a-register", "SDM 2A LOCK", [0xf0, 0x01, 0xc0]),
    undefined!("privilege/lock-on-mov", "SDM 2A LOCK", [0xf0, 0x89, 0x03]),
    undefined!("privilege/mov-to-cs", "SDM 2B MOV", [0x8e, 0xc8]),
    undefined!("privilege/mov-from-cr1", "SDM 2B MOV CR", [0x0f, 0x20, 0xc8]),
    undefined!("privilege/lea-of-a-register", "SDM 2A LEA", [0x8d, 0xc0]),
    undefined!("privilege/far-jump-in-64-bit-mode", "SDM 2A JMP", [0xea, 0, 0, 0, 0, 8, 0]),
    undefined!("privilege/xgetbv-without-osxsave", "SDM 2B XGETBV", [0x0f, 0x01, 0xd0]),
    undefined!("privilege/into-in-64-bit-mode", "SDM 2A INT n", [0xce]),
    undefined!("privilege/rsm-outside-smm", "SDM 2B RSM", [0x0f, 0xaa]),
    undefined!("privilege/xsave-without-osxsave", "SDM 2B XSAVE", [0x0f, 0xae, 0x23]),
    forbidden!("privilege/invpcid", "SDM 2A INVPCID", |a| a.invpcid(rax, xmmword_ptr(USER_DATA))),
    forbidden!("privilege/rdpmc-without-pce", "SDM 2B RDPMC", |a| a.rdpmc()),
    case("privilege/xsetbv", "SDM 2B XSETBV", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.emit(|a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, 3)?;
            a.xsetbv()?;
            a.xor(eax, eax)?;
            a.xgetbv()
        });
        g.want_reg(RAX, 3);
    }),
    case("privilege/xsetbv-must-keep-x87", "SDM 2B XSETBV", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.emit(|a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, 2)
        });
        let at = g.emit(|a| a.xsetbv());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/xsetbv-of-avx-without-sse", "SDM 2B XSETBV", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.emit(|a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, 5)
        });
        let at = g.emit(|a| a.xsetbv());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/xsetbv-in-user-code", "SDM 2B XSETBV", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        let at = g.emit(|a| a.xsetbv());
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/reserved-mxcsr-bit", "SDM 2A LDMXCSR", |g| {
        g.long();
        g.poke32(DATA, 0x1_1f80);
        let at = g.emit(|a| a.ldmxcsr(dword_ptr(DATA)));
        g.faults(Vector::GP, 0, at);
    }),
    case("privilege/clts-clears-ts", "SDM 2A CLTS", |g| {
        g.long();
        g.state.paging.cr0 |= Cr0::TS;
        g.emit(|a| a.clts());
        g.want("CR0.TS", |e| (e.state.paging.cr0 & Cr0::TS).bits(), 0);
    }),
    case("privilege/in-and-ins-read-the-port", "SDM 2A IN, INS", |g| {
        g.long();
        g.emit(|a| {
            a.mov(edx, 0x1234)?;
            a.in_(ax, dx)?;
            a.mov(edi, DATA as u32)?;
            a.mov(ecx, 2)
        });
        g.emit(|a| a.rep().insw());
        g.want("AX", |e| e.reg(RAX) & 0xffff, 0x1234);
        g.want_mem(DATA, 4, 0x1234_1234);
    }),
    case("privilege/outs-writes-the-port", "SDM 2B OUTS", |g| {
        g.long();
        g.write(DATA, &[1, 2, 3]);
        g.emit(|a| {
            a.mov(edx, u32::from(REPORT))?;
            a.mov(esi, DATA as u32)?;
            a.mov(ecx, 3)
        });
        g.emit(|a| a.rep().outsb());
        g.want_reports(&[1, 2, 3]);
    }),
];
