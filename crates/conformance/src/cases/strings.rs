//! String instructions that overwrite themselves, and what 32-bit addresses make of 64-bit
//! registers (SDM vol. 2, REP).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use crate::paging::pte;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::Rflags;
use x86::state::gpr::{RCX, RDI, RSI};

/// NOP, which a REP prefix becomes.
const NOP: u8 = 0x90;

/// `instruction` (two bytes, the first REP) stores NOPs from `before` bytes before itself on,
/// `count` elements at the most: the store that makes its prefix a NOP is the last of the
/// repetition, and the bare instruction follows once, unless that store has reached it, too.
fn overwrites_itself(g: &mut Guest, instruction: [u8; 2], before: u64, size: u64, count: u64) {
    let at = CODE + 0x400;
    repeats_from(g, at, at - before, count);
    g.seek(at, 64);
    g.raw(&instruction);
    g.raw(&[NOP; 32]);
    let done = before / size + 1;
    let bare = u64::from(size == 1);
    g.want_reg(RCX, count - done);
    g.want_reg(RDI, at - before + (done + bare) * size);
}

/// Goes to the 64-bit code at `at` with `count` in RCX, RDI at `to`, RSI at NOPs, and DX a port
/// that reads as one.
fn repeats_from(g: &mut Guest, at: u64, to: u64, count: u64) {
    g.long();
    g.write(DATA, &[NOP; 0x1000]);
    g.emit(|a| {
        a.mov(rcx, count)?;
        a.mov(rsi, DATA)?;
        a.mov(rdi, to)?;
        a.mov(rax, u64::from_le_bytes([NOP; 8]))?;
        a.mov(edx, u32::from(NOP))?;
        a.jmp(at)
    });
}

/// The same where the stores reach the second of its bytes first, which lies on another page: REP
/// NOP is PAUSE.
fn overwrites_its_end(g: &mut Guest, instruction: [u8; 2]) {
    let at = CODE + 0xfff;
    repeats_from(g, at, at + 1, 6);
    g.seek(at, 64);
    g.raw(&instruction);
    g.raw(&[NOP; 8]);
    g.want_reg(RCX, 5);
    g.want_reg(RDI, at + 2);
}

/// `code`, repeated with 32-bit addresses, with upper halves in its registers and `count` in the
/// lower half of RCX.
fn upper_halves(g: &mut Guest, count: u64, code: &[u8]) -> u64 {
    g.long();
    g.emit(|a| {
        a.mov(rcx, 0xcccc_cccc_0000_0000 | count)?;
        a.mov(rsi, 0xaaaa_aaaa_0000_0000 | PLAY)?;
        a.mov(rdi, 0xbbbb_bbbb_0000_0000 | PLAY)
    });
    g.raw(code)
}

/// Expects RSI and RDI, their upper halves as given.
fn want_upper(g: &mut Guest, source: u64, destination: u64) {
    g.want_reg(RSI, source << 32 | PLAY);
    g.want_reg(RDI, destination << 32 | PLAY);
}

