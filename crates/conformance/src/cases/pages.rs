//! Code that goes on on another page: which one that is, the page tables say at each jump (SDM vol.
//! 3, 4.10).

use super::case;
use crate::Case;
use crate::guest::{GATE_USER, Guest, INTERRUPT_GATE};
use crate::layout::*;
use crate::paging::{Format, Tables, pte};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::{Cr4, Rflags};
use x86::state::gpr::{RBX, RDX};

/// A second place for the page that jumps.
const PLAY2: u64 = PLAY + 0x10_0000;
/// Jumps to the next page, with CF set.
const JUMPS: u64 = FRAME;
/// Adds 1 to EBX, and CF to EDX.
const ADDS_ONE: u64 = FRAME + 0x1000;
/// Adds 100H to EBX, and CF to EDX.
const ADDS_MANY: u64 = FRAME + 0x2000;
/// Calls in a row: more than a processor needs to learn the way by heart, even where it knew
/// another one.
const CALLS: u64 = 80;
const ONE: u64 = CALLS;
const MANY: u64 = CALLS << 8;

/// The pages' code, and the first two in a row in the play area.
fn pages(g: &mut Guest, flags: u64) {
    g.write(JUMPS, &[0xf9, 0xe9, 0xfa, 0x0f, 0, 0]);
    // adc edx, 0 comes first: it takes the flag along.
    g.write(ADDS_ONE, &[0x83, 0xd2, 0, 0x83, 0xc3, 1, 0xc3]);
    g.write(ADDS_MANY, &[0x83, 0xd2, 0, 0x81, 0xc3, 0, 1, 0, 0, 0xc3]);
    g.map(PLAY, JUMPS, pte::P | flags);
    g.map(PLAY + 0x1000, ADDS_ONE, pte::P | flags);
}

/// Calls the code at `at` several times over.
fn calls(a: &mut CodeAssembler, at: u64) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(eax, at as u32)?;
    a.mov(ecx, CALLS as u32)?;
    a.set_label(&mut again)?;
    a.call(rax)?;
    a.dec(ecx)?;
    a.jnz(again)
}

/// The second page is another one from `change` on.
fn mapped_anew(g: &mut Guest, flags: u64, change: fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    pages(g, flags);
    let entry = g.paged().entry(PLAY + 0x1000, 1);
    g.emit(|a| {
        calls(a, PLAY)?;
        a.mov(dword_ptr(entry), (ADDS_MANY | pte::P | flags) as u32)?;
        change(a)?;
        calls(a, PLAY)
    });
    g.want_reg(RBX, ONE + MANY);
    g.want_reg(RDX, 2 * CALLS);
}

/// One frame at two pages in a row, with an instruction from the end of the one to the beginning of
/// the other: MOV EAX, imm32; RET. Each call follows a store to the number's first byte, at the
/// frame's end, and its third, at its beginning, at `places`.
fn one_frame_twice(g: &mut Guest, bits: u32, flags: u64, places: [u64; 2]) {
    g.write(FRAME + 0xffe, &[0xb8, 0]);
    g.write(FRAME, &[0, 0, 0, 0xc3]);
    g.map(PLAY, FRAME, flags);
    g.map(PLAY + 0x1000, FRAME, flags);
    g.emit(|a| {
        let mut again = a.create_label();
        a.mov(edx, PLAY as u32 + 0xffe)?;
        a.mov(ecx, CALLS as u32)?;
        a.set_label(&mut again)?;
        for place in places {
            a.mov(eax, place as u32)?;
            if bits == 64 { a.mov(byte_ptr(rax), cl)? } else { a.mov(byte_ptr(eax), cl)? }
        }
        if bits == 64 {
            a.call(rdx)?;
        } else {
            a.call(edx)?;
        }
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(again)
    });
    g.want_reg(RBX, CALLS * (CALLS + 1) / 2 * 0x1_0001);
}

/// The end and the second byte of the frame, by either of its pages.
const BY_THE_FIRST: [u64; 2] = [PLAY + 0xfff, PLAY + 1];
const BY_THE_SECOND: [u64; 2] = [PLAY + 0x1fff, PLAY + 0x1001];

