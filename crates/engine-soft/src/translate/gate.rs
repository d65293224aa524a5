//! SYSCALL and SYSRET in place (SDM vol. 2): to the other privilege level without leaving
//! translated code.
//!
//! What follows from the level (views, tables of targets, CS and SS) is prepared for both levels
//! before translated code is entered, if anything may have changed it: [`prepare`]. A stub for each
//! instruction loads it and goes on by the table of targets. What it cannot do is the
//! interpreter's, at the instruction: where the gates are closed, where RFLAGS.AC or TF is set or
//! would be, and a SYSRET to an address that is not canonical.
//!
//! SYSRET may set IF. An interrupt that waits for that has raised a signal: with one up no
//! translated code is entered, and what runs is stopped.

use super::asm::{ADDRESS, Asm, RCX, SECOND, THIRD};
use super::context::{Context, Gates, Level, PASSED};
use super::emit::Emitter;
use super::flow::Class;
use super::offsets::{
    JIT, PAGE, RIP, SLOTS, STATE, SYSTEM_FLAGS, TARGETS, TMP_FLAGS, VIEW, spill_slot,
};
use super::site::{ExitSite, StubTarget};
use super::targets::{TARGET_MASK, TARGET_SCALE};
use crate::block::USER;
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use crate::tlb;
use std::mem::{offset_of, size_of};
use x86::regs::{Efer, Rflags};
use x86::state::{CpuState, Mode, Msrs, Seg, Segment};
use x86::syscall::{SYSRET_FLAGS, called, returned};

const GATES: usize = JIT + offset_of!(Context, gates);
const OPEN: usize = GATES + offset_of!(Gates, open);
const MSRS: usize = STATE + offset_of!(CpuState, msr);
const NOT_ZERO: u8 = 5;
const ZERO: u8 = 4;
/// With these set the next instruction needs to be looked at, or each access does.
const UNUSUAL: u32 = (Rflags::AC.bits() | Rflags::TF.bits()) as u32;
/// The words of a segment register.
const SEGMENT: usize = size_of::<Segment>() / 8;

/// Opens the gates for the processor as it is, or closes them.
pub(super) fn prepare(cpu: &mut Cpu) {
    cpu.core.refreshed = false;
    cpu.jit.gates.open = 0;
    let user = cpu.core.mmu.tlb.slot;
    let (star, efer) = (cpu.core.state.msr.star, cpu.core.state.paging.efer);
    if cpu.core.mode != Mode::Long64 || !efer.contains(Efer::SCE) {
        return;
    }
    let kernel = level(cpu, tlb::SUPERVISOR, called(star));
    let user = level(cpu, user, returned(star));
    let here = if cpu.core.mode_key & USER == 0 { &kernel } else { &user };
    // No other of the views that a level may have: what a gate leads back to is the one here.
    if here.view == cpu.core.view && here.fetch_view == cpu.core.fetch_view {
        cpu.jit.gates = Gates { open: 1, levels: [kernel, user] };
    }
}

fn level(cpu: &mut Cpu, view: usize, segments: [Segment; 2]) -> Level {
    let (targets, slots) = cpu.core.mmu.tlb.branch_tables(view);
    let fetch = cpu.core.fetch_of(view) as u64;
    let data = cpu.core.mmu.tlb.view(view).data.as_ptr();
    Level { view: data, fetch, fetch_view: view, targets, slots, segments }
}

impl Emitter<'_> {
    /// SYSCALL or SYSRET, which ends the block.
    pub(super) fn gate(&mut self, n: usize) -> Option<()> {
        self.flags_aside(n)?;
        self.boundary(None, None);
        let g = &self.region.insns[n];
        let (delta, undone, shadow) = (g.delta, self.rest(n), self.shadow(n));
        let saved = self.saved;
        let out = if matches!(g.class, Class::Syscall) {
            self.asm.load(THIRD, PAGE);
            self.asm.lea(THIRD, THIRD, g.next());
            StubTarget::Syscall
        } else {
            StubTarget::Sysret
        };
        let site = self.site(ExitSite::Interpret { delta, undone, saved, shadow, recipe: None });
        self.leave_by(site, out);
        Some(())
    }
}

/// Makes the stubs of SYSCALL and SYSRET, which leave by the one at `leave`. `None`: there is no
/// room.
pub(super) fn stubs(area: &CodeArea, leave: usize) -> Option<(usize, usize)> {
    let mut asm = Asm::default();
    let base = area.next(4096)?;
    let leave = leave.wrapping_sub(base);
    syscall(&mut asm, leave);
    let sysret_at = asm.here();
    sysret(&mut asm, leave);
    area.push(&asm.code)?;
    Some((base, base + sysret_at))
}

