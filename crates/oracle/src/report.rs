//! Comparing two outcomes of a case, and saying in words what differs.

use crate::case::{Case, layout};
use crate::derive::Memory;
use crate::outcome::{Event, Outcome};
use crate::undefined::Mask;
use crate::vendor::{accepted_event, known_difference};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};
use std::collections::BTreeMap;
use std::fmt::{LowerHex, Write};
use x86::addr::Vector;
use x86::state::gpr;

/// One part of the state that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The register, or the address of a word of memory.
    pub what: String,
    /// The processor's value.
    pub native: String,
    /// The subject's value.
    pub subject: String,
}

/// What differs between the processor's outcome and a subject's. Empty if they agree or cannot be
/// judged.
pub fn compare(case: &Case, native: &Outcome, subject: &Outcome, mask: &Mask) -> Vec<Difference> {
    if mask.everything || !native.event.comparable() || native == subject {
        return Vec::new();
    }
    if known_difference(native, subject, case).is_some() {
        return Vec::new();
    }
    let mut list = List::default();
    if !accepted_event(native, subject, case) {
        list.add("event", native.event.normalized(), subject.event.normalized(), show_event);
    }
    if native.event.vector == Event::TIMEOUT || subject.event.vector >= Event::TIMEOUT {
        return list.0;
    }
    for (i, (n, s)) in native.gpr.iter().zip(&subject.gpr).enumerate() {
        list.hex(&gpr::NAMES[i].to_lowercase(), *n, *s);
    }
    list.hex("rip", native.rip, subject.rip);
    list.add("rflags", native.rflags & !mask.rflags, subject.rflags & !mask.rflags, show_flags);
    list.hex("fs base", native.fs_base, subject.fs_base);
    list.hex("gs base", native.gs_base, subject.gs_base);
    for (i, (n, s)) in native.ymm.iter().zip(&subject.ymm).enumerate() {
        list.add(&format!("ymm{i}"), *n, *s, |v| bytes(&v));
    }
    for (i, (n, s)) in native.x87.st.iter().zip(&subject.x87.st).enumerate() {
        list.add(&format!("st({i})"), *n, *s, |v| bytes(&v[..10]));
    }
    list.hex("fcw", native.x87.fcw, subject.x87.fcw);
    list.hex("fsw", native.x87.fsw, subject.x87.fsw);
    list.hex("ftw", native.x87.ftw, subject.x87.ftw);
    list.hex("mxcsr", native.mxcsr, subject.mxcsr);
    memory(case, native, subject, mask, &mut list);
    list.0
}

#[derive(Default)]
struct List(Vec<Difference>);

impl List {
    fn add<T: PartialEq>(&mut self, what: &str, native: T, subject: T, show: impl Fn(T) -> String) {
        if native != subject {
            let (native, subject) = (show(native), show(subject));
            self.0.push(Difference { what: what.to_owned(), native, subject });
        }
    }

    fn hex<T: PartialEq + LowerHex>(&mut self, what: &str, native: T, subject: T) {
        self.add(what, native, subject, |v| format!("{v:#x}"));
    }
}

fn memory(case: &Case, native: &Outcome, subject: &Outcome, mask: &Mask, list: &mut List) {
    let masked = |o: &Outcome| o.changes().iter().map(|c| (c.address.0, c.value)).collect();
    let (n, s): (BTreeMap<_, _>, BTreeMap<_, _>) = (masked(native), masked(subject));
    let initial = Memory::of(case);
    let before = list.0.len();
    for address in n.keys().chain(s.keys()).copied().collect::<std::collections::BTreeSet<_>>() {
        let old = initial.word_at(address);
        let keep = kept_bits(address, mask);
        let value = |map: &BTreeMap<u64, u64>| map.get(&address).copied().unwrap_or(old) & keep;
        list.add(&format!("[{address:#x}]"), value(&n), value(&s), |v| format!("{v:#018x}"));
    }
    let partial = native.changed as usize > Outcome::CHANGES || native.changed != subject.changed;
    if list.0.len() == before && partial && mask.memory.is_empty() {
        list.hex("words of memory changed", native.changed, subject.changed);
        list.hex("hash of changed memory", native.memory_hash, subject.memory_hash);
    }
}

/// The bits of the word at `address` that are compared.
fn kept_bits(address: u64, mask: &Mask) -> u64 {
    let ignored = |a: u64| mask.memory.iter().any(|&(from, to)| (from..to).contains(&a));
    (0..8).filter(|i| !ignored(address + i)).fold(0, |m, i| m | 0xff << (8 * i))
}

fn bytes(value: &[u8]) -> String {
    value
        .chunks(8)
        .rev()
        .map(|c| c.iter().rev().map(|b| format!("{b:02x}")).collect())
        .collect::<Vec<String>>()
        .join("_")
}

