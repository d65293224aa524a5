//! One of several faults, or one of several addresses, where the manuals leave open which: the
//! events differ, and everything else is compared as ever.

use super::{base_of, bytes_at, canonical, instruction_at, operand, prefixes_at, variants};
use crate::case::{Case, layout};
use crate::generate::is_amd;
use crate::outcome::{Event, Outcome};
use iced_x86::{Code, CodeSize, Instruction, Mnemonic, OpKind, Register};

const AC: u64 = 1 << 18;

/// Whether the subject may end with its event where `native` ended with another one.
pub(crate) fn accepted_event(native: &Outcome, subject: &Outcome, case: &Case) -> bool {
    native.rip == subject.rip
        && native.event.normalized() != subject.event.normalized()
        && native.event.fault().is_some()
        && variants(native, case).iter().any(|variant| {
            instruction_at(variant, native.rip).is_some_and(|i| {
                other_operand(native, subject, &i)
                    || is_amd() && element_wraps(native, subject, variant, &i)
            })
        })
}

/// CMPS whose two operands both fault. In which order they are read neither manual says (SDM vol. 2
/// and APM vol. 3, CMPS), and processors do not agree, nor one with itself: Zen 5 reads the operand
/// at rSI first, Zen 4 that at rDI, but for REPE CMPSB.
fn other_operand(native: &Outcome, subject: &Outcome, i: &Instruction) -> bool {
    let compares = matches!(
        i.code(),
        Code::Cmpsb_m8_m8 | Code::Cmpsw_m16_m16 | Code::Cmpsd_m32_m32 | Code::Cmpsq_m64_m64
    );
    if !compares {
        return false;
    }
    let [first, second] = [0, 1].map(|n| faults(native, i, n));
    let pair = |n: &[Event], s: &[Event]| {
        // The subject keeps to its order of faults within one operand: canonical, aligned, present.
        n.contains(&native.event.normalized()) && s.first() == Some(&subject.event.normalized())
    };
    pair(&first, &second) || pair(&second, &first)
}

/// The faults that string operand `n` has cause for, in the state at the fault, which has changed
/// no register.
fn faults(at_fault: &Outcome, i: &Instruction, n: u32) -> Vec<Event> {
    let index = match i.op_kind(n) {
        OpKind::MemorySegRSI | OpKind::MemorySegESI | OpKind::MemorySegSI => at_fault.gpr[6],
        _ => at_fault.gpr[7],
    };
    let offset = match i.op_kind(n) {
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => index,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => index & 0xffff_ffff,
        _ => index & 0xffff,
    };
    let source =
        matches!(i.op_kind(n), OpKind::MemorySegRSI | OpKind::MemorySegESI | OpKind::MemorySegSI);
    let base = match i.code_size() {
        CodeSize::Code16 if source => base_of(at_fault, i),
        CodeSize::Code16 => layout::DATA_16_BASE,
        _ if source => base_of(at_fault, i),
        _ => 0,
    };
    let size = i.memory_size().size() as u64;
    let linear = offset.wrapping_add(base);
    let long = i.code_size() == CodeSize::Code64;
    let start = if long { linear } else { linear & 0xffff_ffff };
    let end = start.wrapping_add(size - 1);
    let mut list = Vec::new();
    // SDM vol. 3, 6.3: the limit of a flat segment.
    let beyond = i.code_size() == CodeSize::Code32 && end > u64::from(u32::MAX);
    let code = i.code_size() == CodeSize::Code16 && source && i.memory_segment() == Register::CS;
    let beyond = beyond || code && offset + size > layout::CODE_LIMIT_16;
    if beyond || !canonical(start) || !canonical(end) {
        list.push(Event { vector: 13, ..Event::default() });
    }
    if at_fault.rflags & AC != 0 && start % size != 0 {
        list.push(Event { vector: 17, ..Event::default() });
    }
    // The first byte that is not there; outside 64-bit mode linear addresses end at 4 GiB.
    let last = if long { end } else { end & 0xffff_ffff };
    let last_page = last & !(layout::PAGE - 1);
    let next = if last_page == start & !(layout::PAGE - 1) { start } else { last_page };
    let absent = [start, next].into_iter().find(|a| !readable(*a));
    if let Some(cr2) = absent {
        list.push(Event { vector: 14, error_code: 4, cr2 }.normalized());
    }
    list
}

fn readable(address: u64) -> bool {
    use layout::{
        ALIAS, ARENA, ARENA_SIZE, CODE, CODE_SIZE, READ_ONLY, READ_ONLY_SIZE, STACK, STACK_SIZE,
    };
    let parts = [
        (CODE, CODE_SIZE),
        (ARENA, ARENA_SIZE),
        (ALIAS, ARENA_SIZE),
        (READ_ONLY, READ_ONLY_SIZE),
        (STACK, STACK_SIZE),
    ];
    parts.into_iter().any(|(start, size)| address.wrapping_sub(start) < size)
}

