//! Where the host's vendor and the Intel processor that a guest sees are known to differ.
//!
//! Judged after the fact, from the instruction at which the two went apart. Each rule says what was
//! seen where.

mod amd;
mod checks;
mod gather;
mod intel;
mod order;

pub(crate) use order::accepted_event;

use crate::case::{Case, layout};
use crate::generate::{excluded, is_amd};
use crate::outcome::{Change, Event, Outcome};
use iced_x86::{Code, CodeSize, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::sync::OnceLock;

/// Where Linux places position-independent programs, mappings and stacks
/// (Documentation/arch/x86/x86_64/mm.rst and mmap's base).
const OWN_MEMORY: std::ops::Range<u64> = 0x5500_0000_0000..0x8000_0000_0000;

/// Why a difference between `native` and `subject` is no defect, if it is none.
pub(crate) fn known_difference(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
) -> Option<&'static str> {
    // Wherever the kernel puts the native child's program, libraries and stack, the host finds
    // memory and the guest finds none.
    let subject_faults = subject.event.vector == 14 && OWN_MEMORY.contains(&subject.event.cr2);
    if subject_faults && native.event != subject.event {
        return Some("the native child has memory of its own there");
    }
    let made = instruction_at(&case.changed_by(native.changes()), native.rip);
    if made.is_some_and(|i| excluded(i.code(), case.bits(), is_amd()).is_some()) {
        return Some("a store has made an instruction that the oracle leaves out");
    }
    variants(native, case).iter().find_map(|variant| by_instruction(native, subject, variant))
}

/// Whether the host stopped `case` at the alignment of a vector operand, which AMD's processors
/// check and Intel's do not: what the guest does from there on, perhaps for ever, has nothing to be
/// compared with.
pub fn stopped_early(case: &Case, native: &Outcome) -> bool {
    let vector = |case: &Case| instruction_at(case, native.rip).is_some_and(is_vector_operand);
    is_amd() && native.event.vector == 17 && variants(native, case).iter().any(vector)
}

fn is_vector_operand(i: Instruction) -> bool {
    i.memory_size().size() >= 16
}

/// What the code of `case` may have been when it ended: as its own stores may have left it, and as
/// they did.
fn variants(native: &Outcome, case: &Case) -> Vec<Case> {
    let mut variants = case.variants();
    variants.push(case.changed_by(native.changes()));
    variants
}

fn by_instruction(native: &Outcome, subject: &Outcome, case: &Case) -> Option<&'static str> {
    // SDM vol. 2, KADD to KXOR: #UD without AVX-512, which no model of ours has and the host may
    // have.
    let went_on = native.event.vector != 6 || native.rip != subject.rip;
    let by_avx512 = is_opmask(case, subject.rip) || is_evex(case, subject.rip);
    if subject.event.vector == 6 && went_on && by_avx512 {
        return Some("the host has AVX-512's instructions, the guest has not");
    }
    // What XSAVE was asked for may have been computed. The guest has no more than three components.
    let asked = native.gpr[0] & 0xffff_ffff | native.gpr[2] << 32;
    if asked & !7 != 0 && case.reachable().iter().any(is_xsave) {
        return Some("the host may have components to save that the guest has not");
    }
    // SDM vol. 1, 13.6, as for an XSAVE whose image's place is known from the start.
    if one_word_apart(native, subject) && case.reachable().iter().skip(1).any(is_xsave) {
        return Some("which components are in their initial configuration is its own affair");
    }
    let invalid = native.event.vector == 13 && subject.event.vector == 6;
    if invalid && native.rip == subject.rip && is_hypercall(case, native.rip) {
        return Some(
            "the hypervisor below the host takes VMCALL with prefixes that make it undefined",
        );
    }
    let at_native = instruction_at(case, native.rip);
    let amd = is_amd().then(|| amd::only(native, subject, case, at_native)).flatten();
    if amd.is_some() {
        return amd;
    }
    // TF from the start, or set by a POPF on the way: the frame has it either way.
    let single_step = (case.rflags | native.rflags) & 0x100 != 0;
    if single_step && at_native.or(instruction_at(case, subject.rip)).is_some_and(|i| i.is_vsib()) {
        return Some("a gather may take the single-step trap half way");
    }
    let intel = (!is_amd()).then(|| intel::only(native, subject, case)).flatten();
    if intel.is_some() {
        return intel;
    }
    let instruction = at_native?;
    if let Some(why) = checks::ranges(native, case, &instruction) {
        return Some(why);
    }
    if native.rip == subject.rip {
        return same_place(native, subject, case, &instruction);
    }
    masked_store(native, &instruction)
}

