//! Operands at the end of the address range (SDM vol. 1, 3.3.7 and 3.7.5; vol. 3, 5.3).
//!
//! What an instruction accesses in parts goes on at address 0: each part's effective address is cut
//! to the address size, and each part is checked for itself.

use super::case;
use crate::Case;
use crate::describe::{access, descriptor};
use crate::end::End;
use crate::guest::{Guest, INTERRUPT_GATE};
use crate::layout::*;
use crate::paging::pte;
use iced_x86::code_asm::*;
use x86::addr::Vector;
use x86::regs::Cr4;
use x86::state::Seg;
use x86::state::gpr::RAX;

/// π as an extended real.
const PI: u64 = 0xc90f_daa2_2168_c235;
const PI_HIGH: u64 = 0x4000;
/// What memory holds that must not be touched.
const UNTOUCHED: u8 = 0x11;
/// The linear address behind the last that 32 bits can form.
const BEHIND: u64 = 1 << 32;

/// Code at the end of 4 GiB: the last page is [`FRAME`], page 0 is empty, what lies above must not
/// be touched.
fn top(g: &mut Guest, flags: u64) {
    g.map(BEHIND - 0x1000, FRAME, flags);
    g.map(BEHIND, FRAME + 0x1000, flags);
    g.map(0, 0, flags);
    g.write(0, &[0; 0x1000]);
    g.write(FRAME + 0x1000, &[UNTOUCHED; 0x1000]);
    g.want("bytes changed above 4 GiB", |e| changed(e, FRAME + 0x1000, 0x1000), 0);
}

/// 64-bit supervisor code there.
fn top_64(g: &mut Guest) {
    g.long();
    top(g, pte::KERNEL);
}

/// Compatibility mode's there.
fn top_compat(g: &mut Guest) {
    g.compat();
    top(g, pte::USER);
}

fn changed(e: &End, at: u64, len: u64) -> u64 {
    (at..at + len).filter(|&a| e.mem(a, 1) != u64::from(UNTOUCHED)).count() as u64
}

/// Where effective address `at` of 32 bits lies in [`top`].
fn gpa(at: u64) -> u64 {
    if at < BEHIND { at - (BEHIND - 0x1000) + FRAME } else { at - BEHIND }
}

/// MOV ESI, `address`; then `code`, whose address that is. 16-bit code is given SI.
fn on(g: &mut Guest, address: u64, code: &[u8]) -> u64 {
    let mut load = vec![0xbe];
    load.extend((address as u32).to_le_bytes());
    g.raw(&load);
    g.raw(code)
}

/// The same with RSI.
fn on_64(g: &mut Guest, address: u64, code: &[u8]) -> u64 {
    g.emit(|a| a.mov(rsi, address));
    g.raw(code)
}

/// The same in real mode.
fn on_16(g: &mut Guest, address: u16, code: &[u8]) -> u64 {
    g.emit(|a| a.mov(si, u32::from(address)));
    g.raw(code)
}

/// FLDPI.
fn pi(g: &mut Guest) {
    g.raw(&[0xd9, 0xeb]);
}

/// Saves `len` bytes of state by `save` to an ordinary place and to the end of the address range,
/// restores it from there, and saves it again: all three are the same. An x87 stack of two goes in
/// and out.
fn image(g: &mut Guest, at: u64, len: u64, save: &[u8], restore: &[u8]) {
    let (first, second) = (DATA, DATA + 0x1000);
    pi(g);
    g.raw(&[0xd9, 0xe8]); // FLD1
    on(g, first, save);
    // FNSAVE initializes.
    on(g, first, restore);
    on(g, at, save);
    g.raw(&[0xdb, 0xe3]); // FNINIT
    on(g, at, restore);
    on(g, second, save);
    let differ = move |e: &End, other: fn(u64, u64) -> u64| {
        (0..len).filter(|&i| e.mem(first + i, 1) != e.mem(other(at, i), 1)).count() as u64
    };
    g.want("bytes saved wrong", move |e| differ(e, |at, i| gpa(at + i)), 0);
    g.want("bytes restored wrong", move |e| differ(e, |_, i| DATA + 0x1000 + i), 0);
    g.want("bytes saved at all", move |e| u64::from(e.mem(first, 2) == 0), 0);
}