pub(super) const CASES: &[Case] = &[
    case("strings/stosb-overwrites-itself", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0xaa], 0, 1, 6);
    }),
    case("strings/stosb-overwrites-itself-after-a-run", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0xaa], 300, 1, 1000);
    }),
    case("strings/stosd-overwrites-itself-after-a-run", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0xab], 64, 4, 1000);
    }),
    case("strings/movsb-overwrites-itself", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0xa4], 0, 1, 6);
    }),
    case("strings/movsb-overwrites-itself-after-a-run", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0xa4], 300, 1, 1000);
    }),
    case("strings/insb-overwrites-itself", "SDM 3A 11.6", |g| {
        overwrites_itself(g, [0xf3, 0x6c], 8, 1, 20);
    }),
    case("strings/stosb-overwrites-its-end-on-another-page", "SDM 3A 11.6", |g| {
        overwrites_its_end(g, [0xf3, 0xaa]);
    }),
    case("strings/movsb-overwrites-its-end-on-another-page", "SDM 3A 11.6", |g| {
        overwrites_its_end(g, [0xf3, 0xa4]);
    }),
    case("strings/stosb-overwrites-itself-downwards", "SDM 3A 11.6", |g| {
        let at = CODE + 0x400;
        g.flags(Rflags::DF);
        repeats_from(g, at, at + 9, 20);
        g.flags(Rflags::DF);
        g.seek(at, 64);
        g.raw(&[0xf3, 0xaa]);
        g.raw(&[NOP; 8]);
        // The opcode goes first: PAUSE ends it.
        g.want_reg(RCX, 20 - 9);
        g.want_reg(RDI, at);
    }),
    case("strings/stosb-through-another-mapping-overwrites-itself", "SDM 3A 11.6", |g| {
        let at = CODE + 0x400;
        repeats_from(g, at, PLAY + 0x400, 6);
        g.map(PLAY, CODE, pte::KERNEL);
        g.seek(at, 64);
        g.raw(&[0xf3, 0xaa]);
        g.raw(&[NOP; 8]);
        g.want_reg(RCX, 5);
        g.want_reg(RDI, PLAY + 0x402);
    }),
    case("strings/stosb-overwrites-itself-in-32-bit-code", "SDM 3A 11.6", |g| {
        g.protected();
        let at = CODE + 0x100;
        g.emit(|a| {
            a.mov(ecx, 6)?;
            a.mov(edi, at as u32)?;
            a.mov(eax, u32::from(NOP))?;
            a.jmp(at)
        });
        g.seek(at, 32);
        g.raw(&[0xf3, 0xaa]);
        g.raw(&[NOP; 8]);
        g.want_reg(RCX, 5);
        g.want_reg(RDI, at + 2);
    }),
    case("strings/32-bit-movs-of-nothing", "SDM 2B REP; Intel's way", |g| {
        upper_halves(g, 0, &[0x67, 0xf3, 0xa4]);
        g.want_reg(RCX, 0);
        want_upper(g, 0, 0);
    }),
    case("strings/32-bit-stos-of-nothing", "SDM 2B REP; Intel's way", |g| {
        upper_halves(g, 0, &[0x67, 0xf3, 0x48, 0xab]);
        g.want_reg(RCX, 0);
        want_upper(g, 0xaaaa_aaaa, 0);
    }),
    case("strings/32-bit-lods-of-nothing", "SDM 2B REP; Intel's way", |g| {
        upper_halves(g, 0, &[0x67, 0xf3, 0xac]);
        g.want_reg(RCX, 0);
        want_upper(g, 0xaaaa_aaaa, 0xbbbb_bbbb);
    }),
    case("strings/32-bit-cmps-of-nothing", "SDM 2B REP; Intel's way", |g| {
        upper_halves(g, 0, &[0x67, 0xf2, 0xa6]);
        g.want_reg(RCX, 0);
        want_upper(g, 0xaaaa_aaaa, 0xbbbb_bbbb);
    }),
    case("strings/64-bit-movs-of-nothing", "SDM 2B REP", |g| {
        g.long();
        g.emit(|a| {
            a.xor(ecx, ecx)?;
            a.mov(rsi, u64::MAX)?;
            a.mov(rdi, u64::MAX)?;
            a.rep().movsb()
        });
        g.want_reg(RSI, u64::MAX);
        g.want_reg(RDI, u64::MAX);
    }),
    case("strings/32-bit-movs-that-faults-at-once", "SDM 2B REP; Intel's way", |g| {
        let at = upper_halves(g, 3, &[0x67, 0xf3, 0xa4]);
        g.page_faults(0, PLAY, at);
        g.want_reg(RCX, 3);
        want_upper(g, 0, 0);
    }),
    case("strings/32-bit-movs-without-rep-that-faults", "SDM 2B MOVS", |g| {
        let at = upper_halves(g, 3, &[0x67, 0xa4]);
        g.traps(Vector::PF, at);
        g.want_reg(RCX, 0xcccc_cccc_0000_0003);
        want_upper(g, 0xaaaa_aaaa, 0xbbbb_bbbb);
    }),
];