/// Both ended at this instruction, with what may be different faults.
fn same_place(
    native: &Outcome,
    subject: &Outcome,
    case: &Case,
    i: &Instruction,
) -> Option<&'static str> {
    let (n, s) = (native.event.normalized(), subject.event.normalized());
    // The SDM does not say whether a faulting instruction has entered MMX state: on Zen 5 the
    // conversions and MASKMOVQ have, on Sapphire Rapids and its kin stores have, too.
    if n == s && n.fault().is_some() && touches_mmx(i) && same_but_x87(native, subject) {
        return Some("an instruction that faults may have entered MMX state");
    }
    // SDM vol. 2, CALL, checks the target first. Zen 3 does so for a target that is not canonical;
    // of Intel's processors some have pushed when it is beyond a limit of 64 KiB, and some not.
    if n == s && i.mnemonic() == Mnemonic::Call && checks::pushed_or_not(native, subject, case) {
        return Some("a CALL that does not reach its target may have pushed");
    }
    // SDM vol. 1, 6.6: a faulting instruction has changed no register.
    if n == s && matches!(i.code(), Code::Popaw | Code::Popad) && n.fault().is_some() {
        return Some("POPA has loaded registers when it faults");
    }
    if n == s && i.is_vsib() && gather::same_but_progress(native, subject, i) {
        return Some("a gather that faults has done an implementation's share of its work");
    }
    // SDM vol. 3, 4.7: CR2 is some byte of the access; long images are several accesses, in an
    // order of their own.
    let pages = n.vector == 14 && s.vector == 14;
    if pages && n.error_code == s.error_code && is_image(i) && n.cr2.abs_diff(s.cr2) < 512 {
        return Some("which byte of a long image faults first is the implementation's choice");
    }
    // SDM vol. 1, 13.7, has no order of reading XSTATE_BV and writing the components.
    let apart = (n.cr2.wrapping_sub(s.cr2) as i64).unsigned_abs();
    // What lies beyond 64 KiB is at 0.
    let apart = if case.bits() == 16 { apart.min(0x1_0000_u64.abs_diff(apart)) } else { apart };
    if pages && is_xsave(i) && apart < XSAVE_SIZE {
        return Some("XSAVE's header is read, or a component written, first");
    }
    // SDM vol. 3, 6.3: at an effective limit of 4 GiB "these accesses may or may not cause the
    // indicated exceptions".
    let wraps = |(_, b): (u64, u64)| case.bits() != 64 && b > u64::from(u32::MAX);
    let mut operands = (0..i.op_count()).filter_map(|n| operand_at(i, n, native));
    // The stack's operands are named nowhere, a gather's are many.
    let ends = n.cr2 > u64::from(u32::MAX - 16) || n.cr2 < 16;
    let stack = s.vector == 12 && (ends || n.vector == 17);
    let unnamed = case.bits() != 64 && (stack || i.is_vsib());
    if both_fault(&n, &s) && (operands.any(wraps) || unnamed) {
        return Some("an operand beyond 4 GiB faults in one way or another");
    }
    let several = is_image(i) || i.memory_size().size() == 10;
    let across = |(a, b): (u64, u64)| canonical(a) != canonical(b);
    if several && both_fault(&n, &s) && operand(i, native).is_some_and(across) {
        return Some(
            "an operand of several accesses may fault for a part before its non-canonical end",
        );
    }
    if let Some(why) = checks::order_of_checks(native, &n, &s, case, i) {
        return Some(why);
    }
    // How many bytes of an instruction that does not exist are fetched is nobody's promise; nor is
    // it for UD0 and UD1, which have a ModRM byte on Intel's processors only (SDM vol. 2, APM vol.
    // 3).
    let none = i.is_invalid() || matches!(i.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1);
    let ends = [n, s].iter().all(|e| e.vector == 6 || (e.vector == 14 && e.error_code & 16 != 0));
    if none && ends {
        return Some("an invalid instruction ends before or behind the page's end");
    }
    let long = n.vector == 13 && s.vector == 6 && prefixes_at(case, native.rip) >= 3;
    if i.is_invalid() && long {
        return Some("an invalid instruction is or is not longer than 15 bytes");
    }
    masked_store(native, i)
}

