//! How far a gather got that faults: SDM vol. 2, VPGATHERDD, promises only that elements are done in order, and tell so by their masks.

use crate::outcome::Outcome;
use iced_x86::{Instruction, MemorySize};

/// Whether the two agree on all but how many elements of the gather `i` are done: where both have done one, or neither has, on its value too.
///
/// An element that is not done has its mask's sign bit as it was; the bits below and what lies beyond the last element are any processor's
/// own: the manual's pseudo-code spreads the sign first, Zen 3 to 5 do not.
pub(super) fn same_but_progress(native: &Outcome, subject: &Outcome, i: &Instruction) -> bool {
    let vector = |n: u32| i.op_register(n).number() & 15;
    let (destination, mask) = (vector(0), vector(2));
    let (size, count) = shape(i);
    let mut other = *subject;
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

/// Bytes and number of elements.
fn shape(i: &Instruction) -> (usize, usize) {
    let size = match i.memory_size() {
        MemorySize::Float32 | MemorySize::Int32 | MemorySize::UInt32 => 4,
        _ => 8,
    };
    let index = i.memory_index();
    // VGATHERDx takes indexes of 4 bytes, VGATHERQx of 8.
    let by_dword = matches!(
        i.mnemonic(),
        iced_x86::Mnemonic::Vgatherdps
            | iced_x86::Mnemonic::Vgatherdpd
            | iced_x86::Mnemonic::Vpgatherdd
            | iced_x86::Mnemonic::Vpgatherdq
    );
    let indexes = index.size() / if by_dword { 4 } else { 8 };
    (size, indexes.min(i.op0_register().size() / size))
}