/// The site's number is in ADDRESS, the next RIP in THIRD, status flags are saved.
fn syscall(asm: &mut Asm, leave: usize) {
    asm.cmp_byte(OPEN, 0);
    let closed = asm.jcc(ZERO);
    asm.test_gs_imm(SYSTEM_FLAGS, UNUSUAL);
    let unusual = asm.jcc(NOT_ZERO);
    asm.mov(RCX, THIRD);
    flags_image(asm, SECOND, THIRD);
    asm.store(spill_slot(11), SECOND);
    asm.load(THIRD, MSRS + offset_of!(Msrs, fmask));
    asm.and_not(SECOND, THIRD);
    set_flags(asm);
    enter(asm, 0);
    asm.load(ADDRESS, MSRS + offset_of!(Msrs, lstar));
    go(asm, leave);
    for place in [closed, unusual] {
        asm.resolve(place, leave);
    }
}

/// The site's number is in ADDRESS, status flags are saved.
fn sysret(asm: &mut Asm, leave: usize) {
    asm.cmp_byte(OPEN, 0);
    let closed = asm.jcc(ZERO);
    asm.load(SECOND, spill_slot(11));
    asm.test_imm(SECOND, UNUSUAL as i32);
    let unusual = asm.jcc(NOT_ZERO);
    asm.canonical(THIRD, RCX);
    let elsewhere = asm.jcc(NOT_ZERO);
    asm.and32(SECOND, SYSRET_FLAGS as i32);
    set_flags(asm);
    enter(asm, 1);
    asm.mov(ADDRESS, RCX);
    go(asm, leave);
    for place in [closed, unusual, elsewhere] {
        asm.resolve(place, leave);
    }
}

/// RFLAGS to `to`, put together from where the parts are: the low byte as LAHF gave it, OF from bit
/// 0 to bit 11, the rest the system's. Status flags are saved; `other` is changed.
pub(super) fn flags_image(asm: &mut Asm, to: u8, other: u8) {
    asm.load_byte(to, TMP_FLAGS);
    asm.and32(to, 1);
    asm.shl32(to, 11);
    asm.load_byte(other, TMP_FLAGS + 1);
    asm.and32(other, 0xd5);
    asm.or32(to, other);
    asm.or_gs(to, SYSTEM_FLAGS);
}

/// RFLAGS as SECOND has them: status flags to where an entry expects them.
fn set_flags(asm: &mut Asm) {
    asm.mov32(THIRD, SECOND);
    asm.shr(THIRD, 11);
    asm.and32(THIRD, 1);
    asm.mov32(ADDRESS, SECOND);
    asm.and32(ADDRESS, 0xd5);
    asm.shl32(ADDRESS, 8);
    asm.or32(THIRD, ADDRESS);
    // Bit 1, which is always set, in both images.
    asm.lea(THIRD, THIRD, 2 << 8);
    asm.store_word(TMP_FLAGS, THIRD);
    asm.and32(SECOND, !(Rflags::ARITH.bits() as i32 | 2));
    asm.lea(SECOND, SECOND, 2);
    asm.store(SYSTEM_FLAGS, SECOND);
}

/// What follows from the level, 0 or 1.
fn enter(asm: &mut Asm, level: usize) {
    let from = GATES + offset_of!(Gates, levels) + level * size_of::<Level>();
    let fields = [
        (offset_of!(Level, view), VIEW),
        (offset_of!(Level, fetch), Cpu::FETCH_OFFSET),
        (offset_of!(Level, fetch_view), offset_of!(Cpu, core.fetch_view)),
        (offset_of!(Level, targets), TARGETS),
        (offset_of!(Level, slots), SLOTS),
    ];
    let segments = STATE + offset_of!(CpuState, seg);
    let segment = |n: usize, to: Seg| {
        let at = n * size_of::<Segment>();
        let to = segments + to as usize * size_of::<Segment>();
        (0..SEGMENT).map(move |word| (offset_of!(Level, segments) + at + 8 * word, to + 8 * word))
    };
    for (field, to) in fields.into_iter().chain(segment(0, Seg::Cs)).chain(segment(1, Seg::Ss)) {
        asm.load(THIRD, from + field);
        asm.store(to, THIRD);
    }
    let user = level != 0;
    asm.store_byte_imm(STATE + offset_of!(CpuState, cpl), if user { 3 } else { 0 });
    asm.store_byte_imm(offset_of!(Cpu, core.mmu.ac), 0);
    // AND or OR of a doubleword whose first byte it is.
    let (form, mask) = if user { (1, u32::from(USER)) } else { (4, !u32::from(USER)) };
    asm.alu_gs_imm(form, offset_of!(Cpu, core.mode_key), mask);
}

/// Goes to the guest address in ADDRESS by the table of targets, or leaves there.
fn go(asm: &mut Asm, leave: usize) {
    asm.scaled32(SECOND, ADDRESS, TARGET_SCALE);
    asm.and32(SECOND, TARGET_MASK as i32);
    asm.add_gs(SECOND, TARGETS);
    asm.cmp_at(ADDRESS, SECOND, 0);
    let miss = asm.jcc(NOT_ZERO);
    asm.jmp_at(SECOND, 8);
    asm.resolve_here(miss);
    asm.store(RIP, ADDRESS);
    asm.load_immediate32(ADDRESS, PASSED);
    let out = asm.jmp();
    asm.resolve(out, leave);
}
