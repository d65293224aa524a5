//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, with REP (SDM vol. 2).
//!
//! A repeated instruction keeps its progress in RCX, RSI and RDI. It can be interrupted between
//! iterations, and a fault leaves all earlier iterations done. The host's own string instructions
//! perform upward copies, fills and comparisons, a page at a time.
#![allow(unsafe_code)] // whole-page runs through host pointers; see docs/UNSAFE.md

use crate::alu::{Alu, ZF};
use crate::cpu::Op;
use crate::cpu::{Cpu, truncate};
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
fn index(cpu: &Cpu, op: &Op, r: usize) -> u64 {
    truncate(cpu.state.gpr[r], op.address_size)
}

fn set_index(cpu: &mut Cpu, op: &Op, r: usize, value: u64) {
    match op.address_size {
        2 => cpu.set_reg::<u16>(r as u8, value as u16),
        4 => cpu.set_reg::<u32>(r as u8, value as u32),
        _ => cpu.set_reg::<u64>(r as u8, value),
    }
}

fn down(cpu: &Cpu) -> bool {
    cpu.state.flags.system & Rflags::DF.bits() != 0
}

/// Moves index register `r` past `n` elements.
fn advance<W: Word>(cpu: &mut Cpu, op: &Op, r: usize, n: u64) {
    let bytes = n.wrapping_mul(u64::from(W::SIZE));
    let old = cpu.state.gpr[r];
    let new = if down(cpu) { old.wrapping_sub(bytes) } else { old.wrapping_add(bytes) };
    set_index(cpu, op, r, new);
}

fn source<W: Word>(cpu: &mut Cpu, op: &Op) -> Fallible<u64> {
    let offset = index(cpu, op, gpr::RSI);
    cpu.segmented(op.seg, offset, u64::from(W::SIZE), AccessKind::Read)
}

fn destination<W: Word>(cpu: &mut Cpu, op: &Op, kind: AccessKind) -> Fallible<u64> {
    let offset = index(cpu, op, gpr::RDI);
    cpu.segmented(ES, offset, u64::from(W::SIZE), kind)
}

/// Runs `iteration` as the REP prefix says. It returns how many elements it has done (never more
/// than it was offered) and whether to go on.
fn repeat(
    cpu: &mut Cpu,
    op: &Op,
    mut iteration: impl FnMut(&mut Cpu, u64) -> Fallible<(u64, bool)>,
) -> Step {
    if op.rep == 0 {
        return step_to(iteration(cpu, 1).map(|_| Step::Next));
    }
    cpu.mid_repeat = false;
    narrow(cpu, op, &[gpr::RCX]);
    let performed_by = op.run.get() as usize;
    for _ in 0..PART {
        let left = index(cpu, op, gpr::RCX);
        if left == 0 {
            return Step::Next;
        }
        let (done, go_on) = match iteration(cpu, left) {
            Ok(progress) => progress,
            Err(fault) => return step_to(Err(fault)),
        };
        let left = left - done;
        set_index(cpu, op, gpr::RCX, left);
        if left == 0 || !go_on {
            return Step::Next;
        }
        // Every iteration is an instruction boundary: an instruction that has overwritten itself is
        // fetched anew (SDM vol. 3, 11.6).
        if op.run.get() as usize != performed_by {
            return again(cpu, op);
        }
        // Single step and breakpoints trap after each iteration; interrupts are served between
        // iterations.
        if cpu.attention || cpu.signals.bits() != 0 {
            return again(cpu, op);
        }
    }
    // Each part counts as an instruction, so that no count in RCX outlasts a budget.
    cpu.instructions += 1;
    again(cpu, op)
}

/// Clears the upper halves of the count and index registers of a repeated instruction with 32-bit
/// addresses. Intel's processors do so before the first iteration, even if there is none or it
/// faults; the manual leaves it open.
fn narrow(cpu: &mut Cpu, op: &Op, registers: &[usize]) {
    if op.rep != 0 && op.address_size == 4 {
        registers.iter().for_each(|&r| cpu.state.gpr[r] &= 0xffff_ffff);
    }
}

