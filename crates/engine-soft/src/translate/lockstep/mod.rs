//! T0 and T1 side by side. At each entry into translated code the interpreter runs ahead and is
//! undone. Translated code must then reach the same state, and write the same memory (ADR 0019).
//!
//! The interpreter runs on the same processor, with a [`Log`] of its stores in the MMU. Where it
//! comes to a place that translated code never passes, translated code must stop there at the
//! latest. In a long loop it comes to no such place: translated code is made to stop at its first
//! poll, and after some such entries finishes the loop unwatched. The first difference is reported
//! and ends the run.

mod compare;
mod log;
mod reference;
mod report;
mod verdict;

pub use compare::differences;
pub(crate) use log::Log;

use super::run::{self, Entry, ExitReason};
use crate::cpu::Cpu;
use reference::{End, Recording};
use std::collections::HashMap;
use vcpu::{Exit, Lockstep as Counters};
use verdict::Verdict;
use x86::state::CpuState;

/// Instructions that the reference runs ahead at the most.
const AHEAD: usize = 512;
/// Entries of a place that are compared up to the first poll, after one at which the reference got
/// to no end.
const SHORT: u32 = 16;
/// One entry in so many meets a TLB miss in its middle.
const MISSES: u64 = 8;
/// Places about which something is remembered.
const PLACES: usize = 1 << 16;

/// How far it is worthwhile to run ahead from a place.
#[derive(Clone, Copy)]
struct Hint {
    ahead: usize,
    /// How often yet, before the loop may finish.
    left: u32,
}

/// Nothing is known of a place.
const FAR: Hint = Hint { ahead: AHEAD, left: SHORT };

/// A wrong result on purpose, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A general register.
    Register,
    /// A status flag.
    Flag,
    /// A vector register.
    Vector,
    /// A byte near the stack pointer.
    Memory,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Lockstep {
    recording: Recording,
    log: Option<Box<Log>>,
    expected: CpuState,
    hints: HashMap<u64, Hint>,
    pub(crate) counters: Counters,
    pub(crate) sabotage: Option<Sabotage>,
}

/// As [`run::enter`], compared with the interpreter if that is asked for.
pub(crate) fn enter(
    lockstep: &mut Option<&mut Lockstep>,
    cpu: &mut Cpu,
    entry: Entry,
) -> ExitReason {
    match lockstep {
        Some(lockstep) => lockstep.enter(cpu, entry),
        None => run::enter(cpu, entry),
    }
}

impl Lockstep {
    #[inline(never)]
    fn enter(&mut self, cpu: &mut Cpu, entry: Entry) -> ExitReason {
        let place = cpu.core.state.rip;
        let hint = self.hints.get(&place).copied().unwrap_or(FAR);
        if hint.left == 0 {
            self.hints.remove(&place);
            return self.unwatched(cpu, entry);
        }
        let end = self.run_ahead(cpu, hint.ahead);
        // Translated code must not go far beyond it.
        cpu.stopping = end == End::Limit;
        self.provoke(cpu);
        let before = cpu.translator.instructions;
        let left = run::enter(cpu, entry);
        cpu.stopping = false;
        let ran = (cpu.translator.instructions - before) as usize;
        self.spoil(cpu, ran);
        self.remember(place, hint, end, ran);
        match self.compare(cpu, ran, end) {
            Verdict::Same => self.counters.judged += ran as u64,
            Verdict::Unknown => self.counters.unjudged += ran as u64,
            Verdict::Differs(differences) => {
                let text = report::text(cpu, &self.recording, ran, end, &differences);
                cpu.core.exit = Some(Exit::Fatal(text));
                cpu.core.attention = true;
            }
        }
        self.counters.entries += 1;
        self.counters.ahead += self.recording.done.len() as u64;
        left
    }

    /// The rest of a long loop.
    fn unwatched(&mut self, cpu: &mut Cpu, entry: Entry) -> ExitReason {
        let before = cpu.translator.instructions;
        let left = run::enter(cpu, entry);
        self.counters.unwatched += cpu.translator.instructions - before;
        left
    }

    /// Lets the interpreter run, and undoes what it did.
    fn run_ahead(&mut self, cpu: &mut Cpu, limit: usize) -> End {
        let mut log = self.log.take().unwrap_or_default();
        log.clear();
        cpu.core.mmu.watch_devices();
        cpu.core.mmu.log = Some(log);
        let direct = cpu.core.stats.direct;
        let end = self.recording.run(cpu, limit);
        cpu.core.stats.direct = direct;
        let log = cpu.core.mmu.log.take().unwrap_or_default();
        log.undo(&cpu.core.mmu.ram);
        cpu.core.state.clone_from(&self.recording.before);
        if log.tables_changed(&cpu.core.mmu.ram, cpu.core.state.paging.cr3) {
            cpu.core.mmu.flush_tlb();
        }
        self.log = Some(log);
        cpu.core.data_hits = 0;
        cpu.core.refresh();
        end
    }

    /// Makes some access of translated code miss the TLB, now and then: the reference has filled
    /// it.
    fn provoke(&self, cpu: &mut Cpu) {
        let n = self.counters.entries;
        if n.is_multiple_of(MISSES)
            && let Some(la) = self.log.as_ref().and_then(|log| log.touched((n / MISSES) as usize))
        {
            cpu.core.mmu.forget(la);
        }
    }

    /// Learns how far to run ahead from `place`.
    fn remember(&mut self, place: u64, hint: Hint, end: End, ran: usize) {
        if end != End::Limit {
            return;
        }
        let far = hint.left == SHORT;
        let ahead = if far { ran + 1 } else { hint.ahead.max(ran + 1) };
        let next = Hint { ahead: ahead.min(AHEAD), left: hint.left.saturating_sub(1) };
        if self.hints.len() > PLACES {
            self.hints.clear();
        }
        self.hints.insert(place, next);
    }

    /// Does the harm that a test asks for.
    fn spoil(&mut self, cpu: &mut Cpu, ran: usize) {
        if ran == 0 {
            return;
        }
        match self.sabotage.take() {
            None => {}
            Some(Sabotage::Register) => cpu.core.state.gpr[7] ^= 0x10,
            Some(Sabotage::Flag) => cpu.core.state.flags.arith ^= 1,
            Some(Sabotage::Vector) => cpu.core.state.ymm[5].0[17] ^= 1,
            Some(Sabotage::Memory) => {
                if let Some(log) = &self.log {
                    log.spoil(&cpu.core.mmu.ram);
                }
            }
        }
    }
}