fn show_event(event: Event) -> String {
    const NAMES: [(u32, &str); 5] = [
        (Event::TIMEOUT, "no end in time"),
        (Event::SYSCALL, "system call"),
        (Event::DIED, "death of the child"),
        (Event::SHUTDOWN, "triple fault"),
        (Event::ENGINE, "engine failure"),
    ];
    let exception = u8::try_from(event.vector).ok().and_then(|vector| Vector(vector).name());
    let ending = NAMES.iter().find(|n| n.0 == event.vector).map_or("vector", |n| n.1);
    let name = exception.unwrap_or(ending);
    let Event { vector, error_code, cr2 } = event;
    format!("{name} {vector} error {error_code:#x} cr2 {cr2:#x}")
}

fn show_flags(flags: u64) -> String {
    const BITS: [(u32, &str); 12] = [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (10, "DF"),
        (11, "OF"),
        (14, "NT"),
        (16, "RF"),
        (18, "AC"),
        (21, "ID"),
    ];
    let names = BITS.iter().filter(|b| flags >> b.0 & 1 == 1);
    names.fold(format!("{flags:#x}"), |text, b| text + " " + b.1)
}

/// A case in words: its code, the registers that are not zero, what differs, and how to replay it.
pub fn describe(case: &Case, differences: &[Difference]) -> String {
    let mut out = String::new();
    disassemble(case, &mut out);
    let registers = gpr::NAMES.iter().zip(case.gpr).filter(|(_, v)| *v != 0);
    let line: Vec<_> = registers.map(|(n, v)| format!("{}={v:#x}", n.to_lowercase())).collect();
    let _ = writeln!(out, "  from: {} rflags={}", line.join(" "), show_flags(case.rflags));
    let _ = writeln!(
        out,
        "        mxcsr={:#x} fcw={:#x} fsw={:#x} ftw={:#x} fs={:#x} gs={:#x} seed={:#x} ymm={:#x} \
         st={:#x}",
        case.mxcsr,
        case.fcw,
        case.fsw,
        case.ftw,
        case.fs_base,
        case.gs_base,
        case.seed,
        case.ymm_keep,
        case.st_keep
    );
    for d in differences {
        let _ = writeln!(out, "  {:>10}  native  {}", d.what, d.native);
        let _ = writeln!(out, "  {:>10}  subject {}", "", d.subject);
    }
    let _ = writeln!(out, "  cargo xtask diff --replay '{}'", case.to_token());
    out
}

fn disassemble(case: &Case, out: &mut String) {
    let mut padded = case.code().to_vec();
    padded.extend([layout::FILL; 15]);
    let mut decoder = Decoder::with_ip(case.bits(), &padded, case.rip(), DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let mut instruction = Instruction::default();
    while decoder.position() < case.code().len() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        let raw = &padded[start..decoder.position()];
        let hex: String = raw.iter().map(|b| format!("{b:02x}")).collect();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let _ = writeln!(out, "  {:#x}  {hex:<24} {text}", case.rip() + start as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Change;
    use x86::addr::La;

    #[test]
    fn every_register_is_compared_and_masks_apply() {
        let case = Case::with_code(&[0x90]);
        let native = Outcome::ZERO;
        let check = |change: fn(&mut Outcome), what: &str| {
            let mut subject = Outcome::ZERO;
            change(&mut subject);
            let found = compare(&case, &native, &subject, &Mask::default());
            assert_eq!(found.iter().map(|d| d.what.as_str()).collect::<Vec<_>>(), [what]);
        };
        check(|o| o.gpr[15] = 1, "r15");
        check(|o| o.rip = 1, "rip");
        check(|o| o.rflags = 0x10, "rflags");
        check(|o| o.ymm[3][31] = 1, "ymm3");
        check(|o| o.x87.st[7][9] = 1, "st(7)");
        check(|o| o.x87.ftw = 1, "ftw");
        check(|o| o.mxcsr = 1, "mxcsr");
        check(|o| o.gs_base = 1, "gs base");
        check(|o| o.event.cr2 = 1, "event");
        check(|o| o.note_change(La(layout::ARENA), 7), "[0x20010000]");
        let mut subject = Outcome::ZERO;
        subject.rflags = 0x10;
        subject.changed = 1;
        subject.changes[0] = Change { address: La(layout::ARENA), value: 0xff00 };
        let mask = Mask {
            rflags: 0x10,
            memory: vec![(layout::ARENA + 1, layout::ARENA + 2)],
            everything: false,
        };
        assert_eq!(compare(&case, &native, &subject, &mask), []);
    }
}