/// SDM vol. 2, MASKMOVDQU: exceptions by addresses that the mask leaves out are implementation
/// dependent.
fn masked_store(native: &Outcome, i: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    let masked = matches!(i.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu);
    (masked && native.event.fault().is_some())
        .then_some("a masked store may fault for bytes that it does not write")
}

/// Whether some memory operand is not at a multiple of 16; a fault has changed no register.
fn misaligned(i: &Instruction, at_fault: &Outcome) -> bool {
    let start = operand(i, at_fault).map(|(first, _)| first.wrapping_add(base_of(at_fault, i)));
    start.is_none_or(|start| start % 16 != 0)
}

/// The base of the segment of `i`'s operand, but for ES of strings.
fn base_of(at_fault: &Outcome, i: &Instruction) -> u64 {
    match i.segment_prefix() {
        _ if i.code_size() == CodeSize::Code16 => layout::base_16(i.memory_segment()),
        Register::FS => at_fault.fs_base,
        Register::GS => at_fault.gs_base,
        _ => 0,
    }
}

fn loads_mxcsr(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Ldmxcsr | M::Vldmxcsr | M::Fxrstor | M::Fxrstor64)
}

/// Whether the two differ in that RAX and R8 have been exchanged.
fn same_but_exchanged(native: &Outcome, subject: &Outcome) -> bool {
    let same = |mask: u64, clear: u64| {
        let mut other = *subject;
        let [a, b] = [0, 8].map(|r| subject.gpr[r]);
        other.gpr[0] = a & !mask & !clear | b & mask;
        other.gpr[8] = b & !mask & !clear | a & mask;
        other.event = native.event;
        other == *native
    };
    // Of 64, 32 (which clears the upper half) and 16 bits.
    let exchanged = same(u64::MAX, 0) || same(u32::MAX.into(), u64::MAX) || same(0xffff, 0);
    exchanged && native.event.normalized() == subject.event.normalized()
}

/// Whether the fault may be one of the two bytes behind a word: on another page, not canonical, or
/// since four bytes are to be aligned.
fn two_more_fault(i: &Instruction, at_fault: &Outcome) -> bool {
    let Some((first, _)) = operand(i, at_fault) else { return false };
    let start = first.wrapping_add(base_of(at_fault, i));
    match at_fault.event.vector {
        12 | 13 => canonical(start.wrapping_add(1)) && !canonical(start.wrapping_add(3)),
        14 => (1..4).contains(&at_fault.event.cr2.wrapping_sub(start)),
        17 => start % 4 == 2,
        _ => false,
    }
}

/// Whether `event` is a fault of pushing up to eight bytes.
fn pushes_at(event: &Event, at_fault: &Outcome) -> bool {
    let below = at_fault.gpr[4].wrapping_sub(event.cr2).wrapping_sub(1) & 0xffff_ffff;
    matches!(event.vector, 12 | 17) || event.vector == 14 && below < 8
}

fn touches_mmx(i: &Instruction) -> bool {
    let mmx = |n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm();
    (0..i.op_count()).any(mmx)
}

fn compares_repeatedly(i: &Instruction) -> bool {
    use Mnemonic as M;
    let compares = matches!(
        i.mnemonic(),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
    );
    compares && (i.has_rep_prefix() || i.has_repne_prefix())
}

