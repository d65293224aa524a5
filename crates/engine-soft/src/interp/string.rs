//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, with REP (SDM vol. 2).
//!
//! A repeated instruction keeps its progress in RCX, RSI and RDI. It can be interrupted between
//! iterations, and a fault leaves all earlier iterations done. The host's own string instructions
//! perform upward copies, fills and comparisons, a page at a time.
#![allow(unsafe_code)] // whole-page runs through host pointers; see docs/UNSAFE.md

use crate::alu::{Alu, ZF};
use crate::core::Op;
use crate::core::{Core, truncate};
use crate::observer::CodeCache;
use crate::op::{Fallible, REPNE, Step, port_width, step_to};
use crate::ram::{self, While};
use crate::tlb::PAGE_MASK;
use crate::word::Word;
use x86::addr::{La, Port};
use x86::bus::AccessKind;
use x86::ioperm;
use x86::regs::Rflags;
use x86::state::{Seg, gpr};

/// Iterations, or whole page runs, after which a repeated instruction lets the run loop look at its
/// budget.
const PART: u32 = 1 << 14;

/// Destination segment of string instructions.
const ES: u8 = Seg::Es as u8;

/// A count or index register, cut to the address size.
fn index(core: &Core, op: &Op, r: usize) -> u64 {
    truncate(core.state.gpr[r], op.address_size)
}

fn set_index(core: &mut Core, op: &Op, r: usize, value: u64) {
    match op.address_size {
        2 => core.set_reg::<u16>(r as u8, value as u16),
        4 => core.set_reg::<u32>(r as u8, value as u32),
        _ => core.set_reg::<u64>(r as u8, value),
    }
}

fn down(core: &Core) -> bool {
    core.state.flags.system & Rflags::DF.bits() != 0
}

/// Moves index register `r` past `n` elements.
fn advance<W: Word>(core: &mut Core, op: &Op, r: usize, n: u64) {
    let bytes = n.wrapping_mul(u64::from(W::SIZE));
    let old = core.state.gpr[r];
    let new = if down(core) { old.wrapping_sub(bytes) } else { old.wrapping_add(bytes) };
    set_index(core, op, r, new);
}

fn source<W: Word>(core: &mut Core, op: &Op) -> Fallible<u64> {
    let offset = index(core, op, gpr::RSI);
    core.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Read)
}

fn destination<W: Word>(core: &mut Core, op: &Op, kind: AccessKind) -> Fallible<u64> {
    let offset = index(core, op, gpr::RDI);
    core.segmented(ES, offset, u64::from(W::SIZE), kind)
}

/// Runs `iteration` as the REP prefix says. It returns how many elements it has done (never more
/// than it was offered) and whether to go on.
fn repeat(
    core: &mut Core,
    op: &Op,
    mut iteration: impl FnMut(&mut Core, u64) -> Fallible<(u64, bool)>,
) -> Step {
    if op.rep == 0 {
        return step_to(iteration(core, 1).map(|_| Step::Next));
    }
    core.mid_repeat = false;
    narrow(core, op, &[gpr::RCX]);
    let performed_by = op.run.get() as usize;
    for _ in 0..PART {
        let left = index(core, op, gpr::RCX);
        if left == 0 {
            return Step::Next;
        }
        let (done, go_on) = match iteration(core, left) {
            Ok(progress) => progress,
            Err(fault) => return step_to(Err(fault)),
        };
        let left = left - done;
        set_index(core, op, gpr::RCX, left);
        if left == 0 || !go_on {
            return Step::Next;
        }
        // Every iteration is an instruction boundary: an instruction that has overwritten itself is
        // fetched anew (SDM vol. 3, 11.6).
        if op.run.get() as usize != performed_by {
            return again(core, op);
        }
        // Single step and breakpoints trap after each iteration; interrupts are served between
        // iterations.
        if core.attention || core.signals.bits() != 0 {
            return again(core, op);
        }
    }
    // Each part counts as an instruction, so that no count in RCX outlasts a budget.
    core.instructions += 1;
    again(core, op)
}

