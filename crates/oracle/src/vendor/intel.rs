//! What Intel's processors do their own way where their manual leaves it open or says nothing: seen
//! on Sapphire and Emerald Rapids.

use super::{canonical, instruction_at, operand_at, overwritten, same_but_memory};
use crate::case::Case;
use crate::outcome::Outcome;
use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind};

/// Bytes of a line of the cache.
const LINE: u64 = 64;
/// FSW.ES.
const ES: u16 = 1 << 7;

/// Why a difference is no defect, if it is none.
pub(super) fn only(native: &Outcome, subject: &Outcome, case: &Case) -> Option<&'static str> {
    // SDM vol. 3, 11.6, leaves open when new bytes are fetched. Some have them for the next
    // iteration, but downwards; some notice it by lines of their cache.
    let (n, s) = (native.gpr[1], subject.gpr[1]);
    if (n <= s || n - s < LINE) && case.reachable().iter().any(|i| overwritten(i, native, subject))
    {
        return Some("REP MOVS and STOS go on when they overwrite themselves");
    }
    let i = instruction_at(case, subject.rip)?;
    let (n, s) = (native.event.normalized(), subject.event.normalized());
    let went_on = native.rip != subject.rip;
    let other = went_on || n != s;
    // SDM vol. 1, 8.5.1.1: an unmasked invalid operation leaves the destination alone.
    if other && s.fault().is_some() && stores_x87(&i) && native.x87.fsw & ES != 0 {
        return Some("an x87 store that raises an unmasked exception does not touch its operand");
    }
    let half = i.cpuid_features().contains(&CpuidFeature::F16C);
    if other && s.vector == 17 && half {
        return Some("the alignment of half-precision operands is not checked");
    }
    if went_on {
        return None;
    }
    // SDM vol. 2, VCVTPS2PH, has no order of them.
    let first = n.vector == 19 && s.fault().is_some();
    if half && (first || n == s && n.fault().is_some()) && same_but_exceptions(native, subject) {
        return Some("a conversion to half precision finds its exceptions before the operand's");
    }
    let across = |(a, b): (u64, u64)| canonical(a) && !canonical(b);
    let beyond = n.vector == 17 && matches!(s.vector, 12 | 13);
    let mut operands = (0..i.op_count()).filter_map(|n| operand_at(&i, n, native));
    if beyond && operands.any(across) {
        return Some("a misaligned operand across the canonical half's end is #AC or #GP");
    }
    // SDM vol. 3, 4.7, as for images.
    let pages = n.vector == 14 && s.vector == 14 && n.error_code == s.error_code;
    if pages && masked(&i) && n.cr2.abs_diff(s.cr2) < 32 {
        return Some("a masked move that faults tells some byte of its operand");
    }
    let parts = stores_x87(&i) && i.memory_size().size() == 10;
    if n == s
        && n.vector == 14
        && parts
        && same_but_memory(native, &Outcome { event: native.event, ..*subject })
    {
        return Some("a store of ten bytes has written eight when it faults");
    }
    None
}

fn masked(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq)
}

fn stores_x87(i: &Instruction) -> bool {
    use Mnemonic as M;
    i.op_count() > 0
        && i.op0_kind() == OpKind::Memory
        && matches!(i.mnemonic(), M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp)
}

fn same_but_exceptions(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    other.mxcsr = other.mxcsr & !0x3f | native.mxcsr & 0x3f;
    other.event = native.event;
    other == *native
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::layout;
    use crate::outcome::{Change, Event};
    use x86::addr::La;

    /// Both ended with `vector` at `case`'s beginning.
    fn faults(case: &Case, vector: u32) -> (Outcome, Outcome) {
        let mut outcome = Outcome::ended(vector, 0);
        (outcome.gpr, outcome.rip) = (case.gpr, case.rip());
        (outcome, outcome)
    }

    fn excused(native: &Outcome, subject: &Outcome, case: &Case) -> bool {
        only(native, subject, case).is_some()
    }

    #[test]
    fn a_string_over_its_own_instruction_and_no_other() {
        let change = |at| Change { address: La(at), value: 0 };
        let ended = |code: &[u8], at: u64| {
            let case = Case::with_code(code);
            let (mut native, mut subject) = faults(&case, 3);
            for outcome in [&mut native, &mut subject] {
                (outcome.changed, outcome.changes[0]) = (1, change(at));
            }
            (native.gpr[7], subject.gpr[7]) = (case.rip() - 8, case.rip() - 1);
            excused(&native, &subject, &case)
        };
        let (moves, stores, once) = ([0xf3, 0xa4], [0xf3, 0xaa], [0xa4]);
        let here = Case::with_code(&moves).rip() & !7;
        assert!(ended(&moves, here) && ended(&stores, here));
        assert!(!ended(&once, here), "not repeated");
        assert!(!ended(&moves, layout::STACK), "elsewhere");
    }

    #[test]
    fn a_store_of_ten_bytes_may_be_half_done() {
        let (store, load) = (Case::with_code(&[0xdb, 0x3e]), Case::with_code(&[0xdb, 0x2e]));
        for (case, so) in [(store, true), (load, false)] {
            let (mut native, subject) = faults(&case, 14);
            native.changed = 1;
            native.changes[0] = Change { address: La(layout::ARENA), value: 1 };
            assert_eq!(excused(&native, &subject, &case), so);
        }
    }

    #[test]
    fn an_unmasked_exception_may_keep_a_store_from_its_operand() {
        // fstp qword [rsi], fisttp dword [rsi]; fld qword [rsi]
        for (code, so) in [([0xdd, 0x1e], true), ([0xdb, 0x0e], true), ([0xdd, 0x06], false)] {
            let case = Case::with_code(&code);
            let (mut native, subject) = faults(&case, 14);
            native.event = Event { vector: 3, ..Event::default() };
            native.rip += 2;
            assert!(!excused(&native, &subject, &case), "without one");
            native.x87.fsw = ES;
            assert_eq!(excused(&native, &subject, &case), so);
        }
    }

    #[test]
    fn a_masked_move_tells_some_byte_near() {
        let case = Case::with_code(&[0xc4, 0xe2, 0x75, 0x2c, 0x06]); // vmaskmovps ymm0, ymm1, [rsi]
        let (mut native, mut subject) = faults(&case, 14);
        (native.event.cr2, subject.event.cr2) = (0x1000, 0x1008);
        assert!(excused(&native, &subject, &case));
        native.event.cr2 = 0x2000;
        assert!(!excused(&native, &subject, &case));
    }

    #[test]
    fn half_precision_operands_are_not_checked_for_alignment() {
        let (half, single) = ([0xc4, 0xe2, 0x79, 0x13, 0x06], [0xc5, 0xfa, 0x10, 0x06, 0x90]);
        for (code, so) in [(half, true), (single, false)] {
            let case = Case::with_code(&code); // vcvtph2ps xmm0, [rsi] and vmovss xmm0, [rsi]
            let (mut native, subject) = faults(&case, 17);
            native.event.vector = 3;
            native.rip += 5;
            assert_eq!(excused(&native, &subject, &case), so);
        }
    }
}
