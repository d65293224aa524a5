//! Guest and host code side by side, for `--trace blocks` and for the reports of
//! [`super::lockstep`].
//!
//! Under each guest instruction stands the host code that performs it, as the translation's
//! `fault_map` tells. What comes before the first and after the last (entries and exits) stands
//! under a heading of its own.

use super::generation::RegionRecord;
use super::insn::GuestInsn;
use super::site::{FaultMapEntry, Translation};
use crate::block::Key;
use crate::cpu::Cpu;
use crate::thunk::area::CodeArea;
use crate::tlb::PAGE_MASK;
use iced_x86::{Decoder, Formatter, Instruction, NasmFormatter, OpKind};
use std::fmt::Write as _;
use x86::addr::Gpa;

/// Translations shown in a report.
const SHOWN: usize = 8;
/// Width of an instruction's bytes in a listing.
const BYTES: usize = 24;

/// A guest instruction, with its place from the start of its page.
pub(super) struct Line {
    delta: i32,
    i: Instruction,
    bytes: Vec<u8>,
}

impl From<&GuestInsn> for Line {
    fn from(g: &GuestInsn) -> Self {
        Self { delta: g.delta, i: g.i, bytes: g.bytes[..g.i.len().min(15)].to_vec() }
    }
}

/// Writes the translation `t` of the code at `rip` to the trace, as if it stood at 0.
pub(super) fn trace(guest: &[GuestInsn], rip: u64, key: Key, t: &Translation) {
    let lines: Vec<Line> = guest.iter().map(Line::from).collect();
    let text = listing(&lines, rip & !PAGE_MASK, &t.code, 0, &t.fault_map);
    tracing::trace!(target: "blocks", rip = format_args!("{rip:#x}"),
        gpa = format_args!("{:#x}", key.gpa()),
        guest = guest.len(), host = t.code.len(), "translated\n{text}");
}

/// Lists `code`, which stands at host address `base`, under the instructions of the page at `page`;
/// `fault_map` tell by ascending offsets in `code` whose code begins where.
pub(super) fn listing(
    guest: &[Line],
    page: u64,
    code: &[u8],
    base: u64,
    fault_map: &[FaultMapEntry],
) -> String {
    let mut out = String::new();
    let mut decoder = Decoder::with_ip(64, code, base, 0);
    let mut next = fault_map.iter().peekable();
    let mut shown = None;
    while decoder.can_decode() {
        let at = decoder.position();
        while let Some(start) = next.next_if(|start| start.offset as usize <= at) {
            if shown != Some(start.delta) {
                shown = Some(start.delta);
                heading(&mut out, guest, page, start.delta);
            }
        }
        let i = decoder.decode();
        line(&mut out, "      ", &i, &code[at..at + i.len()]);
    }
    out
}

fn heading(out: &mut String, guest: &[Line], page: u64, delta: i32) {
    match guest.iter().find(|line| line.delta == delta) {
        Some(Line { i, bytes, .. }) => {
            let mut i = *i;
            // Addresses relative to RIP are the page's.
            i.set_ip(page.wrapping_add(i64::from(delta) as u64));
            if i.is_ip_rel_memory_operand() {
                let moved = i.memory_displacement64().wrapping_add(page);
                i.set_memory_displacement64(moved);
            }
            if i.op0_kind() == OpKind::NearBranch64 {
                i.set_near_branch64(i.near_branch64().wrapping_add(page));
            }
            line(out, "  ", &i, bytes);
        }
        None => {
            let _ = writeln!(out, "  {:016x}", page.wrapping_add(i64::from(delta) as u64));
        }
    }
}

fn line(out: &mut String, indent: &str, i: &Instruction, bytes: &[u8]) {
    let mut hex = String::new();
    bytes.iter().for_each(|byte| {
        let _ = write!(hex, "{byte:02x}");
    });
    let mut text = String::new();
    NasmFormatter::new().format(i, &mut text);
    let _ = writeln!(out, "{indent}{:016x} {hex:<BYTES$} {text}", i.ip());
}

/// The translations of the blocks at `first` and `others`, as far as they have one, each once.
pub(super) fn of_blocks(cpu: &Cpu, first: u64, others: impl Iterator<Item = u64>) -> String {
    let mut seen = Vec::new();
    let mut out = String::new();
    let mut translations = Vec::new();
    for rip in std::iter::once(first).chain(others) {
        let entry = cpu.core.fetch_entry(rip);
        if entry.tag != rip & !PAGE_MASK {
            continue;
        }
        let key = Key::new(entry.gpa | rip & PAGE_MASK, cpu.core.mode_key);
        if let Some(entries) = cpu.core.mmu.blocks.translation(key) {
            translations.push((entries, rip & !PAGE_MASK, entry.gpa));
        }
    }
    for (entries, page, gpa) in translations {
        let Some(generation) = cpu.translator.generation() else { continue };
        let Some(region) = generation.region_at(entries.cross_page) else { continue };
        if seen.contains(&region.base) || seen.len() == SHOWN {
            continue;
        }
        seen.push(region.base);
        let _ = writeln!(out, " page {page:#x}");
        out.push_str(&of_region(cpu, page, gpa, &generation.area, region));
    }
    out
}

fn of_region(cpu: &Cpu, page: u64, gpa: u64, area: &CodeArea, region: &RegionRecord) -> String {
    let mut guest: Vec<Line> = Vec::new();
    for start in &region.fault_map {
        if guest.last().is_none_or(|line| line.delta != start.delta) {
            guest.extend(instruction(cpu, gpa, start.delta));
        }
    }
    let code = area.bytes(region.base as usize, region.len as usize);
    listing(&guest, page, &code, area.address(region.base as usize), &region.fault_map)
}

/// The guest instruction `delta` bytes into the page at `gpa`.
fn instruction(cpu: &Cpu, gpa: u64, delta: i32) -> Option<Line> {
    let offset = u64::try_from(delta).ok().filter(|&offset| offset <= PAGE_MASK)?;
    let mut bytes = [0; 15];
    let len = bytes.len().min((PAGE_MASK + 1 - offset) as usize);
    cpu.core.mmu.ram.read(Gpa(gpa + offset), &mut bytes[..len]).ok()?;
    let mut decoder =
        Decoder::with_ip(64, &bytes[..len], offset, cpu.core.features.decoder_options);
    let i = decoder.decode();
    Some(Line { delta, i, bytes: bytes[..i.len()].to_vec() })
}