/// Clears the upper halves of the count and index registers of a repeated instruction with 32-bit
/// addresses. Intel's processors do so before the first iteration, even if there is none or it
/// faults; the manual leaves it open.
fn narrow(core: &mut Core, op: &Op, registers: &[usize]) {
    if op.rep != 0 && op.address_size == 4 {
        registers.iter().for_each(|&r| core.state.gpr[r] &= 0xffff_ffff);
    }
}

/// Continues with the same instruction after the run loop has polled events between two iterations.
fn again(core: &mut Core, op: &Op) -> Step {
    core.state.rip = core.ip(op);
    core.mid_repeat = true;
    Step::Again
}

/// How many elements from `la` upwards lie on its page without one crossing its end.
fn room<W: Word>(la: u64) -> u64 {
    (PAGE_MASK + 1 - (la & PAGE_MASK)) / u64::from(W::SIZE)
}

/// Whether the page-run forms apply: upwards, no checks or traps per element, indices that do not
/// wrap within the run.
fn runs(core: &Core) -> bool {
    !down(core)
        && !core.attention
        && core.mmu.watched == [None; 4]
        && core.mode == x86::state::Mode::Long64
        && !core.alignment_checked()
}

/// The index registers used must not wrap at the address size within `n` elements.
fn unwrapped<W: Word>(core: &Core, op: &Op, r: usize, n: u64) -> bool {
    let start = index(core, op, r);
    op.address_size == 8 || start + n * u64::from(W::SIZE) <= 1 << (8 * u32::from(op.address_size))
}

/// How many of `left` elements a run may take whose ends, each an index register and where it
/// points, go up together; `None`: no run.
fn run<W: Word>(core: &Core, op: &Op, left: u64, ends: &[(usize, u64)]) -> Option<u64> {
    if left < 2 || !runs(core) {
        return None;
    }
    let n = ends.iter().fold(left, |n, &(_, la)| n.min(room::<W>(la)));
    (n > 1 && ends.iter().all(|&(r, _)| unwrapped::<W>(core, op, r, n))).then_some(n)
}