/// A far pointer at the end of 4 GiB: its offset before, its selector at 0.
fn pointer(g: &mut Guest, offset: u64, size: u64, selector: u16) -> u64 {
    g.write(FRAME + 0x1000 - size, &offset.to_le_bytes()[..size as usize]);
    g.write(0, &selector.to_le_bytes());
    BEHIND - size
}

/// A far transfer by `code` through such a pointer.
fn transfer(g: &mut Guest, size: u64, code: &[u8]) {
    top_64(g);
    let target = CODE + 0x100;
    let at = pointer(g, target, size, sel::CODE64);
    on(g, at, code);
    g.seek(target, 64);
    g.emit(|a| a.hlt());
    g.halts_at(target + 1);
}

/// A load of `seg` by `code` through such a pointer.
fn load(g: &mut Guest, seg: Seg, code: &[u8]) {
    top_64(g);
    let at = pointer(g, 0x1234_5678, 4, sel::FRESH);
    on(g, at, code);
    g.want_reg(RAX, 0x1234_5678);
    g.want("selector", move |e| e.state.seg[seg as usize].selector.into(), sel::FRESH.into());
}

/// BOUND EAX, [ESI] of compatibility mode with bounds -2 and 7.
fn bound(g: &mut Guest, index: i32) -> u64 {
    top_compat(g);
    g.write(FRAME + 0xffc, &(-2i32).to_le_bytes());
    g.write(0, &7i32.to_le_bytes());
    g.emit(|a| a.mov(eax, index));
    on(g, BEHIND - 4, &[0x62, 0x06])
}

/// DS begins at 1000H, so that linear addresses return to 0 within it.
fn based(g: &mut Guest) {
    top_compat(g);
    g.set_gdt(sel::SPARE, descriptor(0x1000, 0xf_ffff, access::DATA | access::USER));
    g.emit(|a| {
        a.mov(eax, u32::from(sel::SPARE | 3))?;
        a.mov(ds, eax)
    });
}

