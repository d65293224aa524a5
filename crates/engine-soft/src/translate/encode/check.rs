//! What the encoder makes, decoded again.

use super::operands::{Operands, is_high_byte};
use iced_x86::{Decoder, Instruction, OpKind, Register};

/// Panics unless `made` is `asked` with `new` operands.
pub(super) fn compare(asked: &Instruction, new: &Operands, made: &[u8]) {
    let got = Decoder::new(64, made, 0).decode();
    let problem = difference(asked, new, &got, made.len());
    assert!(problem.is_none(), "{asked} with {new:?} became {made:02x?}, {got}: {problem:?}");
}

fn difference(
    asked: &Instruction,
    new: &Operands,
    got: &Instruction,
    len: usize,
) -> Option<String> {
    if got.code() != asked.code() || got.len() != len || got.op_count() != asked.op_count() {
        return Some(format!("{:?} of {} bytes", got.code(), got.len()));
    }
    let prefixes =
        |i: &Instruction| (i.has_lock_prefix(), i.has_rep_prefix(), i.has_repne_prefix());
    if prefixes(got) != prefixes(asked) {
        return Some("prefixes".into());
    }
    for n in 0..asked.op_count() {
        let (a, g) = (asked.op_kind(n), got.op_kind(n));
        let same = match a {
            OpKind::Register => {
                g == a && got.op_register(n) == renamed(asked.op_register(n), new, asked, n)
            }
            OpKind::Memory => g == a && same_memory(got, new),
            _ => g == a && got.immediate(n) == asked.immediate(n),
        };
        if !same {
            return Some(format!("operand {n}"));
        }
    }
    None
}

/// What `register` is to become: of the same size, another number, if the encoding names it freely.
fn renamed(register: Register, new: &Operands, i: &Instruction, n: u32) -> Register {
    use super::super::flow::{Spot, spot};
    let fixed = matches!(spot(i.op_code().op_kind(n)), Spot::Fixed);
    if !register.is_gpr() || is_high_byte(register) || fixed {
        return register;
    }
    let to = u32::from(new.registers[register.full_register().number() & 15]);
    match register.size() {
        1 if to < 4 => Register::AL + to,
        1 => Register::SPL + (to - 4),
        2 => Register::AX + to,
        4 => Register::EAX + to,
        _ => Register::RAX + to,
    }
}

fn same_memory(got: &Instruction, new: &Operands) -> bool {
    let Some(m) = new.memory else { return false };
    let register = |r: Option<u8>| r.map_or(Register::None, |r| Register::RAX + u32::from(r));
    got.memory_base() == register(m.base)
        && got.memory_index() == register(m.index)
        && (m.index.is_none() || got.memory_index_scale() == 1 << m.scale)
        && got.memory_displacement64() as i64 == i64::from(m.displacement)
}

#[cfg(test)]
mod oracle {
    use super::super::{Memory, Operands, rewrite};
    use crate::translate::flow::{self, Class};
    use iced_x86::{Code, Decoder, InstructionInfoFactory};
    use std::collections::HashSet;
    use std::time::{Duration, Instant};

    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    /// Bytes that are an instruction more often than chance would have it.
    fn bytes(seed: &mut u64) -> [u8; 15] {
        let mut bytes: [u8; 15] = std::array::from_fn(|_| random(seed) as u8);
        let n = random(seed);
        let start: &[u8] = match n % 12 {
            0 => &[0x0f],
            1 => &[0x66, 0x0f],
            2 => &[0xf3, 0x48, 0x0f],
            3 => &[0x66, 0x0f, 0x38],
            4 => &[0x66, 0x0f, 0x3a],
            5 => &[0xc5],
            6 | 7 => &[0xc4],
            8 => &[0x48],
            9 => &[0xf0],
            _ => &[],
        };
        bytes[..start.len()].copy_from_slice(start);
        if n % 12 == 6 {
            bytes[1] = bytes[1] & 0xe0 | (1 + (n >> 8) as u8 % 3);
        }
        bytes
    }

    fn operands(seed: &mut u64, usage: &flow::Usage, memory: bool) -> Operands {
        let mut registers: [u8; 16] = std::array::from_fn(|r| r as u8);
        for r in (0..16).filter(|r| usage.implicit & 1 << r == 0) {
            registers[r] = (random(seed) & 15) as u8;
        }
        let some = |seed: &mut u64, r: u8| (random(seed) & 3 != 0).then_some(r);
        let base = (random(seed) & 15) as u8;
        let index = (random(seed) & 15) as u8;
        let index = some(seed, index).filter(|r| *r != 4);
        let memory = memory.then(|| Memory {
            base: some(seed, base),
            index,
            scale: if index.is_some() { (random(seed) & 3) as u8 } else { 0 },
            displacement: match random(seed) & 3 {
                0 => 0,
                1 => i32::from(random(seed) as i8),
                _ => random(seed) as i32,
            },
        });
        Operands { registers, memory }
    }

    #[test]
    fn what_is_made_is_what_was_asked_for() {
        let mut seed = 0x1234_5678_9abc_def1;
        let mut factory = InstructionInfoFactory::new();
        let (mut made, mut refused) = (0u32, 0u32);
        let mut codes: HashSet<Code> = HashSet::new();
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            let bytes = bytes(&mut seed);
            let i = Decoder::new(64, &bytes, 0).decode();
            if i.is_invalid() {
                continue;
            }
            let class = flow::class_of(&i, flow::Units::ALL);
            let memory = match class {
                Class::Plain => false,
                Class::Memory(_) => true,
                _ => continue,
            };
            let usage = flow::usage(&mut factory, &i, class);
            let new = operands(&mut seed, &usage, memory);
            let mut out = Vec::new();
            // Compares by itself.
            if rewrite(&i, &bytes[..i.len()], &new, &mut out).is_some() {
                super::compare(&i, &new, &out);
                codes.insert(i.code());
                made += 1;
            } else {
                assert!(out.is_empty(), "{i}");
                refused += u32::from(!usage.high_byte);
            }
        }
        println!("{made} made, {refused} refused, {} codes", codes.len());
        assert!(codes.len() > 800, "{} codes", codes.len());
        assert!(refused * 50 < made, "{refused} refused, {made} made");
    }
}
