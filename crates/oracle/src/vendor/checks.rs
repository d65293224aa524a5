//! What is checked first, and how much is asked for: AMD's processors and some of Intel's have ways
//! of their own.

use super::{both_fault, in_image, is_xsave, operand, order, pushes_at, same_but_memory};
use crate::case::Case;
use crate::outcome::{Change, Event, Outcome};
use crate::undefined::places;
use iced_x86::{Instruction, Mnemonic};

/// What images are asked for, on AMD's processors and some of Intel's.
pub(super) fn ranges(native: &Outcome, case: &Case, i: &Instruction) -> Option<&'static str> {
    if native.event.vector == 14 {
        // SDM vol. 1, 13.7: XSAVE writes the components that are asked for, and outside 64-bit mode
        // none of registers 8 to 15.
        if is_xsave(i) && in_image(i, native) {
            return Some("XSAVE may ask for the whole image, whatever it writes");
        }
        // SDM vol. 2, FLDENV and kin: no more than which parts they have.
        if order::last_byte_wraps(native, case, i) {
            return Some("x87 images may be asked for their last byte by itself");
        }
    }
    None
}

/// Both ended at this instruction, by what is checked in one order or another.
pub(super) fn order_of_checks(
    native: &Outcome,
    n: &Event,
    s: &Event,
    case: &Case,
    i: &Instruction,
) -> Option<&'static str> {
    // SDM vol. 2, FXSAVE, #AC: "may be" in place of #GP; #SS is for what is not canonical, either.
    let aligned = i.memory_size().size() == 512 || is_xsave(i);
    if aligned && [n.vector, s.vector].iter().all(|v| [12, 13, 17].contains(v)) {
        return Some("a misaligned image is #AC, #GP or #SS");
    }
    // Zen 4 and some of Intel's processors: of near calls beyond the limit of 16-bit code.
    let calls = i.mnemonic() == Mnemonic::Call && case.bits() == 16;
    if calls && s.vector == 13 && both_fault(n, s) && pushes_at(n, native) {
        return Some("a CALL may use the stack before it finds its target beyond the limit");
    }
    // SDM vol. 2, BOUND, has two operands of which the second follows the first.
    let short = |(_, last): (u64, u64)| last > 0xffff;
    let beyond = case.bits() == 16 && s.vector == 14 && n.vector == 5;
    if i.mnemonic() == Mnemonic::Bound && beyond && operand(i, native).is_some_and(short) {
        return Some("BOUND's second bound lies at 64 KiB or at 0");
    }
    None
}

/// Whether both ended in #GP at the same place, and nothing is different but what lies where a CALL
/// there pushes the address of what follows.
pub(super) fn pushed_or_not(native: &Outcome, subject: &Outcome, case: &Case) -> bool {
    let mask = if case.bits() == 64 { u64::MAX } else { u64::from(u32::MAX) };
    let pushed = subject.gpr[4].wrapping_sub(8) & mask;
    let there: Vec<_> = places(Some((pushed, pushed.wrapping_add(8)))).collect();
    let apart = |a: &[Change], b: &[Change]| {
        let beside = |c: &Change| there.iter().all(|(at, _)| c.address.0.abs_diff(*at) >= 8);
        a.iter().filter(|c| !b.contains(c)).any(beside)
    };
    native.event.vector == 13
        && same_but_memory(native, subject)
        && !apart(native.changes(), subject.changes())
        && !apart(subject.changes(), native.changes())
}