/// Whether `native` is a masked store across its last address that faults for an element beyond, at
/// 0: see [`element_wraps`].
pub(super) fn masked_store_wraps(native: &Outcome, case: &Case, i: &Instruction) -> bool {
    use Mnemonic as M;
    let store =
        matches!(i.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq)
            && i.op0_kind() == OpKind::Memory;
    let Some(end) = last_address(native, case).filter(|_| store && native.event.vector == 14)
    else {
        return false;
    };
    let beyond = operand(i, native).and_then(|(_, last)| last.checked_sub(end));
    let cr2 = native.event.cr2.wrapping_sub(base_of(native, i));
    beyond.is_some_and(|beyond| cr2 <= beyond)
}

/// Whether `subject` faults at a masked move some elements of which lie beyond the last address
/// that 16 bits tell.
pub(super) fn masked_elements_wrap(subject: &Outcome, case: &Case, i: &Instruction) -> bool {
    use Mnemonic as M;
    let masked =
        matches!(i.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq);
    let short = last_address(subject, case) == Some(1 << 16);
    masked && short && operand(i, subject).is_some_and(|(_, last)| last >= 1 << 16)
}

/// Whether `native` faults for the last byte of an x87 image, which lies beyond the last address
/// and so from 0 on.
pub(super) fn last_byte_wraps(native: &Outcome, case: &Case, i: &Instruction) -> bool {
    let image = [14, 28, 94, 108].contains(&i.memory_size().size());
    let last = operand(i, native).map(|(_, last)| last);
    let beyond = last.zip(last_address(native, case)).and_then(|(last, end)| last.checked_sub(end));
    let cr2 = native.event.cr2.wrapping_sub(base_of(native, i));
    image && beyond == Some(cr2)
}

/// Behind the last address that the instruction at `native`'s end can tell, if it is not 64 bits.
fn last_address(native: &Outcome, case: &Case) -> Option<u64> {
    let bytes = bytes_at(case, native.rip).unwrap_or_default();
    let prefixed = bytes.iter().take(prefixes_at(case, native.rip)).any(|b| *b == 0x67);
    match (case.bits(), prefixed) {
        (64, false) => None,
        (64, true) | (16, true) | (32, false) => Some(1 << 32),
        _ => Some(1 << 16),
    }
}

