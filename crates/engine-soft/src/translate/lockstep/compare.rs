//! Compares the state that translated code left with the reference's.

use super::Lockstep;
use super::reference::{self, End};
use super::report;
use super::verdict::{Difference, Verdict};
use crate::cpu::Cpu;
use std::fmt::Debug;
use x86::state::{CpuState, X87, gpr};

/// MXCSR's exception flags.
const MXCSR_STATUS: u32 = 0x3f;

/// What differs between two states, a line each.
pub fn differences(reference: &CpuState, translated: &CpuState) -> String {
    if reference == translated {
        return String::new();
    }
    report::table(&states(reference, reference, translated))
}

impl Lockstep {
    /// Compares the processor, and memory, with the reference after `ran` instructions.
    pub(super) fn compare(&mut self, cpu: &mut Cpu, ran: usize, end: End) -> Verdict {
        if ran > self.recording.done.len() {
            return if end == End::Limit { Verdict::Unknown } else { self.ran_past(cpu, ran, end) };
        }
        let mut unknown = false;
        self.recording.state_after(ran, &mut self.expected);
        self.expected.gpr[gpr::BLOCK_IP] = cpu.core.state.gpr[gpr::BLOCK_IP];
        let (defined, found) = (self.recording.defined(ran), cpu.core.state.flags.arith);
        self.expected.flags.arith = self.expected.flags.arith & defined | found & !defined;
        if self.expected.flags.arith != found {
            // Recovered flags are exact, whether they are read or not.
            let needed = if cpu.translator.recovered {
                Some(true)
            } else {
                self.flags_needed(cpu, ran, end)
            };
            match needed {
                Some(true) => {}
                Some(false) => self.expected.flags.arith = found,
                None => {
                    unknown = true;
                    self.expected.flags.arith = found;
                }
            }
        }
        if end == End::Fault && ran == self.recording.done.len() {
            // The instruction that raised #XM has noted why, as it will again in the interpreter.
            self.expected.x87.mxcsr |= cpu.core.state.x87.mxcsr & MXCSR_STATUS;
        }
        let mut differences = Vec::new();
        if self.expected != cpu.core.state {
            differences = states(&self.recording.before, &self.expected, &cpu.core.state);
        }
        self.memory(cpu, ran, &mut differences);
        match differences.is_empty() {
            false if cpu.core.mmu.devices_wrote() => Verdict::Unknown,
            false => Verdict::Differs(differences),
            true if unknown => Verdict::Unknown,
            true => Verdict::Same,
        }
    }

    /// Whether the status flags that translated code left behind matter. Where the program replaces
    /// all of them before anything reads them, they may be anything (ADR 0016), unless they were
    /// recovered.
    fn flags_needed(&self, cpu: &mut Cpu, ran: usize, end: End) -> Option<bool> {
        if let Some(needed) = self.recording.flags_needed(ran) {
            return Some(needed);
        }
        let last = self.recording.done.last().map_or(self.recording.before.rip, |done| done.rip);
        match end {
            _ if reference::replaced_at(cpu, last) => Some(false),
            End::Left => Some(true),
            _ => None,
        }
    }

    /// Translated code went on where the reference had to stop. All that differs is told, which
    /// says most about where it is now.
    fn ran_past(&mut self, cpu: &Cpu, ran: usize, end: End) -> Verdict {
        let reached = self.recording.done.len();
        let mut list = vec![Difference {
            what: "instructions".into(),
            before: "0".into(),
            reference: format!("{reached} ({end:?})"),
            translated: ran.to_string(),
        }];
        self.recording.state_after(reached, &mut self.expected);
        list.extend(states(&self.recording.before, &self.expected, &cpu.core.state));
        Verdict::Differs(list)
    }

    fn memory(&self, cpu: &Cpu, ran: usize, differences: &mut Vec<Difference>) {
        let writes = self.recording.writes(ran);
        // CALL puts its return address down before it knows whether its target is translated.
        let begun = self.recording.writes(ran + 1).max(writes);
        let Some(log) = &self.log else { return };
        for d in log.differences(&cpu.core.mmu.ram, writes, begun) {
            differences.push(Difference {
                what: format!("[{:#x}]", d.gpa),
                before: format!("{:#04x}", d.before),
                reference: format!("{:#04x}", d.reference),
                translated: format!("{:#04x}", d.translated),
            });
        }
    }
}

/// What differs between `reference` and `translated`.
pub(super) fn states(
    before: &CpuState,
    reference: &CpuState,
    translated: &CpuState,
) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut hex = |what: &str, get: &dyn Fn(&CpuState) -> u64| {
        let (b, r, t) = (get(before), get(reference), get(translated));
        if r != t {
            list.push(Difference {
                what: what.into(),
                before: format!("{b:#x}"),
                reference: format!("{r:#x}"),
                translated: format!("{t:#x}"),
            });
        }
    };
    for (n, name) in gpr::NAMES.iter().enumerate() {
        hex(&name.to_lowercase(), &|s| s.gpr[n]);
    }
    hex("rip", &|s| s.rip);
    hex("rflags", &|s| s.flags.bits());
    hex("cr2", &|s| s.cr2);
    hex("cpl", &|s| s.cpl.into());
    hex("mxcsr", &|s| s.x87.mxcsr.into());
    hex("tsc offset", &|s| s.tsc_offset);
    for n in 0..16 {
        debug(
            &mut list,
            &format!("ymm{n}"),
            &[before, reference, translated].map(|s| Hex(&s.ymm[n].0)),
        );
    }
    for (n, name) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().enumerate() {
        debug(&mut list, name, &[before, reference, translated].map(|s| s.seg[n]));
    }
    let all = [before, reference, translated];
    debug(&mut list, "flags", &all.map(|s| s.flags));
    debug(&mut list, "blocking", &all.map(|s| s.blocking));
    debug(&mut list, "activity", &all.map(|s| s.activity));
    debug(&mut list, "paging", &all.map(|s| s.paging));
    debug(&mut list, "xcr0", &all.map(|s| s.xcr0));
    debug(&mut list, "x87", &all.map(|s| X87 { mxcsr: 0, ..s.x87 }));
    debug(&mut list, "tables", &all.map(|s| (s.gdtr, s.idtr, s.ldtr, s.tr)));
    debug(&mut list, "debug registers", &all.map(|s| s.dr));
    debug(&mut list, "msr", &all.map(|s| s.msr));
    if list.is_empty() {
        debug(&mut list, "state", &all);
    }
    list
}

fn debug<T: Debug + PartialEq>(list: &mut Vec<Difference>, what: &str, values: &[T; 3]) {
    let [before, reference, translated] = values;
    if reference != translated {
        list.push(Difference {
            what: what.into(),
            before: format!("{before:x?}"),
            reference: format!("{reference:x?}"),
            translated: format!("{translated:x?}"),
        });
    }
}

/// A vector register, most significant byte first.
#[derive(PartialEq)]
struct Hex<'a>(&'a [u8; 32]);

impl Debug for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