/// Continues with the same instruction after the run loop has polled events between two iterations.
fn again(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.state.rip = cpu.ip(op);
    cpu.mid_repeat = true;
    Step::Again
}

/// How many elements from `la` upwards lie on its page without one crossing its end.
fn room<W: Word>(la: u64) -> u64 {
    (PAGE_MASK + 1 - (la & PAGE_MASK)) / u64::from(W::SIZE)
}

/// Whether the page-run forms apply: upwards, no checks or traps per element, indices that do not
/// wrap within the run.
fn runs(cpu: &Cpu) -> bool {
    !down(cpu)
        && !cpu.attention
        && cpu.mmu.watched == [None; 4]
        && cpu.mode == x86::state::Mode::Long64
        && !cpu.alignment_checked()
}

/// The index registers used must not wrap at the address size within `n` elements.
fn unwrapped<W: Word>(cpu: &Cpu, op: &Op, r: usize, n: u64) -> bool {
    let start = index(cpu, op, r);
    op.address_size == 8 || start + n * u64::from(W::SIZE) <= 1 << (8 * u32::from(op.address_size))
}

/// How many of `left` elements a run may take whose ends, each an index register and where it
/// points, go up together; `None`: no run.
fn run<W: Word>(cpu: &Cpu, op: &Op, left: u64, ends: &[(usize, u64)]) -> Option<u64> {
    if left < 2 || !runs(cpu) {
        return None;
    }
    let n = ends.iter().fold(left, |n, &(_, la)| n.min(room::<W>(la)));
    (n > 1 && ends.iter().all(|&(r, _)| unwrapped::<W>(cpu, op, r, n))).then_some(n)
}