/// VMASKMOV, VPMASKMOV, FXSAVE and FXRSTOR with a 67 prefix, an element of which lies beyond 4 GiB,
/// or beyond 64 KiB in 32-bit code. The manuals wrap the operand's start to the address size (SDM
/// vol. 1, 3.3.7; APM vol. 1, 2.2), and what follows it comes behind it, as it does for every
/// ordinary operand. Zen 4 goes element by element when one faults, and computes and wraps each
/// one's address anew; a load that does not fault, it makes beyond 4 GiB. Zen 5 wraps none.
fn element_wraps(native: &Outcome, subject: &Outcome, case: &Case, i: &Instruction) -> bool {
    use Mnemonic as M;
    let masked = matches!(
        i.mnemonic(),
        M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
    );
    let end = last_address(native, case).filter(|end| case.bits() != 32 || *end == 1 << 16);
    let (Some((_, last)), Some(limit)) = (operand(i, native).filter(|_| masked), end) else {
        return false;
    };
    let (n, s) = (native.event.normalized(), subject.event.normalized());
    let beyond = s.cr2.wrapping_sub(base_of(native, i));
    let pages = n.vector == 14 && s.vector == 14 && n.error_code == s.error_code;
    pages && (limit..=last).contains(&beyond) && n.cr2 == s.cr2.wrapping_sub(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare;
    use crate::undefined::Mask;

    const ABSENT: u64 = 0x3000_0000;

    fn outcome(case: &Case, vector: u32, error_code: u32, cr2: u64) -> Outcome {
        let mut outcome = Outcome::ended(vector, error_code);
        (outcome.gpr, outcome.rip, outcome.event.cr2) = (case.gpr, case.rip(), cr2);
        (outcome.fs_base, outcome.gs_base, outcome.rflags) =
            (case.fs_base, case.gs_base, case.rflags);
        outcome
    }

    fn agree(case: &Case, native: &Outcome, subject: &Outcome) -> bool {
        compare(case, native, subject, &Mask::default()).is_empty()
    }

    fn cmpsd(source: u64, destination: u64) -> Case {
        let mut case = Case::with_code(&[0xa7]);
        (case.gpr[6], case.gpr[7]) = (source, destination);
        case
    }

    #[test]
    fn either_operand_of_a_comparison_may_fault_first_if_both_do() {
        let case = cmpsd(ABSENT, ABSENT + 0x10_0000);
        let source = outcome(&case, 14, 4, ABSENT);
        let destination = outcome(&case, 14, 4, ABSENT + 0x10_0000);
        assert!(agree(&case, &source, &destination));
        assert!(agree(&case, &destination, &source));
        // Neither another address nor another error, nor another register besides.
        for wrong in [(14, 4, ABSENT + 1), (14, 6, ABSENT), (13, 0, 0), (17, 0, 0)] {
            let subject = outcome(&case, wrong.0, wrong.1, wrong.2);
            assert!(!agree(&case, &destination, &subject), "{wrong:?}");
        }
        let mut subject = source;
        subject.gpr[6] += 4;
        assert!(!agree(&case, &destination, &subject));
    }

    #[test]
    fn an_operand_that_is_there_does_not_fault() {
        let case = cmpsd(layout::ARENA, ABSENT);
        let native = outcome(&case, 14, 4, ABSENT);
        assert!(!agree(&case, &native, &outcome(&case, 14, 4, layout::ARENA)));
        // Nor does MOVSD have a choice.
        let mut case = cmpsd(ABSENT, ABSENT + 0x10_0000);
        case.code[0] = 0xa5;
        let source = outcome(&case, 14, 4, ABSENT);
        assert!(!agree(&case, &source, &outcome(&case, 14, 6, ABSENT + 0x10_0000)));
    }

    #[test]
    fn the_two_faults_may_be_of_two_kinds() {
        let case = cmpsd(1 << 63, ABSENT + 1);
        let native = outcome(&case, 14, 4, ABSENT + 1);
        assert!(agree(&case, &native, &outcome(&case, 13, 0, 0)));
        assert!(!agree(&case, &native, &outcome(&case, 17, 0, 0)));
        // Beyond the limit of 32-bit code.
        let mut wide = cmpsd(ABSENT, 0xffff_ffff);
        wide.make_compatible(32);
        let native = outcome(&wide, 13, 0, 0);
        assert!(agree(&wide, &native, &outcome(&wide, 14, 4, ABSENT)));
        let mut aligned = case;
        aligned.rflags |= AC;
        let native = outcome(&aligned, 17, 0, 0);
        assert!(agree(&aligned, &native, &outcome(&aligned, 13, 0, 0)));
        // The subject's operand at rDI is misaligned before it is absent.
        let native = outcome(&aligned, 13, 0, 0);
        assert!(agree(&aligned, &native, &outcome(&aligned, 17, 0, 0)));
        assert!(!agree(&aligned, &native, &outcome(&aligned, 14, 4, ABSENT + 1)));
    }

    #[test]
    fn an_element_beyond_4_gib_may_wrap_on_amd() {
        // vpmaskmovd [eax], ymm8, ymm1
        let mut case = Case::with_code(&[0x67, 0xc4, 0xe2, 0x3d, 0x8e, 0x08]);
        case.gpr[0] = 0xffff_fffa;
        let native = outcome(&case, 14, 6, 2);
        let subject = outcome(&case, 14, 6, 0x1_0000_0002);
        assert_eq!(agree(&case, &native, &subject), is_amd());
        assert!(!agree(&case, &subject, &native));
        assert!(!agree(&case, &native, &outcome(&case, 14, 6, 0x1_0000_0006)));
        assert!(!agree(&case, &native, &outcome(&case, 14, 4, 0x1_0000_0002)));
        let far = outcome(&case, 14, 6, 0x100);
        assert!(!agree(&case, &far, &outcome(&case, 14, 6, 0x1_0000_0100)));
        // vmaskmovps [si], ymm2, ymm2 in 32-bit code
        let mut short = Case::with_code(&[0x67, 0xc4, 0xe2, 0x6d, 0x2e, 0x14]);
        short.gpr[6] = 0xffff_ffff;
        short.make_compatible(32);
        let (n, s) = (outcome(&short, 14, 6, 0xb), outcome(&short, 14, 6, 0x1_000b));
        assert_eq!(agree(&short, &n, &s), is_amd());
        assert!(!agree(&short, &s, &n));
        // Without the prefix there is nothing to wrap; nor does VMOVDQU [eax], ymm1 wrap.
        let mut wide = Case::with_code(&[0xc4, 0xe2, 0x3d, 0x8e, 0x08]);
        wide.gpr[0] = case.gpr[0];
        assert!(!agree(&wide, &native, &subject));
        let mut plain = Case::with_code(&[0x67, 0xc5, 0xfe, 0x7f, 0x08]);
        plain.gpr[0] = case.gpr[0];
        assert!(!agree(&plain, &native, &subject));
    }
}