/// REP MOVS or STOS that has written over itself.
fn overwritten(i: &Instruction, native: &Outcome, subject: &Outcome) -> bool {
    use Mnemonic as M;
    let stores = matches!(
        i.mnemonic(),
        M::Movsb | M::Movsw | M::Movsd | M::Movsq | M::Stosb | M::Stosw | M::Stosd | M::Stosq
    );
    // Changes are told by words.
    let own = |c: &Change| c.address.0 < i.next_ip() && c.address.0 + 8 > i.ip();
    // Of many changes not all are noted.
    let many = |o: &Outcome| o.changed as usize > o.changes().len();
    let wrote = [native, subject].iter().all(|o| many(o) || o.changes().iter().any(own));
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    stores && i.is_string_instruction() && repeats && wrote
}

/// As [`overwritten`], and `native` has done all iterations, or those before one that faulted.
fn goes_on_over_itself(i: &Instruction, native: &Outcome, subject: &Outcome) -> bool {
    let by_ecx = repeats_by_ecx(i) || i.code_size() != CodeSize::Code64;
    let count = native.gpr[1] & if by_ecx { 0xffff_ffff } else { u64::MAX };
    // What the new bytes do there may move the host anywhere.
    let stopped = (i.ip()..=i.next_ip()).contains(&subject.rip);
    overwritten(i, native, subject) && (count == 0 || native.rip == i.ip() || stopped)
}

/// A repeated string instruction with 32-bit addresses in 64-bit code.
fn repeats_by_ecx(i: &Instruction) -> bool {
    let by_32 = |n| matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI);
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    repeats && i.code_size() == CodeSize::Code64 && (0..i.op_count()).any(by_32)
}

/// Whether the subject has cleared upper halves of RCX, RSI or RDI that `native` has left, and
/// nothing else differs. LOOP may have counted RCX down since, from there.
fn same_but_upper_halves(native: &Outcome, subject: &Outcome, case: &Case) -> bool {
    let mut other = *subject;
    for r in [1, 6, 7] {
        if other.gpr[r] == native.gpr[r] & 0xffff_ffff {
            other.gpr[r] = native.gpr[r];
        }
    }
    let counted = other.gpr[1] as u32 == native.gpr[1] as u32;
    if counted && case.reachable().iter().any(counts_rcx) {
        other.gpr[1] = native.gpr[1];
    }
    other.event = native.event;
    other == *native
}

fn counts_rcx(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Loop | M::Loope | M::Loopne)
}

/// The status flags.
const STATUS: u64 = 0x8d5;

fn same_but_status(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    other.rflags = other.rflags & !STATUS | native.rflags & STATUS;
    other.event = native.event;
    other == *native
}

/// Whether nothing differs but one word of memory, and of that the three lowest bits or that only
/// one has changed it.
fn one_word_apart(native: &Outcome, subject: &Outcome) -> bool {
    let other = |a: &Outcome, b: &Outcome| -> Vec<Change> {
        a.changes().iter().filter(|c| !b.changes().contains(c)).copied().collect()
    };
    let apart = match (&other(native, subject)[..], &other(subject, native)[..]) {
        ([n], [s]) => n.address == s.address && (n.value ^ s.value) & !7 == 0,
        ([_], []) | ([], [_]) => true,
        _ => false,
    };
    apart && same_but_memory(native, subject)
}

fn same_but_memory(native: &Outcome, subject: &Outcome) -> bool {
    let mut other = *subject;
    (other.changed, other.changes) = (native.changed, native.changes);
    other.memory_hash = native.memory_hash;
    other == *native
}

fn same_but_x87(native: &Outcome, subject: &Outcome) -> bool {
    // An earlier instruction may have left undefined ones.
    let mut other = *subject;
    other.rflags = other.rflags & !STATUS | native.rflags & STATUS;
    other.x87 = native.x87;
    other.event = native.event;
    other == *native
}

/// Whether the subject's image differs in RF being set, and in nothing else, except status flags
/// with `status`.
fn same_but_rf(native: &Outcome, subject: &Outcome, status: bool) -> bool {
    const RF: u64 = 1 << 16;
    let mut other = *subject;
    other.rflags &= !RF;
    if status {
        other.rflags = other.rflags & !STATUS | native.rflags & STATUS;
    }
    other.event = native.event;
    subject.rflags & RF != 0
        && native.event.normalized() == subject.event.normalized()
        && other == *native
}

