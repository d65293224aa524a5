//! Invalidation (SDM vol. 3, 4.10): what must be seen after each operation. What may be cached is
//! not tested.

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::{DATA, FRAME, PLAY};
use crate::paging::{Format, Tables, pte};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::Cr4;
use x86::state::gpr::{RAX, RBX, RCX};

/// The play page reads 1, its entry is then pointed to a frame that holds 2, `invalidate` runs, and
/// it must read 2.
fn remap(
    g: &mut Guest,
    flags: u64,
    invalidate: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    g.poke(FRAME, 1);
    g.poke(FRAME + 0x1000, 2);
    g.map(PLAY, FRAME, pte::KERNEL | flags);
    let entry = g.paged().entry(PLAY, 1);
    g.emit(|a| {
        a.mov(eax, dword_ptr(PLAY))?;
        a.mov(dword_ptr(entry), ((FRAME + 0x1000) | pte::KERNEL | flags) as u32)?;
        invalidate(a)?;
        a.mov(ebx, dword_ptr(PLAY))
    });
    g.want_reg(RAX, 1);
    g.want_reg(RBX, 2);
}

/// INVPCID of `kind` with a descriptor for the play page in PCID 0.
fn invpcid(a: &mut CodeAssembler, kind: u32) -> Result<(), IcedError> {
    a.mov(dword_ptr(DATA), 0)?;
    a.mov(dword_ptr(DATA + 8), PLAY as u32)?;
    a.mov(ecx, kind)?;
    a.invpcid(rcx, xmmword_ptr(DATA))
}