pub(super) const CASES: &[Case] = &[
    case("pages/one-frame-twice-in-a-row", "SDM 3A 11.6", |g| {
        g.long();
        one_frame_twice(g, 64, pte::KERNEL, BY_THE_FIRST);
    }),
    case("pages/one-frame-twice-in-a-row-by-its-other-page", "SDM 3A 11.6", |g| {
        g.long();
        one_frame_twice(g, 64, pte::KERNEL, BY_THE_SECOND);
    }),
    case("pages/one-frame-twice-in-a-row-for-a-program", "SDM 3A 11.6", |g| {
        g.user();
        one_frame_twice(g, 64, pte::USER, BY_THE_FIRST);
    }),
    case("pages/one-frame-twice-in-a-row-in-compatibility-mode", "SDM 3A 11.6", |g| {
        g.compat();
        one_frame_twice(g, 32, pte::USER, BY_THE_SECOND);
    }),
    case("pages/one-frame-twice-in-a-row-in-32-bit-paging", "SDM 3A 11.6", |g| {
        g.protected_paged(Format::Legacy);
        one_frame_twice(g, 32, pte::KERNEL, BY_THE_FIRST);
    }),
    case("pages/next-page-mapped-anew", "SDM 3A 4.10.4.1 INVLPG", |g| {
        g.long();
        mapped_anew(g, 0, |a| a.invlpg(byte_ptr(PLAY + 0x1234)));
    }),
    case("pages/next-global-page-mapped-anew", "SDM 3A 4.10.4.1 INVLPG", |g| {
        g.long();
        mapped_anew(g, pte::G, |a| a.invlpg(byte_ptr(PLAY + 0x1000)));
    }),
    case("pages/next-page-mapped-anew-in-another-address-space", "SDM 3A 4.10.4.1 CR3", |g| {
        g.long();
        mapped_anew(g, 0, |a| {
            a.mov(rcx, cr3)?;
            a.mov(cr3, rcx)
        });
    }),
    case("pages/next-page-of-a-page-mapped-twice", "SDM 3A 4.5", |g| {
        g.long();
        pages(g, pte::G);
        g.map(PLAY2, JUMPS, pte::KERNEL | pte::G);
        g.map(PLAY2 + 0x1000, ADDS_MANY, pte::KERNEL | pte::G);
        g.emit(|a| {
            calls(a, PLAY)?;
            calls(a, PLAY2)?;
            calls(a, PLAY)
        });
        g.want_reg(RBX, 2 * ONE + MANY);
        g.want_reg(RDX, 3 * CALLS);
    }),
    case("pages/next-page-is-gone", "SDM 3A 4.7", |g| {
        g.long();
        pages(g, pte::G);
        let entry = g.paged().entry(PLAY + 0x1000, 1);
        g.emit(|a| {
            calls(a, PLAY)?;
            a.mov(dword_ptr(entry), 0)?;
            a.invlpg(byte_ptr(PLAY + 0x1000))?;
            calls(a, PLAY)
        });
        g.page_faults(0x10, PLAY + 0x1000, PLAY + 0x1000);
        g.want_reg(RBX, ONE);
    }),
    case("pages/each-address-space-has-its-own-next-page", "SDM 3A 4.10.1", |g| {
        g.user();
        g.state.paging.cr4 |= Cr4::PCIDE;
        pages(g, pte::USER);
        let mut other = Tables::identity_at(&g.ram, Format::Long, 0x18_0000);
        other.map(PLAY, JUMPS, pte::USER);
        other.map(PLAY + 0x1000, ADDS_MANY, pte::USER);
        let (one, two) = (g.state.paging.cr3 | 1, other.root() | 2);
        g.state.paging.cr3 = one;
        let change = g.aside(64, |a| {
            a.mov(rcx, cr3)?;
            a.xor(rcx, (one ^ two) as i32)?;
            a.bts(rcx, 63)?; // keeps what is cached
            a.mov(cr3, rcx)?;
            a.iretq()
        });
        g.set_gate(0x81, sel::CODE64, change, INTERRUPT_GATE | GATE_USER, 0);
        g.emit(|a| {
            for _ in 0..3 {
                calls(a, PLAY)?;
                a.int(0x81)?;
                calls(a, PLAY)?;
                a.int(0x81)?;
            }
            Ok(())
        });
        g.want_reg(RBX, 3 * (ONE + MANY));
        g.want_reg(RDX, 6 * CALLS);
    }),
    case("pages/rewritten-jump-to-another-page", "SDM 3A 11.6, 4.10.4.1", |g| {
        g.long();
        pages(g, pte::KERNEL);
        g.map(PLAY + 0x2000, ADDS_MANY, pte::KERNEL);
        g.write(JUMPS, &[0xe9, 0xfb, 0x0f, 0, 0]);
        // stc; jmp the page's beginning
        g.write(JUMPS + 0x800, &[0xf9, 0xe9, 0xfa, 0xf7, 0xff, 0xff]);
        g.emit(|a| {
            calls(a, PLAY)?;
            calls(a, PLAY + 0x800)?;
            a.mov(dword_ptr(PLAY + 1), 0x1ffb)?;
            calls(a, PLAY + 0x800)?;
            a.invlpg(byte_ptr(PLAY + 0x1000))?;
            calls(a, PLAY + 0x800)
        });
        g.want_reg(RBX, 2 * ONE + 2 * MANY);
    }),
    case("pages/rewritten-code-finds-the-callers-flags", "SDM 3A 11.6", |g| {
        g.long();
        pages(g, pte::KERNEL);
        // clc; call the next page; ret
        g.write(JUMPS, &[0xf8, 0xe8, 0xfa, 0x0f, 0, 0, 0xc3]);
        // A NOP as long as adc edx, 0.
        g.write(ADDS_ONE, &[0x0f, 0x1f, 0]);
        g.emit(|a| {
            calls(a, PLAY)?;
            a.mov(word_ptr(PLAY + 0x1000), 0xd283)?;
            a.mov(byte_ptr(PLAY + 0x1002), 0)?;
            calls(a, PLAY)
        });
        g.want_reg(RBX, 2 * ONE);
        g.want_reg(RDX, 0);
    }),
    case("pages/stack-page-mapped-anew", "SDM 3A 4.10.4.1 INVLPG", |g| {
        g.long();
        g.map(PLAY, FRAME, pte::KERNEL);
        let entry = g.paged().entry(PLAY, 1);
        g.emit(|a| {
            a.mov(esp, PLAY as u32 + 0x800)?;
            let mut again = a.create_label();
            a.mov(ecx, CALLS as u32)?;
            a.set_label(&mut again)?;
            a.push(rcx)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.mov(dword_ptr(entry), (FRAME + 0x1000 + pte::KERNEL) as u32)?;
            a.invlpg(byte_ptr(PLAY))?;
            a.push(rcx)?;
            a.mov(rbx, qword_ptr(rsp + 8))?;
            a.push(0x55)
        });
        let at = FRAME + 0x800 - 8 * (CALLS + 2);
        g.want_mem(at, 8, 0);
        g.want_mem(at + 0x1000, 8, 0x55);
        g.want_reg(RBX, 0);
    }),
    case("pages/stack-page-made-read-only", "SDM 3A 4.10.4.1 INVLPG", |g| {
        g.long();
        g.set_gate(14, sel::CODE64, Guest::stub(14), INTERRUPT_GATE, 1);
        g.map(PLAY, FRAME, pte::KERNEL);
        let entry = g.paged().entry(PLAY, 1);
        g.emit(|a| {
            a.mov(esp, PLAY as u32 + 0x800)?;
            a.push(rcx)?;
            a.push(rcx)?;
            a.mov(dword_ptr(entry), (FRAME | pte::P) as u32)?;
            a.invlpg(byte_ptr(PLAY))?;
            a.pop(rcx)
        });
        let at = g.emit(|a| a.push(rax));
        g.page_faults(3, PLAY + 0x7f0, at);
    }),
    case("pages/ring-1-may-not-what-ring-0-did", "SDM 2A CLI", |g| {
        use crate::describe::{access, descriptor};
        g.long();
        let flat = |access| descriptor(0, 0xf_ffff, access | 0x20);
        g.set_gdt(sel::SPARE, flat(access::CODE64));
        g.set_gdt(sel::SPARE + 8, flat(access::DATA));
        g.write(DATA, &[0xfa, 0xc3]); // cli; ret
        g.flags(Rflags::empty());
        g.emit(|a| {
            calls(a, DATA)?;
            a.mov(rcx, rsp)?;
            a.push(i32::from(sel::SPARE + 8) | 1)?;
            a.push(rcx)?;
            a.pushfq()?;
            a.push(i32::from(sel::SPARE) | 1)?;
            let mut on = a.create_label();
            a.lea(rdx, qword_ptr(on))?;
            a.push(rdx)?;
            a.iretq()?;
            a.set_label(&mut on)?;
            calls(a, DATA)
        });
        g.faults(Vector::GP, 0, DATA);
    }),
];
