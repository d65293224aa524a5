//! Where the host's vendor and the Intel processor that a guest sees are known to differ.
//!
//! Judged after the fact, from the instruction at which the two went apart. Each rule says what was seen where.

use crate::case::{Case, layout};
use crate::outcome::Outcome;
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

/// Why a difference between `native` and `subject` is no defect, if it is none.
pub(crate) fn known_difference(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
) -> Option<&'static str> {
    // APM vol. 2, 11.4.3.
    if native.mxcsr & 1 << 17 != 0 {
        return Some("MXCSR.MM exists on AMD's processors only and lifts alignment checks");
    }
    let at_native = instruction_at(case, native.rip);
    let at_subject = instruction_at(case, subject.rip);
    // Seen on Zen 5; SDM vol. 2, SHA1MSG1 and kin: exceptions of type 4, which include alignment.
    let sha = |i: &Instruction| i.cpuid_features().contains(&CpuidFeature::SHA);
    if subject.event.vector == 13 && at_subject.is_some_and(|i| sha(&i) && reads_memory(&i)) {
        return Some("AMD's SHA instructions take misaligned memory operands");
    }
    // SDM vol. 2, VPGATHERDD: how far a faulting gather got is left open.
    let gather = at_native.is_some_and(|i| i.is_vsib());
    if gather && native.event == subject.event && native.rip == subject.rip {
        return Some("a gather that faults has done an implementation's share of its work");
    }
    // APM vol. 3, UD0: no ModRM byte; SDM vol. 2, UD0: one, which may fault when fetched.
    if native.event.vector == 6 && at_native.is_some_and(|i| i.mnemonic() == Mnemonic::Ud0) {
        return Some("UD0 has a ModRM byte on Intel's processors only");
    }
    None
}

fn reads_memory(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory)
}

/// The instruction of `case` at `rip`, as it was before anything modified it.
fn instruction_at(case: &Case, rip: u64) -> Option<Instruction> {
    let start = usize::try_from(rip.checked_sub(case.rip())?).ok()?;
    let mut padded = case.code().get(start..)?.to_vec();
    padded.extend([layout::FILL; 15]);
    Some(Decoder::with_ip(64, &padded, rip, DecoderOptions::NONE).decode())
}
