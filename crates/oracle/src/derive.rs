//! What follows from a case's seed: vector and x87 registers, and memory.
//!
//! Memory comes from a few fixed templates, chosen by the seed, so that a runner restores only what
//! a case changed. No allocation after the first use and no thread-local state: the child's signal
//! handler runs this.

use crate::case::{Case, layout};
use crate::outcome::Outcome;
use std::ops::Range;
use std::sync::OnceLock;
use test_support::Rng;
use x86::addr::La;

/// Number of memory templates.
pub(crate) const TEMPLATES: usize = 16;
const PAGE: usize = layout::PAGE as usize;
/// Bytes that a case may change: code, arena, stack, in this order.
const SIZE: usize = 4 * PAGE;

/// The initial contents of memory for some seeds.
pub struct Template {
    /// Arena, then stack.
    pub data: [u8; SIZE - PAGE],
    /// The read-only page, the same in all templates.
    pub read_only: [u8; PAGE],
}

static TEMPLATE_TABLE: OnceLock<Vec<Template>> = OnceLock::new();

/// The template that `seed` selects.
pub fn template(seed: u64) -> &'static Template {
    let table = TEMPLATE_TABLE.get_or_init(|| (0..TEMPLATES as u64).map(Template::new).collect());
    &table[seed as usize % TEMPLATES]
}

impl Template {
    fn new(number: u64) -> Self {
        let mut rng = Rng::new(0x6765_6d65_6c6c_6f00 + number);
        let mut fixed = Rng::new(0x7265_6164_6f6e_6c79);
        let mut this = Self { data: [0; SIZE - PAGE], read_only: [0; PAGE] };
        // Template 0 is all zero: a shrunk case is easier to read on it.
        if number != 0 {
            this.data.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&word(&mut rng)));
        }
        this.read_only.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&word(&mut fixed)));
        this
    }
}

/// 64 bits of memory or vector register: integers, floats, pointers, noise.
fn word(rng: &mut Rng) -> [u8; 8] {
    let value = match rng.below(16) {
        0 => 0,
        1 => u64::MAX,
        2 | 3 => rng.below(256),
        4 => layout::CODE + rng.below(layout::CODE_SIZE),
        5 => layout::ARENA + rng.below(layout::ARENA_SIZE),
        6 => pair(rng, single),
        7 => double(rng),
        8 => pair(rng, |r| r.below(40) as u32),
        9 => 0x8000_8000_7fff_7fff >> rng.below(8),
        10 => f64::from(rng.below(2000) as u32 as f32 / 8.0 - 100.0).to_bits(),
        _ => rng.next(),
    };
    value.to_le_bytes()
}

fn pair(rng: &mut Rng, half: fn(&mut Rng) -> u32) -> u64 {
    u64::from(half(rng)) | u64::from(half(rng)) << 32
}

/// Single-precision values at the edges: zeros, denormals, infinities, quiet and signalling NaNs,
/// extremes.
fn single(rng: &mut Rng) -> u32 {
    const EDGES: [u32; 14] = [
        0,
        0x8000_0000,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f80_0001,
        0x3f80_0000,
        0xbf80_0000,
        0x4f00_0000,
        0x5f00_0000,
    ];
    if rng.chance(60) {
        rng.pick(&EDGES)
    } else {
        (rng.below(4096) as f32 / 16.0 - 128.0).to_bits()
    }
}

/// Double-precision values at the edges.
fn double(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1 << 63,
        1,
        0x000f_ffff_ffff_ffff,
        0x0010_0000_0000_0000,
        0x7fef_ffff_ffff_ffff,
        0x7ff0_0000_0000_0000,
        0xfff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x3ff0_0000_0000_0000,
        0xbff0_0000_0000_0000,
        0x41e0_0000_0000_0000,
        0x43e0_0000_0000_0000,
    ];
    if rng.chance(60) {
        rng.pick(&EDGES)
    } else {
        (rng.below(1 << 20) as f64 / 64.0 - 8192.0).to_bits()
    }
}

/// Vector and x87 registers of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// YMM0 to YMM15.
    pub ymm: [[u8; 32]; 16],
    /// ST(0) to ST(7), 80 bits each.
    pub st: [[u8; 16]; 8],
}

impl Registers {
    /// Those that `case` starts with.
    pub fn of(case: &Case) -> Self {
        let mut this = Self { ymm: [[0; 32]; 16], st: [[0; 16]; 8] };
        let mut rng = case.stream(1);
        // A quarter of the cases has clean upper halves.
        let clean = rng.chance(25);
        for (i, ymm) in this.ymm.iter_mut().enumerate() {
            let used = if clean { 16 } else { 32 };
            ymm[..used].chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&word(&mut rng)));
            // Small dwords and qwords, which generated gathers use as indexes.
            match i {
                14 => ymm.chunks_exact_mut(4).for_each(|w| w.copy_from_slice(&[w[0], 0, 0, 0])),
                15 => ymm.chunks_exact_mut(8).for_each(|w| w[1..].fill(0)),
                _ => {}
            }
            if case.ymm_keep >> i & 1 == 0 {
                *ymm = [0; 32];
            }
        }
        let mut rng = case.stream(2);
        for (i, st) in this.st.iter_mut().enumerate() {
            st[..10].copy_from_slice(&extended(&mut rng));
            if case.st_keep >> i & 1 == 0 {
                *st = [0; 16];
            }
        }
        this
    }
}