pub(super) const CASES: &[Case] = &[
    case("operands/fstp-m80-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        pi(g);
        on(g, BEHIND - 8, &[0x67, 0xdb, 0x3e]);
        g.want_mem(FRAME + 0xff8, 8, PI);
        g.want_mem(0, 2, PI_HIGH);
    }),
    case("operands/fld-m80-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.poke(FRAME + 0xff8, PI);
        g.write(0, &[0, 0x40]);
        on(g, BEHIND - 8, &[0x67, 0xdb, 0x2e]);
        on(g, DATA, &[0x67, 0xdb, 0x3e]);
        g.want_mem(DATA, 8, PI);
        g.want_mem(DATA + 8, 2, PI_HIGH);
    }),
    case("operands/packed-decimals-go-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.poke(FRAME + 0xff8, 0x1234_5678);
        g.write(0, &[0x99, 0x80]);
        on(g, BEHIND - 8, &[0x67, 0xdf, 0x26]); // FBLD
        g.raw(&[0xd9, 0xe0]); // FCHS
        on(g, BEHIND - 8, &[0x67, 0xdf, 0x36]); // FBSTP
        g.want_mem(FRAME + 0xff8, 8, 0x1234_5678);
        g.want_mem(0, 2, 0x99);
    }),
    case("operands/a-part-of-an-m80-does-not-return-to-0", "SDM 1 3.3.7", |g| {
        g.long();
        g.map(BEHIND - 0x1000, FRAME, pte::KERNEL);
        g.map(BEHIND, FRAME + 0x1000, pte::KERNEL);
        g.write(0, &[0; 16]);
        pi(g);
        on(g, BEHIND - 4, &[0x67, 0xdb, 0x3e]);
        g.want_mem(FRAME + 0xffc, 8, PI);
        g.want_mem(4, 2, PI_HIGH);
        g.want_mem(0, 4, 0);
    }),
    case("operands/environment-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        image(g, BEHIND - 16, 28, &[0x67, 0xd9, 0x36], &[0x67, 0xd9, 0x26]);
    }),
    case("operands/environment-of-16-bits-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        image(g, BEHIND - 6, 14, &[0x66, 0x67, 0xd9, 0x36], &[0x66, 0x67, 0xd9, 0x26]);
    }),
    case("operands/fnsave-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        image(g, BEHIND - 28 - 18, 108, &[0x67, 0xdd, 0x36], &[0x67, 0xdd, 0x26]);
    }),
    case("operands/fnsave-of-16-bits-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        image(g, BEHIND - 14 - 30, 94, &[0x66, 0x67, 0xdd, 0x36], &[0x66, 0x67, 0xdd, 0x26]);
    }),
    case("operands/fxsave-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        image(g, BEHIND - 0x100, 416, &[0x67, 0x0f, 0xae, 0x06], &[0x67, 0x0f, 0xae, 0x0e]);
    }),
    case("operands/xsave-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.state.paging.cr4 |= Cr4::OSXSAVE;
        g.state.xcr0 = 7;
        g.emit(|a| {
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.vpcmpeqd(ymm3, ymm3, ymm3)
        });
        image(g, BEHIND - 0x240, 832, &[0x67, 0x0f, 0xae, 0x26], &[0x67, 0x0f, 0xae, 0x2e]);
    }),
    case("operands/jmp-far-m16-32-goes-on-at-0", "SDM 1 3.3.7", |g| {
        transfer(g, 4, &[0x67, 0xff, 0x2e]);
    }),
    case("operands/jmp-far-m16-64-goes-on-at-0", "SDM 1 3.3.7", |g| {
        transfer(g, 8, &[0x67, 0x48, 0xff, 0x2e]);
    }),
    case("operands/jmp-far-m16-16-goes-on-at-0", "SDM 1 3.3.7", |g| {
        transfer(g, 2, &[0x66, 0x67, 0xff, 0x2e]);
    }),
    case("operands/call-far-m16-32-goes-on-at-0", "SDM 1 3.3.7", |g| {
        transfer(g, 4, &[0x67, 0xff, 0x1e]);
    }),
    case("operands/lss-goes-on-at-0", "SDM 1 3.3.7", |g| {
        load(g, Seg::Ss, &[0x67, 0x0f, 0xb2, 0x06]);
    }),
    case("operands/lfs-goes-on-at-0", "SDM 1 3.3.7", |g| {
        load(g, Seg::Fs, &[0x67, 0x0f, 0xb4, 0x06]);
    }),
    case("operands/lgs-goes-on-at-0", "SDM 1 3.3.7", |g| {
        load(g, Seg::Gs, &[0x67, 0x0f, 0xb5, 0x06]);
    }),
    case("operands/sgdt-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        on(g, BEHIND - 2, &[0x67, 0x0f, 0x01, 0x06]);
        g.want_mem(FRAME + 0xffe, 2, u64::from(sel::BEYOND) - 1);
        g.want_mem(0, 8, GDT);
    }),
    case("operands/sidt-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        on(g, BEHIND - 2, &[0x67, 0x0f, 0x01, 0x0e]);
        g.want_mem(FRAME + 0xffe, 2, 0xfff);
        g.want_mem(0, 8, IDT);
    }),
    case("operands/lgdt-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        let at = pointer(g, 0x77, 2, 0);
        g.poke(0, 0xffff_8000_1234_5678);
        on(g, at, &[0x67, 0x0f, 0x01, 0x16]);
        g.want("GDTR.base", |e| e.state.gdtr.base, 0xffff_8000_1234_5678);
        g.want("GDTR.limit", |e| e.state.gdtr.limit.into(), 0x77);
    }),
    case("operands/lidt-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        let at = pointer(g, 0x77, 2, 0);
        g.poke(0, 0xffff_8000_1234_5678);
        on(g, at, &[0x67, 0x0f, 0x01, 0x1e]);
        g.want("IDTR.base", |e| e.state.idtr.base, 0xffff_8000_1234_5678);
        g.want("IDTR.limit", |e| e.state.idtr.limit.into(), 0x77);
    }),
    case("operands/invpcid-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.poke(0, 1 << 63); // not canonical
        g.emit(|a| a.xor(eax, eax));
        let at = on(g, BEHIND - 8, &[0x67, 0x66, 0x0f, 0x38, 0x82, 0x06]);
        g.faults(Vector::GP, 0, at);
    }),
    case("operands/each-part-faults-for-itself", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.map(0, 0, 0);
        let at = on(g, BEHIND - 8, &[0x67, 0xdb, 0x2e]);
        g.page_faults(0, 0, at);
    }),
    case("operands/no-part-is-stored-where-another-faults", "SDM 1 3.3.7", |g| {
        top_64(g);
        g.map(0, 0, 0);
        g.poke(FRAME + 0xff8, 0x55);
        pi(g);
        let at = on(g, BEHIND - 8, &[0x67, 0xdb, 0x3e]);
        g.page_faults(2, 0, at);
        g.want_mem(FRAME + 0xff8, 8, 0x55);
        g.want("x87 tags", |e| e.state.x87.ftw.into(), 0x80);
    }),
    case("operands/a-part-is-judged-whole-before-the-next", "SDM 1 3.3.7", |g| {
        g.long();
        let at = on_64(g, 0x7fff_ffff_fff8, &[0xdb, 0x2e]);
        g.page_faults(0, 0x7fff_ffff_fff8, at);
    }),
    case("operands/a-part-that-is-not-canonical", "SDM 1 3.3.7", |g| {
        g.long();
        g.map(0x7fff_ffff_f000, FRAME, pte::KERNEL);
        let at = on_64(g, 0x7fff_ffff_fff8, &[0xdb, 0x2e]);
        g.faults(Vector::GP, 0, at);
    }),
    case("operands/fxsave-that-is-neither-canonical-nor-aligned", "SDM 2A FXSAVE", |g| {
        g.long();
        g.set_gate(12, sel::CODE64, Guest::stub(12), INTERRUPT_GATE, 1);
        g.emit(|a| a.mov(rbp, 0x8000_0000_0000_0008u64));
        let at = g.raw(&[0x0f, 0xae, 0x45, 0]); // FXSAVE [RBP]
        g.faults(Vector::SS, 0, at);
    }),
    case("operands/addresses-of-64-bits-go-on-at-0", "SDM 1 3.3.7", |g| {
        g.long();
        g.map(!0xfff, FRAME, pte::KERNEL);
        pi(g);
        on_64(g, !7, &[0xdb, 0x3e]);
        g.want_mem(FRAME + 0xff8, 8, PI);
        g.want_mem(0, 2, PI_HIGH);
    }),
    case("operands/compatibility-mode-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_compat(g);
        pi(g);
        on(g, BEHIND - 8, &[0xdb, 0x3e]);
        g.want_mem(FRAME + 0xff8, 8, PI);
        g.want_mem(0, 2, PI_HIGH);
    }),
    case("operands/les-goes-on-at-0", "SDM 1 3.3.7", |g| {
        top_compat(g);
        let at = pointer(g, 0x1234_5678, 4, sel::USER_DATA);
        on(g, at, &[0xc4, 0x06]);
        g.want_reg(RAX, 0x1234_5678);
    }),
    case("operands/bound-goes-on-at-0", "SDM 2A BOUND", |g| {
        bound(g, 7);
    }),
    case("operands/bound-above", "SDM 2A BOUND", |g| {
        let at = bound(g, 8);
        g.traps(Vector::BR, at);
    }),
    case("operands/bound-below", "SDM 2A BOUND", |g| {
        let at = bound(g, -3);
        g.traps(Vector::BR, at);
    }),
    case("operands/linear-addresses-of-compatibility-mode-load", "SDM 1 3.3.7", |g| {
        based(g);
        g.write(FRAME + 0xffe, &[1, 2]);
        g.write(0, &[3, 4]);
        on(g, BEHIND - 0x1002, &[0x8b, 0x06]);
        g.want_reg(RAX, 0x0403_0201);
    }),
    case("operands/linear-addresses-of-compatibility-mode-store", "SDM 1 3.3.7", |g| {
        based(g);
        g.emit(|a| a.mov(eax, 0x0403_0201));
        on(g, BEHIND - 0x1002, &[0x89, 0x06]);
        g.want_mem(FRAME + 0xffe, 2, 0x0201);
        g.want_mem(0, 2, 0x0403);
    }),
    case("operands/linear-addresses-of-compatibility-mode-vector", "SDM 1 3.3.7", |g| {
        based(g);
        g.raw(&[0x66, 0x0f, 0x76, 0xc0]); // PCMPEQD XMM0, XMM0
        on(g, BEHIND - 0x1008, &[0x0f, 0x11, 0x06]);
        g.want_mem(FRAME + 0xff8, 8, u64::MAX);
        g.want_mem(0, 8, u64::MAX);
    }),
    case("operands/flat-segments-go-on-at-0", "SDM 1 3.3.7", |g| {
        g.protected();
        g.write(0, &[0; 16]);
        pi(g);
        on(g, BEHIND - 8, &[0xdb, 0x3e]);
        g.want_mem(0, 8, PI_HIGH);
    }),
    case("operands/a-part-across-the-limit", "SDM 3A 5.3", |g| {
        g.protected();
        pi(g);
        let at = on(g, BEHIND - 4, &[0xdb, 0x3e]);
        g.faults(Vector::GP, 0, at);
    }),
    case("operands/addresses-of-16-bits-go-on-at-0", "SDM 1 3.3.7", |g| {
        g.protected();
        g.write(0x1_0000, &[UNTOUCHED; 16]);
        pi(g);
        on(g, 0xfff8, &[0x67, 0xdb, 0x3c]);
        g.want_mem(0xfff8, 8, PI);
        g.want_mem(0, 2, PI_HIGH);
        g.want("bytes changed behind", |e| changed(e, 0x1_0000, 16), 0);
    }),
    case("operands/real-mode-goes-on-at-0", "SDM 3A 20.1", |g| {
        pi(g);
        on_16(g, 0xfff8, &[0xdb, 0x3c]);
        g.want_mem(0xfff8, 8, PI);
        g.want_mem(0, 2, PI_HIGH);
    }),
    case("operands/real-mode-les-goes-on-at-0", "SDM 3A 20.1", |g| {
        g.write(0xfffe, &[0x34, 0x12]);
        g.write(0, &[0x78, 0x56]);
        on_16(g, 0xfffe, &[0xc4, 0x04]);
        g.want("AX", |e| e.reg(RAX) & 0xffff, 0x1234);
        g.want("ES", |e| e.state.seg[Seg::Es as usize].selector.into(), 0x5678);
    }),
    case("operands/real-mode-bound-goes-on-at-0", "SDM 3A 20.1", |g| {
        g.write(0xfffe, &[0xfe, 0xff]);
        g.write(0, &[5, 0]);
        g.emit(|a| a.mov(ax, 6));
        let at = on_16(g, 0xfffe, &[0x62, 0x04]);
        g.traps(Vector::BR, at);
    }),
    case("operands/real-mode-sgdt-goes-on-at-0", "SDM 3A 20.1", |g| {
        on_16(g, 0xfffe, &[0x0f, 0x01, 0x04]);
        g.want_mem(0xfffe, 2, u64::from(sel::BEYOND) - 1);
        g.want_mem(0, 4, GDT);
    }),
    case("operands/real-mode-part-across-the-limit", "SDM 3A 20.1", |g| {
        pi(g);
        let at = on_16(g, 0xfffc, &[0xdb, 0x3c]);
        g.traps(Vector::GP, at);
    }),
    case("operands/real-mode-part-across-the-stack-limit", "SDM 3A 20.1", |g| {
        pi(g);
        let at = on_16(g, 0xfffc, &[0x36, 0xdb, 0x3c]);
        g.traps(Vector::SS, at);
    }),
];