fn both_fault(n: &Event, s: &Event) -> bool {
    n.fault().is_some() && s.fault().is_some()
}

fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// Whether the fault is within XSAVE's image.
fn in_image(i: &Instruction, at_fault: &Outcome) -> bool {
    let start = operand(i, at_fault).map(|(first, _)| first);
    let cr2 = at_fault.event.cr2.wrapping_sub(base_of(at_fault, i));
    // What lies beyond the last address is at 0.
    let places = |start: u64| [start, start.wrapping_sub(1 << 16), start.wrapping_sub(1 << 32)];
    let size = host_image();
    let there = |start: u64| cr2.wrapping_sub(start) < size;
    start.is_some_and(|start| places(start).into_iter().any(there))
}

fn is_image(i: &Instruction) -> bool {
    is_xsave(i) || [14, 28, 94, 108, 512].contains(&i.memory_size().size())
}

/// Bytes of the image that XSAVE writes of x87, SSE and AVX state.
pub(crate) const XSAVE_SIZE: u64 = 832;

/// Bytes of an XSAVE image of all that the host has enabled, AVX-512 too, which no case has (SDM
/// vol. 1, 13.2: CPUID 0DH, EBX).
pub(crate) fn host_image() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| std::arch::x86_64::__cpuid_count(0xd, 0).ebx.into())
}

fn is_xsave(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Xsave | Mnemonic::Xsave64)
}

/// Whether the operand's offset is canonical; a fault has changed no register.
fn canonical_offset(i: &Instruction, at_fault: &Outcome) -> bool {
    operand(i, at_fault).is_none_or(|(first, last)| canonical(first) && canonical(last))
}

/// First and last byte of the operand, without segment base; of string instructions the one at rSI.
fn operand(i: &Instruction, at_fault: &Outcome) -> Option<(u64, u64)> {
    let memory = |n: &u32| {
        matches!(
            i.op_kind(*n),
            OpKind::Memory | OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI
        )
    };
    operand_at(i, (0..i.op_count()).find(memory)?, at_fault)
}

/// First and last byte of operand `n`, without segment base; `None`: it is not in memory.
fn operand_at(i: &Instruction, n: u32, at_fault: &Outcome) -> Option<(u64, u64)> {
    let value = |r: Register| match r {
        _ if r.is_segment_register() => Some(0),
        _ if r.is_gpr64() => at_fault.gpr.get(r.number()).copied(),
        _ if r.is_gpr32() => at_fault.gpr.get(r.number()).map(|v| v & 0xffff_ffff),
        _ if r.is_gpr16() => at_fault.gpr.get(r.number()).map(|v| v & 0xffff),
        // XLAT's index.
        Register::AL => Some(at_fault.gpr[0] & 0xff),
        _ => None,
    };
    let in_memory = matches!(
        i.op_kind(n),
        OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
    );
    let offset = in_memory.then(|| i.virtual_address(n, 0, |r, _, _| value(r))).flatten()?;
    let offset = offset.wrapping_add(bit_string(i, at_fault));
    let size = if is_xsave(i) { XSAVE_SIZE } else { i.memory_size().size() as u64 };
    Some((offset, offset.wrapping_add(size).wrapping_sub(1)))
}

/// How far from its address the word that BT and kin access lies in 64-bit addressing (SDM vol. 2,
/// BT, table 3-2).
fn bit_string(i: &Instruction, at_fault: &Outcome) -> u64 {
    use Mnemonic as M;
    let bits = matches!(i.mnemonic(), M::Bt | M::Btc | M::Btr | M::Bts)
        && i.op1_kind() == OpKind::Register
        && (i.memory_base().is_gpr64() || i.memory_index().is_gpr64());
    let Some(value) = at_fault.gpr.get(i.op1_register().number()).filter(|_| bits) else {
        return 0;
    };
    let words = match i.op1_register().size() {
        2 => i64::from(*value as i16) >> 4,
        4 => i64::from(*value as i32) >> 5,
        _ => *value as i64 >> 6,
    };
    (words as u64).wrapping_mul(i.op1_register().size() as u64)
}

