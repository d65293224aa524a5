//! What AMD's processors do and Intel's do not.

use super::{
    accepted_event, both_fault, canonical_offset, compares_repeatedly, gather, goes_on_over_itself,
    instruction_at, is_lock_mov_cr, is_pause_rex_b, is_vector_operand, is_vpermq_w0, loads_mxcsr,
    misaligned, order, reads_memory, repeats_by_ecx, same_but_exchanged, same_but_rf,
    same_but_status, same_but_upper_halves, two_more_fault,
};
use crate::case::Case;
use crate::outcome::Outcome;
use iced_x86::{Code, CpuidFeature, FlowControl, Instruction, Register};

/// What was seen on Zen 3, 4 or 5 and is Intel's manual's otherwise, or nobody's. `at`: the
/// instruction at which the host ended.
pub(super) fn only(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    at: Option<Instruction>,
) -> Option<&'static str> {
    alignment(native, subject, case, at)
        .or_else(|| encodings(native, subject, case, at))
        .or_else(|| repeats(native, subject, case))
        .or_else(|| ranges(native, subject, case, at))
        .or_else(|| flags_and_offsets(native, subject, at?))
        .or_else(|| same_instruction(native, subject, case, at?))
}

/// Which operands must be aligned.
fn alignment(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    at: Option<Instruction>,
) -> Option<&'static str> {
    let at_subject = instruction_at(case, subject.rip);
    // SDM vol. 2, SHA1MSG1 and kin: exceptions of type 4, which include alignment.
    let sha = |i: &Instruction| i.cpuid_features().contains(&CpuidFeature::SHA);
    let takes = |i: Instruction| sha(&i) && reads_memory(&i) && misaligned(&i, subject);
    if subject.event.vector == 13 && at_subject.is_some_and(takes) {
        return Some("AMD's SHA instructions take misaligned memory operands");
    }
    // APM vol. 2, 11.4.3: MXCSR.MM, reserved on Intel's processors, lifts alignment checks.
    let loads_mm = |i: Instruction| loads_mxcsr(&i) && subject.event.vector == 13;
    if native.mxcsr & 1 << 17 != 0 && at_subject.is_some_and(loads_mm) {
        return Some("MXCSR.MM exists on AMD's processors only");
    }
    // SDM vol. 2, MOVUPS: #AC "may or may not be generated".
    let checked = |i: Instruction| is_vector_operand(i) && misaligned(&i, native);
    if native.event.vector == 17 && at.is_some_and(checked) {
        return Some("AMD checks the alignment of vector operands");
    }
    None
}

/// Encodings that are another instruction there.
fn encodings(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    at: Option<Instruction>,
) -> Option<&'static str> {
    let at_subject = instruction_at(case, subject.rip);
    // SDM vol. 2, PAUSE: no matter with which REX.
    let pauses = || case.reachable().iter().any(|i| is_pause_rex_b(case, i));
    if same_but_exchanged(native, subject) && pauses() {
        return Some("AMD takes F3 REX.B 90 for XCHG");
    }
    // SDM vol. 2, VPERMQ, VPERMPD: VEX.W1 only.
    let vpermq = |v: Option<Instruction>| v.is_some_and(|i| i.is_invalid());
    if subject.event.vector == 6 && vpermq(at_subject) && is_vpermq_w0(case, subject.rip) {
        return Some("AMD ignores VEX.W of VPERMQ and VPERMPD");
    }
    // APM vol. 3, MOV CRn: LOCK MOV CR0 is MOV CR8 (CPUID 8000_0001 ECX bit 4).
    let privileged = native.event.vector == 13 && subject.event.vector == 6;
    if privileged && native.rip == subject.rip && is_lock_mov_cr(case, native.rip) {
        return Some("AMD takes LOCK MOV CR0 for MOV CR8");
    }
    // SDM vol. 2, PINSRD and PEXTRD, notes: outside 64-bit mode VEX.W is ignored.
    let element = |i: Instruction| {
        matches!(i.code(), Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8 | Code::VEX_Vpextrd_rm32_xmm_imm8)
    };
    if case.bits() != 64 && native.event.vector == 6 && at.is_some_and(element) {
        return Some("AMD has no VEX.W1 form of VPINSRD and VPEXTRD outside 64-bit mode");
    }
    // SDM vol. 2, MOVSXD: a 16-bit destination has a 16-bit source.
    if at.is_some_and(|i| i.code() == Code::Movsxd_r16_rm16 && two_more_fault(&i, native)) {
        return Some("AMD's MOVSXD reads 32 bits for a 16-bit destination, too");
    }
    None
}

