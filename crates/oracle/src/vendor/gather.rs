//! How far a gather got that faults: SDM vol. 2, VPGATHERDD, promises only that elements are done
//! in order, and tell so by their masks.

use crate::outcome::Outcome;
use iced_x86::{Instruction, MemorySize, Mnemonic, Register};

/// Whether the two agree on all but how many elements of the gather `i` are done: where both have
/// done one, or neither has, on its value too.
///
/// An element that is not done has its mask's sign bit as it was; the bits below and what lies
/// beyond the last element are any processor's own: the manual's pseudo-code spreads the sign
/// first, Zen 3 to 5 do not.
pub(super) fn same_but_progress(native: &Outcome, subject: &Outcome, i: &Instruction) -> bool {
    let vector = |n: u32| i.op_register(n).number() & 15;
    let (destination, mask) = (vector(0), vector(2));
    let (size, count) = shape(i);
    // An earlier instruction may have left undefined flags.
    let mut other = *subject;
    other.rflags = other.rflags & !super::STATUS | native.rflags & super::STATUS;
    other.ymm[destination] = native.ymm[destination];
    other.ymm[mask] = native.ymm[mask];
    other.event = native.event;
    let pending = |o: &Outcome, n: usize| o.ymm[mask][size * (n + 1) - 1] >> 7;
    let value = |o: &Outcome, n: usize| o.ymm[destination][size * n..size * (n + 1)].to_vec();
    other == *native
        && (0..count).all(|n| {
            pending(native, n) != pending(subject, n) || value(native, n) == value(subject, n)
        })
        && ahead(&[native, subject].map(|o| (0..count).map(|n| pending(o, n)).collect()))
}

/// Whether one of the two has done all that the other has.
fn ahead([a, b]: &[Vec<u8>; 2]) -> bool {
    let pairs = || a.iter().zip(b);
    pairs().all(|(x, y)| x <= y) || pairs().all(|(x, y)| x >= y)
}

/// Whether all offsets of the gather's elements that are still to do are canonical, before a
/// segment's base is added.
pub(super) fn canonical_offsets(i: &Instruction, at_fault: &Outcome) -> bool {
    let (size, count) = shape(i);
    let (mask, index) = (i.op_register(2).number() & 15, i.memory_index().number() & 15);
    let gpr = |r: Register| if r == Register::None { 0 } else { at_fault.gpr[r.number() & 15] };
    let wide = !i.memory_base().is_gpr32();
    (0..count).filter(|n| at_fault.ymm[mask][size * (n + 1) - 1] >> 7 != 0).all(|n| {
        let at = if by_dword(i) { 4 } else { 8 } * n;
        let bytes = &at_fault.ymm[index][at..];
        let low = u64::from(u32::from_le_bytes(bytes[..4].try_into().unwrap_or_default()));
        let element = if by_dword(i) {
            low as u32 as i32 as i64 as u64
        } else {
            bytes[..8].try_into().map_or(0, u64::from_le_bytes)
        };
        let scaled = element.wrapping_mul(u64::from(i.memory_index_scale()));
        let sum = gpr(i.memory_base()).wrapping_add(scaled).wrapping_add(i.memory_displacement64());
        let last = sum.wrapping_add(size as u64 - 1);
        !wide || super::canonical(sum) && super::canonical(last)
    })
}

/// Whether indexes are of 4 bytes (VGATHERDx), rather than 8 (VGATHERQx).
fn by_dword(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Vgatherdps | M::Vgatherdpd | M::Vpgatherdd | M::Vpgatherdq)
}

/// Bytes and number of elements.
fn shape(i: &Instruction) -> (usize, usize) {
    let size = match i.memory_size() {
        MemorySize::Float32 | MemorySize::Int32 | MemorySize::UInt32 => 4,
        _ => 8,
    };
    let index = i.memory_index();
    let indexes = index.size() / if by_dword(i) { 4 } else { 8 };
    (size, indexes.min(i.op0_register().size() / size))
}
