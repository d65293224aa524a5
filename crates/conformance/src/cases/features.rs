//! What CPUID's feature bits promise, one case a bit, where no other group has it
//! (`xtask/tests/cpuid.rs` names them all).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use crate::paging::{Format, pte};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr0, Cr4, Rflags};
use x86::state::gpr::{RAX, RBX, RCX, RDX};
use x86::state::{Seg, Segment};

/// RAX becomes the register.
fn read_msr(a: &mut CodeAssembler, msr: u32) -> Result<(), IcedError> {
    a.mov(ecx, msr)?;
    a.rdmsr()?;
    a.shl(rdx, 32)?;
    a.or(rax, rdx)
}

fn write_msr(a: &mut CodeAssembler, msr: u32, value: u64) -> Result<(), IcedError> {
    a.mov(ecx, msr)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// 64-bit supervisor code that writes the register and reads it back.
fn keeps(g: &mut Guest, msr: u32, value: u64) {
    g.long();
    g.emit(|a| write_msr(a, msr, value));
    g.emit(|a| read_msr(a, msr));
    g.want_reg(RAX, value);
}

fn refuses(g: &mut Guest, msr: u32, value: u64) {
    g.long();
    g.emit(|a| {
        a.mov(ecx, msr)?;
        a.mov(eax, value as u32)?;
        a.mov(edx, (value >> 32) as u32)
    });
    let at = g.emit(|a| a.wrmsr());
    g.faults(Vector::GP, 0, at);
}

/// 64-bit code with x87, SSE and AVX state enabled.
fn with_avx(g: &mut Guest) {
    g.long();
    g.state.paging.cr4 |= Cr4::OSXSAVE;
    g.state.xcr0 = 7;
}

/// An image of the x87 unit at DATA after `code`, 2.0 at DATA + 1000H.
fn x87_image(g: &mut Guest, code: fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    g.poke(DATA + 0x1000, 2f64.to_bits());
    g.emit(|a| a.fninit());
    g.emit(code);
    g.emit(|a| a.fxsave64(ptr(DATA)));
}

const FOP: u64 = DATA + 6;
const FIP: u64 = DATA + 8;
const FDP: u64 = DATA + 16;
const PAGE_1G: u64 = 1 << 30;

pub(super) const CASES: &[Case] = &[
    case(
        "features/x87-data-pointer-tells-of-no-instruction-without-exception",
        "SDM 1 8.1.8",
        |g| {
            g.long();
            x87_image(g, |a| a.fld(qword_ptr(DATA + 0x1000)));
            g.want_mem(FDP, 8, 0);
            g.want_mem(FOP, 2, 0);
            g.want("FIP is set", |e| (e.mem(FIP, 8) != 0).into(), 1);
        },
    ),
    case("features/x87-data-pointer-tells-of-an-unmasked-exception", "SDM 1 8.1.8", |g| {
        g.long();
        g.write(DATA + 0x1008, &(0x037fu16 & !4).to_le_bytes()); // divide-by-zero unmasked
        x87_image(g, |a| {
            a.fldcw(word_ptr(DATA + 0x1008))?;
            a.fldz()?;
            a.fdivr(qword_ptr(DATA + 0x1000)) // DC /7
        });
        g.want_mem(FDP, 8, DATA + 0x1000);
        g.want("FOP", |e| e.mem(FOP, 2) & 0x7f8, 0x438);
    }),
    case("features/x87-selectors-read-as-zero", "SDM 1 8.1.8", |g| {
        g.protected();
        g.poke(DATA + 0x1000, 2f64.to_bits());
        g.write(DATA + 0x1008, &(0x037fu16 & !4).to_le_bytes());
        g.emit(|a| {
            a.fninit()?;
            a.fldcw(word_ptr(DATA + 0x1008))?;
            a.fldz()?;
            a.fdivr(qword_ptr(DATA + 0x1000))?;
            a.fxsave(ptr(DATA))
        });
        g.want_mem(DATA + 12, 2, 0); // FCS
        g.want_mem(DATA + 20, 2, 0); // FDS
        g.want_mem(FDP, 4, DATA + 0x1000);
    }),
    case("features/vme-lets-virtual-8086-code-clear-its-own-flag", "SDM 3B 20.3", |g| {
        g.protected();
        g.state.paging.cr4 |= Cr4::VME;
        let selector = (USER_CODE >> 4) as u16;
        let segment = Segment { base: USER_CODE, limit: 0xffff, selector, access: 0x00f3 };
        g.state.seg = [segment; 6];
        g.state.cpl = 3;
        g.state.rip = 0;
        g.flags(Rflags::VM | Rflags::VIF | Rflags::IF);
        g.seek(USER_CODE, 16);
        g.raw(&[0xfa, 0xf4]); // CLI; HLT, which ends it
        g.delivers(Vector::GP.0);
        g.want_pushed(Rflags::VIF, false);
        g.want_pushed(Rflags::IF, true);
    }),
    case("features/pvi-lets-user-code-clear-its-own-flag", "SDM 3B 20.4", |g| {
        g.protected_user();
        g.state.paging.cr4 |= Cr4::PVI;
        g.flags(Rflags::VIF | Rflags::IF);
        g.emit(|a| a.cli());
        g.want_pushed(Rflags::VIF, false);
        g.want_pushed(Rflags::IF, true);
    }),
    case("features/rdtsc-counts", "SDM 2B RDTSC", |g| {
        g.long();
        g.emit(|a| {
            a.rdtsc()?;
            a.mov(ebx, eax)?;
            a.mov(ecx, edx)?;
            a.rdtsc()?;
            a.sub(eax, ebx)?;
            a.sbb(edx, ecx)
        });
        g.want_flag(Rflags::CF, false);
    }),
    case("features/mce-can-be-enabled", "SDM 3A 2.5", |g| {
        g.long();
        g.emit(|a| {
            a.mov(rax, cr4)?;
            a.or(eax, Cr4::MCE.bits() as i32)?;
            a.mov(cr4, rax)?;
            a.mov(rax, cr4)
        });
        g.want("CR4.MCE", |e| e.reg(RAX) & Cr4::MCE.bits(), Cr4::MCE.bits());
    }),
    case("features/mca-has-no-banks", "SDM 3B 15.3.1", |g| {
        g.long();
        g.emit(|a| read_msr(a, 0x179));
        g.want("MCG_CAP's count", |e| e.reg(RAX) & 0xff, 0);
    }),
    case("features/mtrr-pairs-are-as-many-as-mtrrcap-tells", "SDM 3A 11.11.1", |g| {
        g.long();
        g.emit(|a| read_msr(a, 0xfe));
        // The last pair's base.
        g.emit(|a| {
            a.movzx(ecx, al)?;
            a.lea(ecx, ptr(rcx + rcx + 0x1fe))?;
            a.mov(eax, 0x1000_0006)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.xor(eax, eax)?;
            a.rdmsr()
        });
        g.want_reg(RAX, 0x1000_0006);
    }),
    case("features/mtrr-beyond-the-last-pair", "SDM 3A 11.11.1", |g| {
        g.long();
        g.emit(|a| read_msr(a, 0xfe));
        g.emit(|a| {
            a.movzx(ecx, al)?;
            a.lea(ecx, ptr(rcx + rcx + 0x200))
        });
        let at = g.emit(|a| a.rdmsr());
        g.faults(Vector::GP, 0, at);
    }),
    case("features/pat-keeps-memory-types", "SDM 3A 11.12.2", |g| {
        keeps(g, 0x277, 0x0007_0406_0007_0406);
    }),
    case("features/pse-36-addresses-lie-beyond-4-gib", "SDM 3A 4.3", |g| {
        g.protected_paged(Format::Legacy);
        // Bits 13 to 20 of the entry are bits 32 to 39 of the address: nothing is there.
        g.paged().map_large(PLAY, 1 << 13, pte::KERNEL);
        g.emit(|a| a.mov(eax, dword_ptr(PLAY)));
        g.want("EAX", |e| e.reg(RAX) & 0xffff_ffff, 0xffff_ffff);
    }),
    case("features/1-gib-pages", "SDM 3A 4.5.4", |g| {
        g.long();
        g.map(3 * PAGE_1G, FRAME, pte::KERNEL);
        let pdpte = g.paged().entry(3 * PAGE_1G, 3);
        g.paged().set(pdpte, pte::KERNEL | pte::PS);
        g.emit(|a| {
            a.mov(ebx, 3 * PAGE_1G as u32)?;
            a.mov(dword_ptr(rbx + DATA), 0x5a)
        });
        g.want_mem(DATA, 4, 0x5a);
    }),
    case("features/rdrand-gives-numbers", "SDM 2B RDRAND", |g| {
        g.long();
        g.emit(|a| {
            a.rdrand(rax)?;
            a.setc(bl)?;
            a.rdrand(rcx)?;
            a.setc(bh)?;
            a.movzx(ebx, bx)
        });
        g.want_reg(RBX, 0x101);
        g.want("two numbers are the same", |e| (e.reg(RAX) == e.reg(RCX)).into(), 0);
    }),
    case("features/rdseed-gives-numbers", "SDM 2B RDSEED", |g| {
        g.long();
        // It may have none for a while.
        g.emit(|a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.rdseed(rax)?;
            a.jnc(again)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.rdseed(rcx)?;
            a.jnc(again)
        });
        g.want("two numbers are the same", |e| (e.reg(RAX) == e.reg(RCX)).into(), 0);
    }),
    case("features/hypervisor-leaf-names-one", "Linux Documentation/virt/kvm/x86/cpuid.rst", |g| {
        g.long();
        g.emit(|a| {
            a.mov(eax, 0x4000_0000u32)?;
            a.cpuid()
        });
        g.want_reg(RAX, 0x4000_0001);
        g.want_reg(RBX, 0x4b4d_564b); // "KVMK"
        g.want_reg(RCX, 0x564b_4d56); // "VMKV"
        g.want_reg(RDX, 0x4d); // "M"
    }),
    case("features/tsc-adjust-moves-the-tsc", "SDM 3B 17.17.3", |g| {
        g.long();
        g.emit(|a| {
            a.rdtsc()?;
            a.mov(ebx, edx)
        });
        g.emit(|a| write_msr(a, 0x3b, 1 << 40));
        g.emit(|a| {
            a.rdtsc()?;
            a.sub(edx, ebx)?;
            a.shr(edx, 8)?;
            a.mov(eax, edx)
        });
        g.want_reg(RAX, 1);
    }),
    case("features/rdtscp-and-rdpid-read-tsc-aux", "SDM 2B RDTSCP, RDPID", |g| {
        g.long();
        g.emit(|a| write_msr(a, 0xc000_0103, 0x1234_5678));
        g.emit(|a| {
            a.rdtscp()?;
            a.rdpid(rbx)
        });
        g.want_reg(RCX, 0x1234_5678);
        g.want_reg(RBX, 0x1234_5678);
    }),
    case("features/spec-ctrl-has-ibrs", "SDM 4 2.1", |g| keeps(g, 0x48, 1)),
    case("features/spec-ctrl-has-stibp", "SDM 4 2.1", |g| keeps(g, 0x48, 2)),
    case("features/spec-ctrl-has-ssbd", "SDM 4 2.1", |g| keeps(g, 0x48, 4)),
    case("features/spec-ctrl-has-bhi-dis-s", "SDM 4 2.1", |g| keeps(g, 0x48, 1 << 10)),
    case("features/spec-ctrl-has-no-more", "SDM 4 2.1", |g| refuses(g, 0x48, 8)),
    case("features/pred-cmd-takes-ibpb", "SDM 4 2.1", |g| {
        g.long();
        g.emit(|a| write_msr(a, 0x49, 1));
    }),
    case("features/flush-cmd-takes-l1d-flush", "SDM 4 2.1", |g| {
        g.long();
        g.emit(|a| write_msr(a, 0x10b, 1));
    }),
    case("features/flush-cmd-takes-no-more", "SDM 4 2.1", |g| refuses(g, 0x10b, 2)),
    case("features/arch-capabilities-can-be-read-only", "SDM 4 2.1", |g| refuses(g, 0x10a, 0)),
    case("features/arch-capabilities-tell-what-need-not-be-mitigated", "SDM 4 2.1", |g| {
        g.long();
        g.emit(|a| read_msr(a, 0x10a));
        g.want("RDCL_NO and MDS_NO", |e| e.reg(RAX) & 0x21, 0x21);
    }),
    case("features/xsaveopt-leaves-what-is-initial", "SDM 1 13.9", |g| {
        with_avx(g);
        g.poke(DATA + 576, 0x1111);
        g.emit(|a| {
            a.vzeroall()?;
            a.mov(eax, 4)?;
            a.xor(edx, edx)?;
            a.xsaveopt(ptr(DATA))
        });
        g.want_mem(DATA + 576, 8, 0x1111);
        g.want_mem(DATA + 512, 8, 0);
    }),
    case("features/xsavec-compacts", "SDM 1 13.10", |g| {
        with_avx(g);
        g.emit(|a| {
            a.pcmpeqd(xmm0, xmm0)?;
            a.vinsertf128(ymm0, ymm0, xmm0, 1)?;
            a.mov(eax, 6)?;
            a.xor(edx, edx)?;
            a.xsavec(ptr(DATA))
        });
        g.want_mem(DATA + 512, 8, 6);
        g.want_mem(DATA + 520, 8, 1 << 63 | 6);
        g.want_mem(DATA + 576, 8, u64::MAX);
    }),
    case("features/xgetbv-1-tells-what-is-in-use", "SDM 1 13.3", |g| {
        with_avx(g);
        g.emit(|a| {
            a.vzeroall()?;
            a.pcmpeqd(xmm0, xmm0)?;
            a.mov(ecx, 1)?;
            a.xgetbv()
        });
        g.want("XINUSE of SSE and AVX", |e| e.reg(RAX) & 6, 2);
    }),
    case("features/xsaves-and-xrstors-come-back", "SDM 1 13.11", |g| {
        with_avx(g);
        g.emit(|a| {
            a.pcmpeqd(xmm3, xmm3)?;
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.xsaves(ptr(DATA))?;
            a.pxor(xmm3, xmm3)?;
            a.xrstors(ptr(DATA))?;
            a.movq(rax, xmm3)
        });
        g.want_reg(RAX, u64::MAX);
        g.want_mem(DATA + 520, 8, 1 << 63 | 7);
    }),
    case("features/xsaves-is-the-supervisors", "SDM 2B XSAVES", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        let at = g.emit(|a| a.xsaves(ptr(USER_DATA)));
        g.faults(Vector::GP, 0, at);
    }),
    case("features/xsave-to-code-is-gp-whatever-its-page", "SDM 2B XSAVE", |g| {
        g.protected_paged(Format::Legacy);
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.state.paging.cr0 -= Cr0::TS;
        // XSAVE CS:[PLAY], which is not mapped
        let at = g.raw(&[0x2e, 0x0f, 0xae, 0x25, 0, 0, 0, 0x40]);
        g.faults(Vector::GP, 0, at);
    }),
    case("features/erms-and-fsrm-move-across-pages", "SDM 1 7.3.9.3", |g| {
        g.long();
        g.write(DATA, &[0xa5; 0x1800]);
        g.emit(|a| {
            a.mov(esi, DATA as u32)?;
            a.mov(edi, DATA as u32 + 0x2800)?;
            a.mov(ecx, 0x1800)
        });
        g.emit(|a| a.rep().movsb());
        g.want_reg(RCX, 0);
        g.want_mem(DATA + 0x2800 + 0x17f8, 8, 0xa5a5_a5a5_a5a5_a5a5);
    }),
    case("features/nx-and-efer-nxe", "SDM 4 2.1", |g| {
        g.long();
        g.emit(|a| read_msr(a, 0xc000_0080));
        g.want("EFER.NXE", |e| e.reg(RAX) & 1 << 11, 1 << 11);
    }),
    case("features/osxsave-shows-cr4", "SDM 2A CPUID", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.emit(|a| {
            a.mov(eax, 1)?;
            a.cpuid()
        });
        g.want("ECX bit 27", |e| e.reg(RCX) >> 27 & 1, 1);
    }),
    case("features/fs-selects-a-base-of-its-own-by-rdfsbase", "SDM 2B RDFSBASE", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::FSGSBASE;
        g.state.seg[Seg::Fs as usize].base = 0x1234_5000;
        g.emit(|a| a.rdfsbase(rax));
        g.want_reg(RAX, 0x1234_5000);
    }),
];