/// REP over its own bytes, and with 32-bit addresses.
fn repeats(native: &Outcome, subject: &Outcome, case: &Case) -> Option<&'static str> {
    // SDM vol. 3, 11.6, leaves open when new bytes are fetched; Intel's processors have them for
    // the next iteration.
    if case.reachable().iter().any(|i| goes_on_over_itself(i, native, subject)) {
        return Some("AMD's REP MOVS and STOS go on when they overwrite themselves");
    }
    // Neither manual says so (SDM vol. 2, REP; vol. 1, 3.4.1.1); Intel's processors write the
    // 32-bit registers, which clears their upper halves.
    let same = native.event.normalized() == subject.event.normalized()
        || accepted_event(native, subject, case);
    let by_ecx = same && case.reachable().iter().any(repeats_by_ecx);
    if by_ecx && same_but_upper_halves(native, subject, case) {
        return Some("AMD's REP with 32-bit addresses that has done nothing leaves upper halves");
    }
    None
}

/// Operands that reach the end of a range.
fn ranges(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    at: Option<Instruction>,
) -> Option<&'static str> {
    let at_subject = instruction_at(case, subject.rip);
    // The end of an operand's range is order.rs's if both fault; on Zen 4 this one faults alone.
    let went_on = subject.rip != native.rip;
    let beyond_limit = matches!(subject.event.vector, 12 | 13);
    if went_on && at.is_some_and(|i| order::masked_store_wraps(native, case, &i))
        || beyond_limit
            && at_subject.is_some_and(|i| order::masked_elements_wrap(subject, case, &i))
    {
        return Some("Zen 4's masked moves wrap each element's address");
    }
    None
}

/// Flags that a trap delivers, and offsets that must be canonical.
fn flags_and_offsets(native: &Outcome, subject: &Outcome, i: Instruction) -> Option<&'static str> {
    // SDM vol. 3, 18.3.1.1: a trap between two iterations pushes RF set.
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    let compares = compares_repeatedly(&i);
    if repeats && native.event.vector == 1 && same_but_rf(native, subject, compares) {
        return Some("AMD does not push RF when it traps between two iterations");
    }
    // Neither manual says so for a linear address that is canonical again.
    let overridden = matches!(i.segment_prefix(), Register::FS | Register::GS);
    let offset_canonical = if i.is_vsib() {
        gather::canonical_offsets(&i, native)
    } else {
        canonical_offset(&i, native)
    };
    if native.event.vector == 13 && overridden && !offset_canonical {
        return Some("Zen 5 wants the offset canonical before it adds the base of FS or GS");
    }
    None
}

/// Both ended at this instruction.
fn same_instruction(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    i: Instruction,
) -> Option<&'static str> {
    if native.rip != subject.rip {
        return None;
    }
    let compares = compares_repeatedly(&i);
    let (n, s) = (native.event.normalized(), subject.event.normalized());
    if i.flow_control() == FlowControl::IndirectCall && n.vector == 13 && both_fault(&n, &s) {
        return Some("Zen 3's CALL checks that its target is canonical before it uses the stack");
    }
    // SDM vol. 2, REP: flags are restored to what they were before.
    let same = n == s || accepted_event(native, subject, case);
    if same && compares && same_but_status(native, subject) {
        return Some("AMD leaves the flags of the last iteration when a comparison is interrupted");
    }
    None
}
