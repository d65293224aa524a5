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
    let instruction = at_native?;
    if native.rip == subject.rip {
        return same_place(native, subject, &instruction);
    }
    masked_store(native, &instruction)
}

/// Both ended at this instruction, with what may be different faults.
fn same_place(native: &Outcome, subject: &Outcome, i: &Instruction) -> Option<&'static str> {
    let (n, s) = (native.event.normalized(), subject.event.normalized());
    // SDM vol. 2, VPGATHERDD: how far a faulting gather got is left open.
    if n == s && i.is_vsib() {
        return Some("a gather that faults has done an implementation's share of its work");
    }
    // Seen on Zen 5; the SDM does not say whether a faulting instruction has entered MMX state.
    if n == s && n.fault().is_some() && touches_mmx_and_more(i) && same_but_x87(native, subject) {
        return Some("AMD enters MMX state before the instruction faults");
    }
    // SDM vol. 3, 4.7: CR2 is some byte of the access; long images are several accesses, in an order of their own.
    let pages = n.vector == 14 && s.vector == 14 && n.error_code == s.error_code;
    if pages && is_image(i) && n.cr2.abs_diff(s.cr2) < 512 {
        return Some("which byte of a long image faults first is the implementation's choice");
    }
    // SDM vol. 2, FXSAVE, #AC: "may be" in place of #GP.
    if i.memory_size().size() == 512 && [n.vector, s.vector].iter().all(|v| [13, 17].contains(v)) {
        return Some("a misaligned FXSAVE image is #AC or #GP");
    }
    // How many bytes of an instruction that does not exist are fetched is nobody's promise.
    if i.is_invalid() && n.vector == 14 && n.error_code & 16 != 0 && s.vector == 6 {
        return Some("an invalid instruction ends before or behind the page's end");
    }
    // APM vol. 3, UD0: no ModRM byte; SDM vol. 2, UD0: one, which may fault when fetched.
    if n.vector == 6 && i.mnemonic() == Mnemonic::Ud0 {
        return Some("UD0 has a ModRM byte on Intel's processors only");
    }
    masked_store(native, i)
}

/// SDM vol. 2, MASKMOVDQU: exceptions by addresses that the mask leaves out are implementation dependent.
fn masked_store(native: &Outcome, i: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    let masked = matches!(i.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu);
    (masked && native.event.fault().is_some())
        .then_some("a masked store may fault for bytes that it does not write")
}

fn touches_mmx_and_more(i: &Instruction) -> bool {
    use Mnemonic as M;
    let converts = matches!(
        i.mnemonic(),
        M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi | M::Cvtpi2ps | M::Cvtpi2pd
    );
    converts || i.mnemonic() == M::Maskmovq
}

fn same_but_x87(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    other.x87 = native.x87;
    other.event = native.event;
    other == *native
}

fn is_image(i: &Instruction) -> bool {
    [14, 28, 94, 108, 512].contains(&i.memory_size().size())
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