/// MOVS.
pub(crate) fn movs<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    narrow(cpu, op, &[gpr::RSI, gpr::RDI]);
    repeat(cpu, op, |cpu, left| {
        let from = source::<W>(cpu, op)?;
        let Ok(to) = destination::<W>(cpu, op, AccessKind::Write) else {
            // Faults of the source come before those of the destination.
            let fault = cpu.fault;
            cpu.load::<W>(from)?;
            return cpu.raise(fault);
        };
        if let Some(n) = run::<W>(cpu, op, left, &[(gpr::RSI, from), (gpr::RDI, to)])
            && copy_run::<W>(cpu, op, from, to, n)?
        {
            advance::<W>(cpu, op, gpr::RSI, n);
            advance::<W>(cpu, op, gpr::RDI, n);
            return Ok((n, true));
        }
        let value = cpu.load::<W>(from)?;
        cpu.store::<W>(to, value)?;
        advance::<W>(cpu, op, gpr::RSI, 1);
        advance::<W>(cpu, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// Copies `n` elements within one page each. Returns false if a page is not RAM or holds the
/// instruction itself.
fn copy_run<W: Word>(cpu: &mut Cpu, op: &Op, from: u64, to: u64, n: u64) -> Fallible<bool> {
    let (privilege, bytes) = (cpu.privilege(), n * u64::from(W::SIZE));
    let seen = cpu.mmu.seen();
    let source = cpu.mmu.pin(from, bytes, AccessKind::Read, privilege);
    let Some((source, _)) = cpu.check(source)? else { return Ok(false) };
    let target = cpu.mmu.pin(to, bytes, AccessKind::Write, privilege);
    let Some((target, gpa)) = cpu.check(target)? else { return Ok(false) };
    if gpa.is_some_and(|gpa| overwrites_itself(cpu, op, gpa, bytes)) {
        return Ok(false);
    }
    // Overlap closer than an element upwards would repeat bytes differently from element-wise
    // copying.
    let distance = (target as u64).wrapping_sub(source as u64);
    let repeats = distance != 0 && distance < u64::from(W::SIZE);
    // The source may have been evicted while the target was brought in.
    if repeats || cpu.mmu.seen() != seen {
        return Ok(false);
    }
    // SAFETY: `pin` vouches for `bytes` of RAM at both.
    unsafe { ram::copy_up(source, target, bytes as usize) };
    cpu.mmu.wrote(gpa, bytes);
    Ok(true)
}

/// STOS.
pub(crate) fn stos<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    narrow(cpu, op, &[gpr::RDI]);
    repeat(cpu, op, |cpu, left| {
        let to = destination::<W>(cpu, op, AccessKind::Write)?;
        let value = cpu.reg::<W>(0);
        if let Some(n) = run::<W>(cpu, op, left, &[(gpr::RDI, to)])
            && fill_run(cpu, op, to, value, n)?
        {
            advance::<W>(cpu, op, gpr::RDI, n);
            return Ok((n, true));
        }
        cpu.store::<W>(to, value)?;
        advance::<W>(cpu, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// As [`copy_run`], with `value`.
fn fill_run<W: Word>(cpu: &mut Cpu, op: &Op, to: u64, value: W, n: u64) -> Fallible<bool> {
    let (privilege, bytes) = (cpu.privilege(), n * u64::from(W::SIZE));
    let target = cpu.mmu.pin(to, bytes, AccessKind::Write, privilege);
    let Some((target, gpa)) = cpu.check(target)? else { return Ok(false) };
    if gpa.is_some_and(|gpa| overwrites_itself(cpu, op, gpa, bytes)) {
        return Ok(false);
    }
    // SAFETY: `pin` has checked that `bytes` bytes from `target` on are RAM that may be written.
    unsafe { ram::fill(target, value, n as usize) };
    cpu.mmu.wrote(gpa, bytes);
    Ok(true)
}

/// Whether `op`, of 64-bit mode, has one of its own bytes among `bytes` at `gpa`: it must then go
/// element by element, to be fetched anew in time.
#[cold]
fn overwrites_itself(cpu: &Cpu, op: &Op, gpa: u64, bytes: u64) -> bool {
    cpu.mmu.blocks.holds(gpa, bytes)
        && (0..u64::from(op.len)).any(|n| {
            let la = cpu.ip(op).wrapping_add(n);
            let entry = cpu.fetch_entry(la);
            let known = entry.tag == la & !PAGE_MASK;
            !known || (entry.gpa | la & PAGE_MASK).wrapping_sub(gpa) < bytes
        })
}

/// LODS.
pub(crate) fn lods<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    repeat(cpu, op, |cpu, _| {
        let from = source::<W>(cpu, op)?;
        let value = cpu.load::<W>(from)?;
        cpu.set_reg::<W>(0, value);
        advance::<W>(cpu, op, gpr::RSI, 1);
        Ok((1, true))
    })
}

/// How words compare as long as the prefix lets the instruction go on.
fn still(op: &Op) -> While {
    if op.rep == REPNE { While::Unequal } else { While::Equal }
}

/// Whether the instruction goes on after a comparison.
fn goes_on(cpu: &Cpu, op: &Op) -> bool {
    (cpu.state.flags.arith & ZF != 0) == (still(op) == While::Equal)
}

/// Runs a comparison as [`repeat`] does. Status flags change only when the instruction ends: after
/// a fault they are as before it (SDM vol. 2, REP).
fn compare(
    cpu: &mut Cpu,
    op: &Op,
    iteration: impl FnMut(&mut Cpu, u64) -> Fallible<(u64, bool)>,
) -> Step {
    let before = cpu.state.flags.arith;
    let step = repeat(cpu, op, iteration);
    if matches!(step, Step::Again | Step::Fault) {
        cpu.state.flags.arith = before;
    }
    step
}

/// CMPS.
pub(crate) fn cmps<W: Alu>(cpu: &mut Cpu, op: &Op) -> Step {
    compare(cpu, op, |cpu, left| {
        let first = source::<W>(cpu, op)?;
        let mut a = cpu.load::<W>(first)?;
        let second = destination::<W>(cpu, op, AccessKind::Read)?;
        let mut b = cpu.load::<W>(second)?;
        let mut n = 1;
        if let Some(most) = run::<W>(cpu, op, left, &[(gpr::RSI, first), (gpr::RDI, second)])
            && let Some(made) = compare_run::<W>(cpu, first, second, most, still(op))?
        {
            (n, a, b) = made;
        }
        a.sub(b, &mut cpu.state.flags.arith);
        advance::<W>(cpu, op, gpr::RSI, n);
        advance::<W>(cpu, op, gpr::RDI, n);
        Ok((n, goes_on(cpu, op)))
    })
}

/// Compares up to `most` elements, within one page each. Returns how many, and the last two; `None`
/// if a page is not RAM.
fn compare_run<W: Word>(
    cpu: &mut Cpu,
    first: u64,
    second: u64,
    most: u64,
    still: While,
) -> Fallible<Option<(u64, W, W)>> {
    let (privilege, bytes) = (cpu.privilege(), most * u64::from(W::SIZE));
    let seen = cpu.mmu.seen();
    let a = cpu.mmu.pin(first, bytes, AccessKind::Read, privilege);
    let Some((a, _)) = cpu.check(a)? else { return Ok(None) };
    let b = cpu.mmu.pin(second, bytes, AccessKind::Read, privilege);
    let Some((b, _)) = cpu.check(b)? else { return Ok(None) };
    if cpu.mmu.seen() != seen {
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
pub(crate) fn scas<W: Alu>(cpu: &mut Cpu, op: &Op) -> Step {
    compare(cpu, op, |cpu, left| {
        let la = destination::<W>(cpu, op, AccessKind::Read)?;
        let mut b = cpu.load::<W>(la)?;
        let mut n = 1;
        if let Some(most) = run::<W>(cpu, op, left, &[(gpr::RDI, la)])
            && let Some(made) = scan_run::<W>(cpu, la, most, still(op))?
        {
            (n, b) = made;
        }
        cpu.reg::<W>(0).sub(b, &mut cpu.state.flags.arith);
        advance::<W>(cpu, op, gpr::RDI, n);
        Ok((n, goes_on(cpu, op)))
    })
}

/// As [`compare_run`], with the accumulator.
fn scan_run<W: Word>(
    cpu: &mut Cpu,
    la: u64,
    most: u64,
    still: While,
) -> Fallible<Option<(u64, W)>> {
    let (privilege, bytes) = (cpu.privilege(), most * u64::from(W::SIZE));
    let b = cpu.mmu.pin(la, bytes, AccessKind::Read, privilege);
    let Some((b, _)) = cpu.check(b)? else { return Ok(None) };
    let value = cpu.reg::<W>(0);
    // SAFETY: `pin` has checked that `bytes` bytes from `b` on are RAM, within one page.
    unsafe {
        let n = ram::scan::<W>(value, b, most as usize, still);
        Ok(Some((n as u64, ram::load(b.add((n - 1) * usize::from(W::SIZE))))))
    }
}

/// Checks the right to use the port in DX, as processors do even if the count of a REP prefix is
/// zero.
fn port<W: Word>(cpu: &mut Cpu) -> Fallible<u16> {
    let port = cpu.reg::<u16>(2);
    let (_, state, mut bus) = cpu.parts();
    let allowed = ioperm::check(state, &mut bus, Port(port), port_width(W::SIZE));
    cpu.check(allowed)?;
    Ok(port)
}

/// INS.
pub(crate) fn ins<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    if port::<W>(cpu).is_err() {
        return Step::Fault;
    }
    repeat(cpu, op, |cpu, _| {
        let port = port::<W>(cpu)?;
        let to = destination::<W>(cpu, op, AccessKind::Write)?;
        // The port is read only once the store is certain to succeed.
        let privilege = cpu.privilege();
        let probe = cpu.mmu.probe_write(La(to), u64::from(W::SIZE), privilege);
        cpu.check(probe)?;
        let value = super::system::ports::port_in(cpu, Port(port), port_width(W::SIZE));
        cpu.store::<W>(to, W::cut(value))?;
        advance::<W>(cpu, op, gpr::RDI, 1);
        Ok((1, true))
    })
}

/// OUTS.
pub(crate) fn outs<W: Word>(cpu: &mut Cpu, op: &Op) -> Step {
    if port::<W>(cpu).is_err() {
        return Step::Fault;
    }
    repeat(cpu, op, |cpu, _| {
        let port = port::<W>(cpu)?;
        let from = source::<W>(cpu, op)?;
        let value = cpu.load::<W>(from)?;
        super::system::ports::port_out(cpu, Port(port), port_width(W::SIZE), value.zext());
        advance::<W>(cpu, op, gpr::RSI, 1);
        Ok((1, true))
    })
}