fn reads_memory(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory)
}

const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0];

/// VEX.256.66.0F3A 00 or 01, W0.
fn is_vpermq_w0(case: &Case, rip: u64) -> bool {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    let rest = bytes.iter().position(|b| !PREFIXES.contains(b)).map_or(&[][..], |n| &bytes[n..]);
    matches!(rest, [0xc4, map, vex, 0 | 1, ..] if map & 0x1f == 3 && vex & 0x87 == 5)
}

/// An opmask instruction by its bytes, since iced-x86 takes more of them for invalid than
/// processors do (Zen 4 ignores the top bit of VEX.vvvv): VEX.0F 41, 42, 44 to 47, 4A, 4B, 90 to
/// 93, 98, 99 and VEX.0F3A 30 to 33.
fn is_opmask(case: &Case, rip: u64) -> bool {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    let rest = bytes.iter().position(|b| !PREFIXES.contains(b)).map_or(&[][..], |n| &bytes[n..]);
    let (map, opcode) = match rest {
        [0xc5, _, opcode, ..] => (1, *opcode),
        [0xc4, map, _, opcode, ..] => (map & 0x1f, *opcode),
        _ => return false,
    };
    match map {
        1 => matches!(opcode, 0x41 | 0x42 | 0x44..=0x47 | 0x4a | 0x4b | 0x90..=0x93 | 0x98 | 0x99),
        3 => matches!(opcode, 0x30..=0x33),
        _ => false,
    }
}

/// An instruction with an EVEX prefix, which a patch has made.
fn is_evex(case: &Case, rip: u64) -> bool {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    let rest = bytes.iter().position(|b| !PREFIXES.contains(b)).map_or(&[][..], |n| &bytes[n..]);
    // In 32-bit code it is BOUND but for what would be its ModRM's register form.
    matches!(rest, [0x62, next, ..] if case.bits() == 64 || next & 0xc0 == 0xc0)
}

/// F3 90 with REX.B.
fn is_pause_rex_b(case: &Case, i: &Instruction) -> bool {
    let bytes = bytes_at(case, i.ip()).unwrap_or_default();
    let rex = i.len().checked_sub(2).and_then(|n| bytes.get(n)).copied().unwrap_or(0);
    i.mnemonic() == Mnemonic::Pause && case.bits() == 64 && rex & 0xf1 == 0x41
}

/// LOCK 0F 20 or 22.
fn is_lock_mov_cr(case: &Case, rip: u64) -> bool {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    let (prefixes, rest) = bytes.split_at(prefixes_at(case, rip));
    prefixes.contains(&0xf0) && matches!(rest, [0x0f, 0x20 | 0x22, ..])
}

/// 0F 01 C1 or D9, VMCALL and VMMCALL, with any prefixes.
fn is_hypercall(case: &Case, rip: u64) -> bool {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    matches!(bytes[prefixes_at(case, rip)..], [0x0f, 0x01, 0xc1 | 0xd9, ..])
}

/// How many prefixes begin the instruction at `rip`.
fn prefixes_at(case: &Case, rip: u64) -> usize {
    let bytes = bytes_at(case, rip).unwrap_or_default();
    bytes.iter().take_while(|b| PREFIXES.contains(b) || **b & 0xf0 == 0x40).count()
}

/// The code of `case` from `rip` on, completed by filler.
fn bytes_at(case: &Case, rip: u64) -> Option<Vec<u8>> {
    let start = usize::try_from(rip.checked_sub(case.rip())?).ok()?;
    let mut padded = case.code().get(start..)?.to_vec();
    padded.extend([layout::FILL; 15]);
    Some(padded)
}

/// The instruction of `case` at `rip`.
fn instruction_at(case: &Case, rip: u64) -> Option<Instruction> {
    let padded = bytes_at(case, rip)?;
    Some(Decoder::with_ip(case.bits(), &padded, rip, DecoderOptions::NONE).decode())
}

#[cfg(test)]
mod tests;