pub(super) const CASES: &[Case] = &[
    case("tlb/invlpg", "SDM 3A 4.10.4.1", |g| {
        g.long();
        remap(g, 0, |a| a.invlpg(byte_ptr(PLAY + 0x123)));
    }),
    case("tlb/invlpg-drops-global-pages", "SDM 3A 4.10.4.1", |g| {
        g.long();
        remap(g, pte::G, |a| a.invlpg(byte_ptr(PLAY)));
    }),
    case("tlb/invlpg-of-a-2m-page", "SDM 3A 4.10.4.1", |g| {
        g.long();
        g.poke(0x40_0000 + 0x5000, 1);
        g.poke(0x60_0000 + 0x5000, 2);
        g.paged().map_large(PLAY, 0x40_0000, pte::KERNEL);
        let entry = g.paged().entry(PLAY, 2);
        g.emit(|a| {
            a.mov(eax, dword_ptr(PLAY + 0x5000))?;
            a.mov(dword_ptr(entry), (0x60_0000 | pte::KERNEL | pte::PS) as u32)?;
            a.invlpg(byte_ptr(PLAY + 0x10_0000))?;
            a.mov(ebx, dword_ptr(PLAY + 0x5000))
        });
        g.want_reg(RAX, 1);
        g.want_reg(RBX, 2);
    }),
    case("tlb/invlpg-of-a-non-canonical-address-is-a-nop", "SDM 2A INVLPG", |g| {
        g.long();
        g.emit(|a| {
            a.mov(rcx, 0x0000_8000_0000_0000u64)?;
            a.invlpg(byte_ptr(rcx))
        });
    }),
    case("tlb/cr3-load", "SDM 3A 4.10.4.1", |g| {
        g.long();
        remap(g, 0, |a| {
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)
        });
    }),
    case("tlb/cr3-load-in-32-bit-paging", "SDM 3A 4.10.4.1", |g| {
        g.protected_paged(Format::Legacy);
        remap(g, 0, |a| {
            a.mov(ecx, cr3)?;
            a.mov(cr3, ecx)
        });
    }),
    case("tlb/pge-change-drops-global-pages", "SDM 3A 4.10.4.1", |g| {
        g.long();
        remap(g, pte::G, |a| {
            a.mov(rcx, cr4)?;
            a.xor(rcx, Cr4::PGE.bits() as i32)?;
            a.mov(cr4, rcx)?;
            a.xor(rcx, Cr4::PGE.bits() as i32)?;
            a.mov(cr4, rcx)
        });
    }),
    case("tlb/pcid-load-without-bit-63-drops-that-pcid", "SDM 3A 4.10.4.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::PCIDE;
        g.state.paging.cr3 |= 5;
        remap(g, 0, |a| {
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)
        });
        g.want("PCID", |e| e.state.paging.cr3 & 0xfff, 5);
    }),
    case("tlb/bit-63-is-not-stored-in-cr3", "SDM 2B MOV CR", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::PCIDE;
        g.emit(|a| {
            a.mov(rcx, cr3)?;
            a.bts(rcx, 63)?;
            a.mov(cr3, rcx)?;
            a.mov(rbx, cr3)
        });
        let root = g.state.paging.cr3;
        g.want_reg(RBX, root);
    }),
    case("tlb/each-pcid-has-its-own-translations", "SDM 3A 4.10.1", |g| {
        g.long();
        g.state.paging.cr4 |= Cr4::PCIDE;
        g.poke(FRAME, 1);
        g.poke(FRAME + 0x1000, 2);
        let mut other = Tables::identity_at(&g.ram, Format::Long, 0x18_0000);
        other.map(PLAY, FRAME + 0x1000, pte::KERNEL);
        g.map(PLAY, FRAME, pte::KERNEL);
        let (one, two) = (g.state.paging.cr3 | 1, other.root() | 2);
        g.state.paging.cr3 = one;
        g.emit(|a| {
            a.mov(eax, dword_ptr(PLAY))?;
            a.mov(rcx, two | 1 << 63)?;
            a.mov(cr3, rcx)?;
            a.mov(ebx, dword_ptr(PLAY))?;
            a.mov(rcx, one | 1 << 63)?;
            a.mov(cr3, rcx)?;
            a.mov(ecx, dword_ptr(PLAY))
        });
        g.want_reg(RAX, 1);
        g.want_reg(RBX, 2);
        g.want_reg(RCX, 1);
    }),
    case("tlb/invpcid-address", "SDM 2A INVPCID", |g| {
        g.long();
        remap(g, 0, |a| invpcid(a, 0));
    }),
    case("tlb/invpcid-context", "SDM 2A INVPCID", |g| {
        g.long();
        remap(g, 0, |a| invpcid(a, 1));
    }),
    case("tlb/invpcid-all-with-globals", "SDM 2A INVPCID", |g| {
        g.long();
        remap(g, pte::G, |a| invpcid(a, 2));
    }),
    case("tlb/invpcid-all", "SDM 2A INVPCID", |g| {
        g.long();
        remap(g, 0, |a| invpcid(a, 3));
    }),
    case("tlb/invpcid-bad-type", "SDM 2A INVPCID", |g| {
        g.long();
        g.emit(|a| a.mov(ecx, 4));
        let at = g.emit(|a| a.invpcid(rcx, xmmword_ptr(DATA)));
        g.faults(Vector::GP, 0, at);
    }),
    case("tlb/absent-entries-are-not-cached", "SDM 3A 4.10.2.3", |g| {
        g.long();
        g.map(PLAY, FRAME, 0);
        let entry = g.paged().entry(PLAY, 1);
        g.handler(Vector::PF, |a| {
            a.mov(dword_ptr(entry), (FRAME | pte::KERNEL) as u32)?;
            a.inc(ecx)?;
            a.add(rsp, 8)?;
            a.iretq()
        });
        g.emit(|a| a.mov(dword_ptr(PLAY), 0x55));
        g.want_mem(FRAME, 4, 0x55);
        g.want_reg(RCX, 1);
    }),
    case("tlb/a-page-fault-drops-the-faulting-page", "SDM 3A 4.10.4.1", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::P);
        let entry = g.paged().entry(PLAY, 1);
        g.handler(Vector::PF, |a| {
            a.or(dword_ptr(entry), pte::RW as i32)?;
            a.inc(ecx)?;
            a.add(rsp, 8)?;
            a.iretq()
        });
        g.emit(|a| {
            a.mov(eax, dword_ptr(PLAY))?; // caches the read-only translation
            a.mov(dword_ptr(PLAY), 0x55)
        });
        g.want_mem(FRAME, 4, 0x55);
        g.want_reg(RCX, 1);
    }),
];