/// MOVS.
pub(crate) fn movs<W: Word>(core: &mut Core, op: &Op) -> Step {
    narrow(core, op, &[gpr::RSI, gpr::RDI]);
    repeat(core, op, |core, left| {
        let from = source::<W>(core, op)?;
        let Ok(to) = destination::<W>(core, op, AccessKind::Write) else {
            // Faults of the source come before those of the destination.
            let fault = core.fault;
            core.load::<W>(from)?;
            return core.raise(fault);
        };
        if let Some(n) = run::<W>(core, op, left, &[(gpr::RSI, from), (gpr::RDI, to)])
            && copy_run::<W>(core, op, from, to, n)?
        {
            advance::<W>(core, op, gpr::RSI, n);
            advance::<W>(core, op, gpr::RDI, n);
            return Ok((n, true));
        }
        let value = core.load::<W>(from)?;
        core.store::<W>(to, value)?;
        advance::<W>(core, op, gpr::RSI, 1);
        advance::<W>(core, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// Copies `n` elements within one page each. Returns false if a page is not RAM or holds the
/// instruction itself.
fn copy_run<W: Word>(core: &mut Core, op: &Op, from: u64, to: u64, n: u64) -> Fallible<bool> {
    let (privilege, bytes) = (core.privilege(), n * u64::from(W::SIZE));
    let seen = core.mmu.seen();
    let source = core.mmu.pin(from, bytes, AccessKind::Read, privilege);
    let Some((source, _)) = core.check(source)? else { return Ok(false) };
    let target = core.mmu.pin(to, bytes, AccessKind::Write, privilege);
    let Some((target, gpa)) = core.check(target)? else { return Ok(false) };
    if gpa.is_some_and(|gpa| overwrites_itself(core, op, gpa, bytes)) {
        return Ok(false);
    }
    // The source may have been evicted while the target was brought in.
    if core.mmu.seen() != seen {
        return Ok(false);
    }
    // SAFETY: `pin` vouches for `bytes` of RAM at both.
    unsafe { ram::copy_up::<W>(source, target, n as usize) };
    core.mmu.wrote(gpa, bytes);
    Ok(true)
}

/// STOS.
pub(crate) fn stos<W: Word>(core: &mut Core, op: &Op) -> Step {
    narrow(core, op, &[gpr::RDI]);
    repeat(core, op, |core, left| {
        let to = destination::<W>(core, op, AccessKind::Write)?;
        let value = core.reg::<W>(0);
        if let Some(n) = run::<W>(core, op, left, &[(gpr::RDI, to)])
            && fill_run(core, op, to, value, n)?
        {
            advance::<W>(core, op, gpr::RDI, n);
            return Ok((n, true));
        }
        core.store::<W>(to, value)?;
        advance::<W>(core, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// As [`copy_run`], with `value`.
fn fill_run<W: Word>(core: &mut Core, op: &Op, to: u64, value: W, n: u64) -> Fallible<bool> {
    let (privilege, bytes) = (core.privilege(), n * u64::from(W::SIZE));
    let target = core.mmu.pin(to, bytes, AccessKind::Write, privilege);
    let Some((target, gpa)) = core.check(target)? else { return Ok(false) };
    if gpa.is_some_and(|gpa| overwrites_itself(core, op, gpa, bytes)) {
        return Ok(false);
    }
    // SAFETY: `pin` has checked that `bytes` bytes from `target` on are RAM that may be written.
    unsafe { ram::fill(target, value, n as usize) };
    core.mmu.wrote(gpa, bytes);
    Ok(true)
}

/// Whether `op`, of 64-bit mode, has one of its own bytes among `bytes` at `gpa`: it must then go
/// element by element, to be fetched anew in time.
#[cold]
fn overwrites_itself(core: &Core, op: &Op, gpa: u64, bytes: u64) -> bool {
    core.mmu.blocks.holds(gpa, bytes)
        && (0..u64::from(op.len)).any(|n| {
            let la = core.ip(op).wrapping_add(n);
            let entry = core.fetch_entry(la);
            let known = entry.tag == la & !PAGE_MASK;
            !known || (entry.gpa | la & PAGE_MASK).wrapping_sub(gpa) < bytes
        })
}

/// LODS.
pub(crate) fn lods<W: Word>(core: &mut Core, op: &Op) -> Step {
    repeat(core, op, |core, _| {
        let from = source::<W>(core, op)?;
        let value = core.load::<W>(from)?;
        core.set_reg::<W>(0, value);
        advance::<W>(core, op, gpr::RSI, 1);
        Ok((1, true))
    })
}

/// How words compare as long as the prefix lets the instruction go on.
fn still(op: &Op) -> While {
    if op.rep == REPNE { While::Unequal } else { While::Equal }
}

/// Whether the instruction goes on after a comparison.
fn goes_on(core: &Core, op: &Op) -> bool {
    (core.state.flags.arith & ZF != 0) == (still(op) == While::Equal)
}

/// Runs a comparison as [`repeat`] does. Status flags change only when the instruction ends: after
/// a fault they are as before it (SDM vol. 2, REP).
fn compare(
    core: &mut Core,
    op: &Op,
    iteration: impl FnMut(&mut Core, u64) -> Fallible<(u64, bool)>,
) -> Step {
    let before = core.state.flags.arith;
    let step = repeat(core, op, iteration);
    if matches!(step, Step::Again | Step::Fault) {
        core.state.flags.arith = before;
    }
    step
}

/// CMPS.
pub(crate) fn cmps<W: Alu>(core: &mut Core, op: &Op) -> Step {
    compare(core, op, |core, left| {
        let first = source::<W>(core, op)?;
        let mut a = core.load::<W>(first)?;
        let second = destination::<W>(core, op, AccessKind::Read)?;
        let mut b = core.load::<W>(second)?;
        let mut n = 1;
        if let Some(most) = run::<W>(core, op, left, &[(gpr::RSI, first), (gpr::RDI, second)])
            && let Some(made) = compare_run::<W>(core, first, second, most, still(op))?
        {
            (n, a, b) = made;
        }
        a.sub(b, &mut core.state.flags.arith);
        advance::<W>(core, op, gpr::RSI, n);
        advance::<W>(core, op, gpr::RDI, n);
        Ok((n, goes_on(core, op)))
    })
}

/// Compares up to `most` elements, within one page each. Returns how many, and the last two; `None`
/// if a page is not RAM.
fn compare_run<W: Word>(
    core: &mut Core,
    first: u64,
    second: u64,
    most: u64,
    still: While,
) -> Fallible<Option<(u64, W, W)>> {
    let (privilege, bytes) = (core.privilege(), most * u64::from(W::SIZE));
    let seen = core.mmu.seen();
    let a = core.mmu.pin(first, bytes, AccessKind::Read, privilege);
    let Some((a, _)) = core.check(a)? else { return Ok(None) };
    let b = core.mmu.pin(second, bytes, AccessKind::Read, privilege);
    let Some((b, _)) = core.check(b)? else { return Ok(None) };
    if core.mmu.seen() != seen {
        // The first page may have been evicted while the second was brought in.
        return Ok(None);
    }
    // SAFETY: `pin` vouches for `bytes` of RAM at both. What another processor changes meanwhile
    // counts as it is when the last are read.
    unsafe {
        let n = ram::compare::<W>(a, b, most as usize, still);
        let last = (n - 1) * usize::from(W::SIZE);
        Ok(Some((n as u64, ram::load(a.add(last)), ram::load(b.add(last)))))
    }
}

/// SCAS.
pub(crate) fn scas<W: Alu>(core: &mut Core, op: &Op) -> Step {
    compare(core, op, |core, left| {
        let la = destination::<W>(core, op, AccessKind::Read)?;
        let mut b = core.load::<W>(la)?;
        let mut n = 1;
        if let Some(most) = run::<W>(core, op, left, &[(gpr::RDI, la)])
            && let Some(made) = scan_run::<W>(core, la, most, still(op))?
        {
            (n, b) = made;
        }
        core.reg::<W>(0).sub(b, &mut core.state.flags.arith);
        advance::<W>(core, op, gpr::RDI, n);
        Ok((n, goes_on(core, op)))
    })
}

/// As [`compare_run`], with the accumulator.
fn scan_run<W: Word>(
    core: &mut Core,
    la: u64,
    most: u64,
    still: While,
) -> Fallible<Option<(u64, W)>> {
    let (privilege, bytes) = (core.privilege(), most * u64::from(W::SIZE));
    let b = core.mmu.pin(la, bytes, AccessKind::Read, privilege);
    let Some((b, _)) = core.check(b)? else { return Ok(None) };
    let value = core.reg::<W>(0);
    // SAFETY: `pin` has checked that `bytes` bytes from `b` on are RAM, within one page.
    unsafe {
        let n = ram::scan::<W>(value, b, most as usize, still);
        Ok(Some((n as u64, ram::load(b.add((n - 1) * usize::from(W::SIZE))))))
    }
}

/// Checks the right to use the port in DX, as processors do even if the count of a REP prefix is
/// zero.
fn port<W: Word>(core: &mut Core) -> Fallible<u16> {
    let port = core.reg::<u16>(2);
    let (_, state, mut bus) = core.parts();
    let allowed = ioperm::check(state, &mut bus, Port(port), port_width(W::SIZE));
    core.check(allowed)?;
    Ok(port)
}

/// INS.
pub(crate) fn ins<W: Word>(core: &mut Core, op: &Op) -> Step {
    if port::<W>(core).is_err() {
        return Step::Fault;
    }
    repeat(core, op, |core, _| {
        let port = port::<W>(core)?;
        let to = destination::<W>(core, op, AccessKind::Write)?;
        // The port is read only once the store is certain to succeed.
        let privilege = core.privilege();
        let probe = core.mmu.probe_write(La(to), u64::from(W::SIZE), privilege);
        core.check(probe)?;
        let value = super::system::ports::port_in(core, Port(port), port_width(W::SIZE));
        core.store::<W>(to, W::cut(value))?;
        advance::<W>(core, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// OUTS.
pub(crate) fn outs<W: Word>(core: &mut Core, op: &Op) -> Step {
    if port::<W>(core).is_err() {
        return Step::Fault;
    }
    repeat(core, op, |core, _| {
        let port = port::<W>(core)?;
        let from = source::<W>(core, op)?;
        let value = core.load::<W>(from)?;
        super::system::ports::port_out(core, Port(port), port_width(W::SIZE), value.zext());
        advance::<W>(core, op, gpr::RSI, 1);
        Ok((1, true))
    })
}
