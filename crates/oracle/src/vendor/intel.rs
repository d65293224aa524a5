//! What Intel's processors do their own way where their manual leaves it open or says nothing: seen on Emerald Rapids.

use super::{accepted_event, canonical, instruction_at, operand_at};
use crate::case::Case;
use crate::outcome::Outcome;
use iced_x86::{CodeSize, CpuidFeature, Instruction, Mnemonic, OpKind};

/// FSW.ES.
const ES: u16 = 1 << 7;

/// Why a difference is no defect, if it is none.
pub(super) fn only(native: &Outcome, subject: &Outcome, case: &Case) -> Option<&'static str> {
    // Neither SDM vol. 2, REP, nor vol. 1, 3.4.1.1 (it is no write to a 32-bit register) says so.
    let same = native.event.normalized() == subject.event.normalized()
        || accepted_event(native, subject, case);
    let by_ecx = same && case.reachable().iter().any(repeats_by_ecx);
    if by_ecx && same_but_upper_halves(native, subject) {
        return Some("REP with 32-bit addresses clears upper halves before it has done anything");
    }
    // SDM vol. 3, 11.6: code that modifies itself runs on with the old bytes for as long as they have been fetched.
    if case.reachable().iter().any(|i| overwritten(i, native, subject)) {
        return Some("REP MOVS and STOS may stop when they overwrite themselves");
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
    if n == s && n.vector == 14 && parts && same_but_memory(native, subject) {
        return Some("a store of ten bytes has written eight when it faults");
    }
    None
}

/// REP MOVS or STOS that has written over itself.
fn overwritten(i: &Instruction, native: &Outcome, subject: &Outcome) -> bool {
    use Mnemonic as M;
    let moves = matches!(
        i.mnemonic(),
        M::Movsb | M::Movsw | M::Movsd | M::Movsq | M::Stosb | M::Stosw | M::Stosd | M::Stosq
    );
    let first = native.changes().first().map(|c| c.address);
    let passed = native.gpr[7].max(subject.gpr[7]) >= i.ip();
    moves && i.has_rep_prefix() && passed && first.is_some_and(|a| a < i.next_ip())
}

fn masked(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq)
}

fn same_but_memory(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    other.changed = native.changed;
    other.memory_hash = native.memory_hash;
    other.changes = native.changes;
    other.event = native.event;
    other == *native
}

/// A repeated string instruction with 32-bit addresses in 64-bit code.
fn repeats_by_ecx(i: &Instruction) -> bool {
    let by_32 = |n| matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI);
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    repeats && i.code_size() == CodeSize::Code64 && (0..i.op_count()).any(by_32)
}

fn same_but_upper_halves(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    for r in [1, 6, 7] {
        if native.gpr[r] == other.gpr[r] & 0xffff_ffff {
            other.gpr[r] = native.gpr[r];
        }
    }
    other.event = native.event;
    other == *native
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
    fn upper_halves_of_what_ecx_counts_and_no_other() {
        let mut case = Case::with_code(&[0x67, 0xf3, 0xa4]); // rep movsb, 32-bit addresses
        (case.gpr[1], case.gpr[3]) = (1 << 40 | 5, 1 << 40);
        let (mut native, subject) = faults(&case, 14);
        native.gpr[1] = 5;
        assert!(excused(&native, &subject, &case));
        native.gpr[3] = 0;
        assert!(!excused(&native, &subject, &case), "RBX");
        native.gpr = case.gpr;
        native.gpr[1] = 4;
        assert!(!excused(&native, &subject, &case), "a lower half");
    }

    #[test]
    fn a_string_over_its_own_instruction_and_no_other() {
        let mut case = Case::with_code(&[0xf3, 0xaa]); // rep stosb
        case.gpr[7] = case.rip() - 4;
        let (mut native, mut subject) = faults(&case, 3);
        let change = |at| Change { address: at, value: 0 };
        (subject.gpr[7], subject.changed, subject.changes[0]) =
            (case.rip() + 4, 1, change(case.rip() - 8));
        (native.changed, native.changes[0]) = (1, change(case.rip() - 8));
        assert!(excused(&native, &subject, &case));
        let far = change(layout::STACK);
        (native.changes[0], subject.changes[0]) = (far, far);
        assert!(!excused(&native, &subject, &case));
    }

    #[test]
    fn a_store_of_ten_bytes_may_be_half_done() {
        let (store, load) = (Case::with_code(&[0xdb, 0x3e]), Case::with_code(&[0xdb, 0x2e]));
        for (case, so) in [(store, true), (load, false)] {
            let (mut native, subject) = faults(&case, 14);
            native.changed = 1;
            native.changes[0] = Change { address: layout::ARENA, value: 1 };
            assert_eq!(excused(&native, &subject, &case), so);
        }
    }

    #[test]
    fn an_unmasked_exception_may_keep_a_store_from_its_operand() {
        let case = Case::with_code(&[0xdd, 0x1e]); // fstp qword [rsi]
        let (mut native, subject) = faults(&case, 14);
        native.event = Event { vector: 3, ..Event::default() };
        native.rip += 2;
        assert!(!excused(&native, &subject, &case), "without one");
        native.x87.fsw = ES;
        assert!(excused(&native, &subject, &case));
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
