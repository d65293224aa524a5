//! Interesting initial states.

use crate::case::{Case, layout};
use test_support::Rng;

/// 64 bits that are likely to hit an edge.
pub(super) fn integer(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
        0x0000_8000_0000_0000,
    ];
    match rng.below(8) {
        0 | 1 => rng.pick(&EDGES),
        2 => rng.below(256),
        3 => rng.below(256).wrapping_neg(),
        4 => 1 << rng.below(64),
        5 => rng.next() >> rng.below(64),
        _ => rng.next(),
    }
}

/// A small signed displacement or immediate, as 64 bits.
pub(super) fn small(rng: &mut Rng) -> u64 {
    rng.below(256).wrapping_sub(128)
}

/// An address for data: mostly in the arena and mostly aligned, sometimes at or over an edge.
pub(super) fn data_address(rng: &mut Rng) -> u64 {
    let (arena, size) = (layout::ARENA, layout::ARENA_SIZE);
    let top = layout::READ_ONLY + layout::READ_ONLY_SIZE;
    match rng.below(100) {
        0..3 => end_of_32_bits(rng),
        3..55 => arena + 512 + (rng.below(size - 1024) & !63),
        55..70 => arena + 512 + (rng.below(size - 1024) & !7),
        70..82 => arena + rng.below(size),
        82..86 => top - rng.below(80),
        86..88 => arena - rng.below(80),
        88..90 => arena + layout::PAGE - rng.below(64),
        90..92 => layout::READ_ONLY - rng.below(64),
        92..94 => layout::READ_ONLY + rng.below(layout::READ_ONLY_SIZE),
        94..96 => layout::STACK + rng.below(layout::STACK_SIZE),
        96 => layout::CODE + rng.below(layout::CODE_SIZE),
        97 => match rng.below(2) {
            0 => 0x0000_7fff_ffff_fff8 + rng.below(16),
            _ => end_of_32_bits(rng),
        },
        98 => 0xffff_7fff_ffff_fff8 + rng.below(16),
        _ => integer(rng),
    }
}

/// Right before 4 GiB, so that an operand reaches beyond, or ends there.
fn end_of_32_bits(rng: &mut Rng) -> u64 {
    let longest = if rng.chance(70) { 36 } else { 600 };
    layout::END_32 - rng.below(longest)
}

/// Whether an operand at `address` may reach beyond what 32 bits tell.
pub(super) fn at_end_of_32_bits(address: u64) -> bool {
    (layout::END_32 - 600..=layout::END_32).contains(&address)
}

/// A stack pointer: mostly aligned in the middle of the stack.
pub(super) fn stack_pointer(rng: &mut Rng) -> u64 {
    let middle = layout::STACK + layout::STACK_SIZE / 2;
    match rng.below(100) {
        0..80 => middle + rng.below(64) * 8,
        80..88 => middle + rng.below(64),
        88..92 => layout::STACK + rng.below(32),
        92..95 => layout::STACK + layout::STACK_SIZE - rng.below(32),
        95..97 => layout::ARENA + rng.below(layout::ARENA_SIZE),
        97 => end_of_32_bits(rng),
        _ => integer(rng),
    }
}

/// A state with random registers; the pointers that implicit operands use mostly point to data.
pub(super) fn state(rng: &mut Rng) -> Case {
    let mut case = Case { gpr: std::array::from_fn(|_| integer(rng)), ..Case::default() };
    for register in [3, 5, 6, 7] {
        if rng.chance(75) {
            case.gpr[register] = data_address(rng);
        }
    }
    if rng.chance(60) {
        case.gpr[1] = rng.below(40);
    }
    case.gpr[4] = stack_pointer(rng);
    case.rflags = flags(rng);
    case.seed = rng.next();
    case.fs_base = segment_base(rng);
    case.gs_base = segment_base(rng);
    if rng.chance(35) {
        case.mxcsr = rng.next() as u32 & 0xffff;
    }
    x87(rng, &mut case);
    case
}

/// Zero most of the time, so that a data address stays one; else small or anything canonical.
fn segment_base(rng: &mut Rng) -> u64 {
    match rng.below(10) {
        0..6 => rng.below(64) * 8,
        6..9 => data_address(rng) << 16 >> 17,
        _ => ((rng.next() as i64) >> 17) as u64,
    }
}

fn flags(rng: &mut Rng) -> u64 {
    let mut flags = 0x202 | (rng.next() & 0x8d5);
    for (bit, percent) in [(0x400, 12), (0x4_0000, 3), (0x100, 2)] {
        if rng.chance(percent) {
            flags |= bit;
        }
    }
    flags
}

fn x87(rng: &mut Rng, case: &mut Case) {
    if rng.chance(30) {
        case.fcw = (rng.next() as u16 & 0x0f3f) | 0x40;
    }
    if rng.chance(50) {
        case.fsw = (rng.next() as u16) & 0x3800;
    }
    if rng.chance(25) {
        case.fsw |= (rng.next() as u16) & 0x4700;
    }
    if rng.chance(12) {
        case.fsw |= (rng.next() as u16) & 0x7f;
    }
    if case.fsw & !case.fcw & 0x3f != 0 {
        case.fsw |= 0x8080;
    } else {
        case.fsw &= !0x8080;
    }
    case.ftw = match rng.below(10) {
        0..4 => 0xff,
        4 | 5 => 0,
        _ => rng.next() as u8,
    };
}

/// Chooses where in its page the code lies: sometimes so near to the end that fetching it faults.
pub(super) fn place_code(rng: &mut Rng, case: &mut Case) {
    case.code_offset = match rng.below(100) {
        0..90 => 0x800 + rng.below(64) as u16,
        90..95 => (layout::CODE_SIZE - 1 - rng.below(15)) as u16,
        _ => rng.below(layout::CODE_SIZE - 256) as u16,
    };
}
