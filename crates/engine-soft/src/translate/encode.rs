//! Copied instructions with other operands: the guest's own bytes, taken apart and put together
//! again (SDM vol. 2, 2.1–2.3).
//!
//! Prefixes that mean something, opcode and immediate are copied. REX or VEX, ModRM, SIB and
//! displacement are made anew. Debug builds decode every result and compare it with what was asked
//! for.

mod check;
mod operands;

pub(super) use operands::{Memory, Operands};

use super::flow::{Spot, spot};
use iced_x86::{Instruction, OpKind, Register};
use operands::is_high_byte;

/// An instruction taken apart. Register numbers have their fourth bit, `index` and `base` bits of
/// REX are left out.
struct Parts<'a> {
    /// 66H, F2H, F3H, F0H as they stood.
    prefixes: [u8; 4],
    prefix_count: usize,
    vex: Option<Vex>,
    wide: bool,
    /// Escapes and the opcode itself.
    opcode: &'a [u8],
    /// ModRM.reg and ModRM.rm.
    modrm: Option<(u8, u8)>,
    /// Register in the opcode's low bits, or beside ModRM.
    low: u8,
    immediate: &'a [u8],
}

#[derive(Clone, Copy)]
struct Vex {
    map: u8,
    vvvv: u8,
    /// L and pp.
    rest: u8,
}

/// Appends `instruction`, whose bytes are `bytes`, to `out` with `new` operands. `None`, and
/// nothing appended: this form cannot carry them (AH to BH beside a register that needs REX, an
/// encoding that is not known here).
pub(super) fn rewrite(
    instruction: &Instruction,
    bytes: &[u8],
    new: &Operands,
    out: &mut Vec<u8>,
) -> Option<()> {
    let spots = Spots::of(instruction)?;
    let mut parts = take_apart(bytes, spots.modrm)?;
    if !spots.high_bytes_stay(new) {
        return None;
    }
    let renamed = |operand: Option<Register>, old: u8| match operand {
        Some(r) if r.is_gpr() && !is_high_byte(r) => new.registers[r.full_register().number() & 15],
        _ => old,
    };
    if let Some((reg, rm)) = &mut parts.modrm {
        *reg = renamed(spots.reg, *reg);
        *rm = renamed(spots.rm, *rm);
    }
    parts.low = renamed(spots.low, parts.low);
    if let Some(vex) = &mut parts.vex {
        vex.vvvv = renamed(spots.vvvv, vex.vvvv);
    }
    if spots.low.is_some() && parts.low & 7 == 0 && matches!(parts.opcode, [0x90..=0x97]) {
        // Too near to NOP and PAUSE.
        return None;
    }
    let start = out.len();
    put_together(&parts, &spots, new.memory, out)?;
    if cfg!(debug_assertions) {
        check::compare(instruction, new, &out[start..]);
    }
    Some(())
}

/// Which registers stand where in the encoding.
#[derive(Default)]
struct Spots {
    modrm: bool,
    reg: Option<Register>,
    rm: Option<Register>,
    vvvv: Option<Register>,
    low: Option<Register>,
    /// AH to BH are named, which REX forbids.
    high_byte: bool,
}

impl Spots {
    fn of(i: &Instruction) -> Option<Self> {
        let mut spots = Self::default();
        let info = i.op_code();
        for n in 0..i.op_count() {
            let register = (i.op_kind(n) == OpKind::Register).then(|| i.op_register(n));
            spots.high_byte |= register.is_some_and(is_high_byte);
            match spot(info.op_kind(n)) {
                Spot::Reg => (spots.modrm, spots.reg) = (true, register),
                Spot::Rm => (spots.modrm, spots.rm) = (true, register),
                Spot::Vvvv => spots.vvvv = register,
                Spot::Low => spots.low = register,
                Spot::Fixed => {}
                Spot::Unknown => return None,
            }
        }
        Some(spots)
    }

    /// Whether AH to BH belong to registers that keep their names.
    fn high_bytes_stay(&self, new: &Operands) -> bool {
        let stays = |register: Option<Register>| {
            register.filter(|r| is_high_byte(*r)).is_none_or(|r| {
                let number = r.full_register().number() & 15;
                usize::from(new.registers[number]) == number
            })
        };
        !self.high_byte || stays(self.reg) && stays(self.rm) && stays(self.low)
    }

    /// SPL, BPL, SIL and DIL are only to be had with REX.
    fn needs_rex(&self, parts: &Parts<'_>) -> bool {
        let low_byte = |register: Option<Register>, number: u8| {
            register.is_some_and(|r| r.is_gpr8() && !is_high_byte(r)) && (4..8).contains(&number)
        };
        let (reg, rm) = parts.modrm.unwrap_or_default();
        low_byte(self.reg, reg) || low_byte(self.rm, rm) || low_byte(self.low, parts.low)
    }
}

/// Segment overrides and address size: the new operand says it all.
fn is_idle(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67)
}

fn is_prefix(byte: u8) -> bool {
    is_idle(byte) || matches!(byte, 0x40..=0x4f | 0x66 | 0xf0 | 0xf2 | 0xf3)
}

