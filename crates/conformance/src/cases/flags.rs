//! Status flags in the frame of a fault, before code that replaces them (SDM vol. 3, 6.5: a fault's
//! frame has the state before the instruction).

use super::case;
use crate::Case;
use crate::guest::Guest;
use crate::layout::*;
use crate::paging::pte;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const STATUS: u64 = 0x8d5;
const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// What `code` leaves is in the frame of the write that faults behind it, though nothing reads it.
fn shows(g: &mut Guest, flags: u64, code: fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    g.long();
    g.poke(DATA, 0x8000_0000);
    g.emit(|a| {
        a.mov(ebx, PLAY as u32)?;
        a.mov(edi, DATA as u32)
    });
    g.emit(code);
    let at = g.emit(|a| a.mov(dword_ptr(rbx), edx));
    g.emit(|a| a.xor(edx, edx));
    g.page_faults(2, PLAY, at);
    want(g, flags);
}

fn want(g: &mut Guest, flags: u64) {
    g.want("status flags in the frame", |e| e.pushed().flags & STATUS, flags);
}

pub(super) const CASES: &[Case] = &[
    case("flags/of-a-sum", "SDM 3A 6.5", |g| {
        shows(g, OF | SF | AF | PF, |a| {
            a.mov(edx, 0x7fff_ffff)?;
            a.mov(eax, 1)?;
            a.add(edx, eax)
        });
    }),
    case("flags/of-a-sum-of-bytes", "SDM 3A 6.5", |g| {
        shows(g, OF | CF | ZF | PF, |a| {
            a.mov(edx, 0x80)?;
            a.add(dl, -128)
        });
    }),
    case("flags/of-a-difference", "SDM 3A 6.5", |g| {
        shows(g, SF | AF | PF | CF, |a| {
            a.xor(edx, edx)?;
            a.sub(rdx, 1)
        });
    }),
    case("flags/of-a-comparison", "SDM 3A 6.5", |g| {
        shows(g, ZF | PF, |a| {
            a.mov(edx, 5)?;
            a.mov(ecx, edx)?;
            a.cmp(edx, ecx)
        });
    }),
    case("flags/of-a-test", "SDM 3A 6.5", |g| {
        shows(g, SF | PF, |a| {
            a.mov(edx, -1)?;
            a.test(edx, 0x8000_0000u32 as i32)
        });
    }),
    case("flags/of-a-conjunction-with-memory", "SDM 3A 6.5", |g| {
        shows(g, SF | PF, |a| {
            a.mov(edx, -1)?;
            a.and(edx, dword_ptr(rdi))
        });
    }),
    case("flags/of-a-negation", "SDM 3A 6.5", |g| {
        shows(g, SF | AF | PF | CF, |a| {
            a.mov(edx, 1)?;
            a.neg(edx)
        });
    }),
    case("flags/behind-loads-and-stores", "SDM 3A 6.5", |g| {
        shows(g, OF | SF | AF | PF, |a| {
            a.mov(edx, 0x7fff_ffff)?;
            a.add(edx, 1)?;
            a.mov(dword_ptr(rdi + 8), edx)?;
            a.mov(rcx, qword_ptr(rdi))?;
            a.push(rcx)?;
            a.pop(rsi)
        });
    }),
    case("flags/behind-a-branch", "SDM 3A 6.5", |g| {
        shows(g, ZF | PF, |a| {
            let mut over = a.create_label();
            a.mov(edx, 5)?;
            a.cmp(edx, 5)?;
            a.je(over)?;
            a.ud2()?;
            a.set_label(&mut over)?;
            a.mov(ecx, dword_ptr(rdi))
        });
    }),
    case("flags/where-a-range-ends-on-an-absent-page", "SDM 3A 6.5", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        g.emit(|a| {
            a.mov(ebx, PLAY as u32 + 0xff8)?;
            a.mov(edx, 0x7fff_ffff)?;
            a.add(edx, 1)?;
            a.mov(dword_ptr(rbx), edx)
        });
        let at = g.emit(|a| a.mov(dword_ptr(rbx + 8), edx));
        g.emit(|a| a.xor(edx, edx));
        g.page_faults(2, PLAY + 0x1000, at);
        want(g, OF | SF | AF | PF);
    }),
];
