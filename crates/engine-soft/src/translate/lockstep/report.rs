//! The report of a difference.

use super::reference::{End, Recording};
use super::verdict::Difference;
use crate::cpu::Cpu;
use crate::translate::listing;
use iced_x86::{Formatter, NasmFormatter};
use std::fmt::Write as _;
use x86::state::gpr;

/// Bytes of memory that are listed.
const LISTED: usize = 64;

/// What happened, for the report.
pub(super) fn text(
    cpu: &Cpu,
    recording: &Recording,
    ran: usize,
    end: End,
    differences: &[Difference],
) -> String {
    let mut out = format!(
        "translated code and the interpreter differ after {ran} instructions from {:#x} \
         (the interpreter ran {}, and stopped: {end:?})\n",
        recording.before.rip,
        recording.done.len(),
    );
    out.push_str(&table(differences));
    let _ = writeln!(out, "guest instructions, and what the interpreter changed");
    for (n, done) in recording.done.iter().enumerate().take(ran.max(1)) {
        let mut line = String::new();
        if let Some(i) = done.bytes.instruction(cpu, done.from) {
            NasmFormatter::new().format(&i, &mut line);
        }
        let _ =
            writeln!(out, "  {:>3} {:016x} {line:<44} {}", n + 1, done.from, changes(recording, n));
    }
    out.push_str("host code\n");
    let others = recording.done.iter().take(ran).map(|done| done.from);
    out.push_str(&listing::of_blocks(cpu, recording.before.rip, others));
    out
}

/// The differences, a line each.
pub(super) fn table(differences: &[Difference]) -> String {
    let line = |what: &str, before: &str, reference: &str, translated: &str| {
        format!("  {what:<12} {before:<20} {reference:<20} {translated}\n")
    };
    let mut out = line("", "before", "interpreted", "translated");
    for d in differences.iter().take(LISTED) {
        out.push_str(&line(&d.what, &d.before, &d.reference, &d.translated));
    }
    out
}

/// The general registers that instruction `n` changed.
fn changes(recording: &Recording, n: usize) -> String {
    let before = match n.checked_sub(1) {
        Some(last) => recording.done[last].gpr,
        None => std::array::from_fn(|r| recording.before.gpr[r]),
    };
    let after = &recording.done[n].gpr;
    let mut text = String::new();
    for r in (0..gpr::COUNT).filter(|&r| before[r] != after[r]) {
        let _ = write!(text, "{}={:#x} ", gpr::NAMES[r].to_lowercase(), after[r]);
    }
    text
}