/// An 80-bit value: normal numbers, edges, unsupported encodings, MMX contents.
fn extended(rng: &mut Rng) -> [u8; 10] {
    let sign = (rng.next() as u16) & 0x8000;
    let (exponent, significand) = match rng.below(14) {
        0 => (0, 0),
        1 => (0, rng.next() >> 1),
        2 => (0x7fff, 1 << 63),
        3 => (0x7fff, 0xc000_0000_0000_0000),
        4 => (0x7fff, 0x8000_0000_0000_0001),
        5 => (rng.below(0x8000) as u16, rng.next() >> 1),
        6 => (0x7fff, rng.next()),
        7 => (rng.below(0x8000) as u16, rng.next() | 1 << 63),
        8 | 9 => (0x3fff + rng.below(20) as u16, (rng.next() & 0xff00_0000_0000_0000) | 1 << 63),
        10 => (0x3fff - rng.below(70) as u16, rng.next() | 1 << 63),
        11 => (0x3fff, 1 << 63),
        _ => (0x3fff + rng.below(70) as u16, rng.next() | 1 << 63),
    };
    let mut out = [0; 10];
    out[..8].copy_from_slice(&significand.to_le_bytes());
    out[8..].copy_from_slice(&(sign | exponent).to_le_bytes());
    out
}

/// What memory ought to hold, in the order code, arena, stack: the pristine copy against which a
/// runner finds what a case changed.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Memory {
    /// The bytes.
    pub bytes: [u8; Self::SIZE],
}

impl Memory {
    /// Bytes that a case may change.
    pub const SIZE: usize = SIZE;
    /// The parts: linear address, offset in `bytes`, length.
    pub const PARTS: [(u64, usize, usize); 3] =
        [(layout::CODE, 0, PAGE), (layout::ARENA, PAGE, 2 * PAGE), (layout::STACK, 3 * PAGE, PAGE)];

    /// Memory as `case` finds it.
    pub fn of(case: &Case) -> Box<Self> {
        let mut this = Box::new(Self { bytes: [layout::FILL; SIZE] });
        this.bytes[PAGE..].copy_from_slice(&template(case.seed).data);
        this.replace_code(&mut (0..0), case);
        this
    }

    /// Replaces the code at `place`, all else being [`layout::FILL`], by that of `case`; `place`
    /// becomes its place. Gives the two ranges of bytes touched.
    pub(crate) fn replace_code(
        &mut self,
        place: &mut Range<usize>,
        case: &Case,
    ) -> [Range<usize>; 2] {
        if let Some(old) = self.bytes.get_mut(place.clone()) {
            old.fill(layout::FILL);
        }
        let code = case.code();
        let new = case.offset()..case.offset() + code.len();
        if let Some(bytes) = self.bytes.get_mut(new.clone()) {
            bytes.copy_from_slice(code);
        }
        [std::mem::replace(place, new.clone()), new]
    }

    /// The word at linear `address`, 0 outside.
    pub(crate) fn word_at(&self, address: u64) -> u64 {
        let part = Self::PARTS.iter().find(|p| address.wrapping_sub(p.0) < p.2 as u64);
        let offset = part.map(|p| p.1 + (address - p.0) as usize);
        offset.and_then(|o| self.bytes.get(o..o + 8)).map_or(0, read_word)
    }

    /// The linear address of byte `offset`.
    fn address(offset: usize) -> La {
        let part = if offset < PAGE {
            0
        } else if offset < 3 * PAGE {
            1
        } else {
            2
        };
        let (address, start, _) = Self::PARTS[part];
        La(address + (offset - start) as u64)
    }

    /// Compares `actual` (one part, which starts at byte `start` of this memory) with the pristine
    /// copy and notes every changed word in `outcome`; `restore` is called with its offset in the
    /// part and old value.
    #[inline]
    pub(crate) fn find_changes(
        &self,
        start: usize,
        actual: &[u8],
        outcome: &mut Outcome,
        mut restore: impl FnMut(usize, u64),
    ) {
        const BLOCK: usize = 256;
        let expected = self.bytes.get(start..).unwrap_or_default();
        let blocks = expected.chunks_exact(BLOCK).zip(actual.chunks_exact(BLOCK)).enumerate();
        for (block, (old, new)) in blocks {
            if !differs(old, new) {
                continue;
            }
            for (i, (o, n)) in old.chunks_exact(8).zip(new.chunks_exact(8)).enumerate() {
                if o != n {
                    let offset = block * BLOCK + i * 8;
                    outcome.note_change(Self::address(start + offset), read_word(n));
                    restore(offset, read_word(o));
                }
            }
        }
    }
}

/// Whether two blocks of 256 bytes differ, without a call or an early exit so that it vectorizes.
#[inline]
fn differs(a: &[u8], b: &[u8]) -> bool {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    words.fold(0, |acc, (x, y)| acc | (read_word(x) ^ read_word(y))) != 0
}

#[inline]
fn read_word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_with_address_and_value() {
        let case = Case { seed: 3, ..Case::with_code(&[0x90]) };
        let pristine = Memory::of(&case);
        let mut actual = pristine.clone();
        actual.bytes[PAGE + 17] ^= 0xff;
        actual.bytes[SIZE - 1] ^= 1;
        let mut outcome = Outcome::ZERO;
        let mut restored = Vec::new();
        for (_, start, len) in Memory::PARTS {
            pristine.find_changes(
                start,
                &actual.bytes[start..start + len],
                &mut outcome,
                |o, v| {
                    restored.push((start + o, v));
                },
            );
        }
        let addresses: Vec<_> = outcome.changes().iter().map(|c| c.address.0).collect();
        assert_eq!(addresses, [layout::ARENA + 16, layout::STACK + layout::STACK_SIZE - 8]);
        for (offset, value) in restored {
            actual.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        assert_eq!(pristine.bytes, actual.bytes);
    }
}