fn take_apart(bytes: &[u8], has_modrm: bool) -> Option<Parts<'_>> {
    let mut prefixes = [0; 4];
    let mut prefix_count = 0;
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            p @ (0x66 | 0xf2 | 0xf3 | 0xf0) => {
                // The last of each counts; once is enough.
                if !prefixes[..prefix_count].contains(&p) {
                    *prefixes.get_mut(prefix_count)? = p;
                    prefix_count += 1;
                } else if p != 0x66 && p != 0xf0 {
                    return None;
                }
            }
            p if is_idle(p) => {}
            // REX counts right before the opcode only.
            0x40..=0x4f if bytes.get(at + 1).is_some_and(|next| is_prefix(*next)) => {}
            _ => break,
        }
        at += 1;
    }
    let mut parts = Parts {
        prefixes,
        prefix_count,
        vex: None,
        wide: false,
        opcode: &[],
        modrm: None,
        low: 0,
        immediate: &[],
    };
    let (mut r, mut b) = (0, 0);
    let first = at;
    match *bytes.get(at)? {
        rex @ 0x40..=0x4f => {
            parts.wide = rex & 8 != 0;
            (r, b) = ((rex & 4) << 1, (rex & 1) << 3);
            at += 1;
        }
        0xc5 => {
            let v = *bytes.get(at + 1)?;
            r = !v >> 4 & 8;
            parts.vex = Some(Vex { map: 1, vvvv: !v >> 3 & 15, rest: v & 7 });
            at += 2;
        }
        0xc4 => {
            let (m, v) = (*bytes.get(at + 1)?, *bytes.get(at + 2)?);
            (r, b) = (!m >> 4 & 8, !m >> 2 & 8);
            parts.wide = v & 0x80 != 0;
            parts.vex = Some(Vex { map: m & 31, vvvv: !v >> 3 & 15, rest: v & 7 });
            at += 3;
        }
        // EVEX and XOP: not known here (8FH is POP's, too, which is not copied).
        0x62 | 0x8f => return None,
        _ => {}
    }
    let opcode = if parts.vex.is_some() { at } else { opcode_end(bytes, at)? };
    parts.opcode = bytes.get(if parts.vex.is_some() { at } else { first.max(at) }..=opcode)?;
    at = opcode + 1;
    parts.low = parts.opcode.last()? & 7 | b;
    if has_modrm {
        let modrm = *bytes.get(at)?;
        parts.modrm = Some((modrm >> 3 & 7 | r, modrm & 7 | b));
        at += 1 + address_len(modrm, bytes.get(at + 1).copied());
    }
    parts.immediate = bytes.get(at..)?;
    Some(parts)
}

/// Where the opcode ends that begins at `at`: behind 0FH, 0F38H, 0F3AH.
fn opcode_end(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != 0x0f {
        return Some(at);
    }
    Some(if matches!(*bytes.get(at + 1)?, 0x38 | 0x3a) { at + 2 } else { at + 1 })
}

/// Bytes of SIB and displacement behind `modrm`.
fn address_len(modrm: u8, sib: Option<u8>) -> usize {
    let displacement = match (modrm >> 6, modrm & 7) {
        (3, _) => return 0,
        (0, 5) => 4,
        (0, 4) if sib.is_some_and(|sib| sib & 7 == 5) => 4,
        (0, _) => 0,
        (1, _) => 1,
        _ => 4,
    };
    displacement + usize::from(modrm & 7 == 4)
}

fn put_together(
    parts: &Parts<'_>,
    spots: &Spots,
    memory: Option<Memory>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let (reg, rm) = parts.modrm.unwrap_or_default();
    let (x, b) = match memory {
        Some(m) => (m.index.unwrap_or(0) >> 3, m.base.unwrap_or(0) >> 3),
        None if parts.modrm.is_some() => (0, rm >> 3),
        None => (0, parts.low >> 3),
    };
    let r = reg >> 3;
    let rex = 0x40 | u8::from(parts.wide) << 3 | r << 2 | x << 1 | b;
    let with_rex = rex != 0x40 || spots.needs_rex(parts);
    if with_rex && spots.high_byte {
        return None;
    }
    out.extend_from_slice(&parts.prefixes[..parts.prefix_count]);
    match parts.vex {
        Some(vex) => {
            let last = !vex.vvvv << 3 & 0x78 | vex.rest;
            if x == 0 && b == 0 && !parts.wide && vex.map == 1 {
                out.extend_from_slice(&[0xc5, (r ^ 1) << 7 | last]);
            } else {
                let rxb = (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | vex.map;
                out.extend_from_slice(&[0xc4, rxb, u8::from(parts.wide) << 7 | last]);
            }
        }
        None if with_rex => out.push(rex),
        None => {}
    }
    let (last, escapes) = parts.opcode.split_last()?;
    out.extend_from_slice(escapes);
    out.push(if spots.low.is_some() { last & !7 | parts.low & 7 } else { *last });
    match (parts.modrm, memory) {
        (Some(_), Some(memory)) => address(reg & 7, &memory, out),
        (Some(_), None) => out.push(0xc0 | (reg & 7) << 3 | rm & 7),
        (None, _) => {}
    }
    out.extend_from_slice(parts.immediate);
    Some(())
}

/// ModRM, SIB and displacement.
fn address(reg: u8, m: &Memory, out: &mut Vec<u8>) {
    let reg = reg << 3;
    let index = m.index.map_or(4, |i| i & 7);
    let Some(base) = m.base else {
        out.extend_from_slice(&[reg | 4, m.scale << 6 | index << 3 | 5]);
        out.extend_from_slice(&m.displacement.to_le_bytes());
        return;
    };
    let base = base & 7;
    let short = i8::try_from(m.displacement).ok();
    let form = match short {
        // RBP and R13 as base without displacement mean something else.
        Some(0) if base != 5 => 0,
        Some(_) => 0x40,
        None => 0x80,
    };
    if m.index.is_some() || base == 4 {
        out.extend_from_slice(&[form | reg | 4, m.scale << 6 | index << 3 | base]);
    } else {
        out.push(form | reg | base);
    }
    match (form, short) {
        (0, _) => {}
        (0x40, Some(byte)) => out.push(byte as u8),
        _ => out.extend_from_slice(&m.displacement.to_le_bytes()),
    }
}
