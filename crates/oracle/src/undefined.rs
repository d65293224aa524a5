//! What the manuals leave undefined, and what vendors do differently: not compared.
//!
//! Flags come from iced-x86's table `rflags_undefined()`, which follows the "Flags Affected"
//! sections of SDM vol. 2. `strict` comparison does without it, since undefined flags are stable on
//! one processor. Further rules, each with its source, are in [`ignored_memory`] and
//! [`undefined_result`].

use crate::case::{Case, layout};
use crate::generate::block::flags_defined;
use crate::generate::{Features, Filter, excluded, is_amd};
use crate::vendor::XSAVE_SIZE;
use iced_x86::{Instruction, Mnemonic, OpKind, Register, RflagsBits};

/// Bytes of FOP, FIP and FDP in FXSAVE's image; MXCSR and MXCSR_MASK follow.
const FXSAVE_POINTERS: u64 = 18;
/// Bytes of its image.
const FXSAVE_SIZE: u64 = 512;

/// What is not compared for one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Bits of RFLAGS.
    pub rflags: u64,
    /// Address ranges of memory.
    pub memory: Vec<(u64, u64)>,
    /// The case cannot be judged at all.
    pub everything: bool,
}

/// What is not compared for `case`; `strict` keeps undefined flags in the comparison.
pub fn mask(case: &Case, strict: bool) -> Mask {
    let mut mask = Mask::default();
    let variants = case.variants();
    // Code that patches itself may go on in the middle of what it was; the generator admits none
    // such, shrinking may make it.
    let filter = Filter::new(Features::v3());
    mask.everything = !variants[1..].iter().all(|v| filter.admits_everywhere(v));
    // Random bytes may do what generated blocks do not.
    mask.everything |= !strict && !flags_defined(case);
    for instruction in variants.iter().flat_map(Case::reachable) {
        mask.everything |= saves_more(&instruction, case);
        mask.everything |= excluded(instruction.code(), case.bits(), is_amd()).is_some();
        if !strict {
            mask.rflags |= rflags(undefined_flags(&instruction));
            mask.everything |= undefined_result(&instruction);
        }
        mask.everything |= saves_over_code(&instruction, case);
        for (from, to) in places(ignored_memory(&instruction, case)) {
            mask.memory.push((from, to));
            if to.wrapping_sub(from) == FXSAVE_POINTERS {
                mask.memory.push((to.wrapping_add(4), to.wrapping_add(8)));
            }
            if matches!(instruction.mnemonic(), Mnemonic::Xsave | Mnemonic::Xsave64) {
                mask.memory.push((from.wrapping_add(506), from.wrapping_add(514)));
            }
        }
    }
    mask
}

/// Flags that `i` leaves undefined, in iced's bits.
///
/// OF after RCL and RCR by more than one is undefined (SDM vol. 2, RCL) also where the count is a
/// multiple of the width and CF, of which iced-x86 says that nothing changes: this host leaves OF
/// one way or another.
pub(crate) fn undefined_flags(i: &Instruction) -> u32 {
    let rotates = matches!(i.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr);
    let once = i.op1_kind() == OpKind::Immediate8 && i.immediate8() & 31 == 1;
    i.rflags_undefined() | if rotates && !once { RflagsBits::OF } else { 0 }
}

/// iced's bits as RFLAGS bits.
fn rflags(bits: u32) -> u64 {
    const BITS: [(u32, u64); 6] = [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 1 << 2),
        (RflagsBits::AF, 1 << 4),
        (RflagsBits::ZF, 1 << 6),
        (RflagsBits::SF, 1 << 7),
        (RflagsBits::OF, 1 << 11),
    ];
    BITS.into_iter().filter(|(b, _)| bits & b != 0).fold(0, |m, (_, f)| m | f)
}

/// Results, not only flags, that are undefined.
///
/// - BSWAP of a 16-bit register (SDM vol. 2, BSWAP).
/// - SHLD and SHRD of 16 bits by more than 16 (SDM vol. 2, SHLD: "If a count is greater than the
///   operand size, the result is undefined"); by CL the count is not known here, so all of them.
fn undefined_result(i: &Instruction) -> bool {
    match i.mnemonic() {
        Mnemonic::Bswap => i.op0_register().size() == 2,
        Mnemonic::Shld | Mnemonic::Shrd if i.op1_register().size() == 2 => {
            i.op2_kind() == OpKind::Register || i.immediate8() & 31 > 16
        }
        _ => false,
    }
}

/// Images of the x87 unit hold the last instruction and data pointer and opcode. Processors differ
/// in when they record them (APM vol. 2, 11.4.4.3; CPUID 07H EBX bits 6 and 13), and an engine that
/// runs x87 instructions by thunks would show its own addresses.
///
/// So is MXCSR_MASK: AMD's processors have a bit more than the Intel processor that the guest sees.
/// And XSAVE's XSTATE_BV: which components a processor takes to be in their initial configuration
/// is its own affair (SDM vol. 1, 13.6).
///
/// The address is computed from the initial registers, so this holds for the first instruction
/// only.
fn ignored_memory(i: &Instruction, case: &Case) -> Option<(u64, u64)> {
    let size = i.memory_size().size();
    let (from, to) = match i.mnemonic() {
        Mnemonic::Fnstenv | Mnemonic::Fstenv | Mnemonic::Fnsave | Mnemonic::Fsave => {
            if size == 14 || size == 94 { (6, 14) } else { (12, 28) }
        }
        Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Xsave | Mnemonic::Xsave64 => (6, 24),
        _ => return None,
    };
    let start = operand_start(i, case)?;
    Some((start.wrapping_add(from), start.wrapping_add(to)))
}

/// Where the memory operand of `i` begins, if `i` is the first instruction.
fn operand_start(i: &Instruction, case: &Case) -> Option<u64> {
    let start = i.virtual_address(0, 0, |register, _, _| initial_value(register, case))?;
    // 4 GiB end the address space of 16-bit and 32-bit code, bases included.
    Some(if case.bits() == 64 { start } else { start & 0xffff_ffff })
}

/// Whether `i` saves an image over the code: what runs then depends on bytes that are not compared.
fn saves_over_code(i: &Instruction, case: &Case) -> bool {
    let len = match i.mnemonic() {
        Mnemonic::Xsave | Mnemonic::Xsave64 => XSAVE_SIZE,
        Mnemonic::Fxsave | Mnemonic::Fxsave64 => FXSAVE_SIZE,
        _ => return false,
    };
    // The last instruction may be completed by what fills the page.
    let code = case.rip()..case.rip() + case.code().len() as u64 + 16;
    let image = operand_start(i, case).map(|from| (from, from.wrapping_add(len)));
    places(image).any(|(from, to)| from < code.end && code.start < to)
}

/// Whether `i` is an XSAVE of components that the host may have and the guest has not.
fn saves_more(i: &Instruction, case: &Case) -> bool {
    let requested = case.gpr[0] & 0xffff_ffff | case.gpr[2] << 32;
    matches!(i.mnemonic(), Mnemonic::Xsave | Mnemonic::Xsave64) && requested & !7 != 0
}

/// The range, and where in the arena it lies if it begins in the arena's alias, since changes are
/// told of the arena.
pub(crate) fn places(range: Option<(u64, u64)>) -> impl Iterator<Item = (u64, u64)> {
    let there = range.filter(|(from, _)| from.wrapping_sub(layout::ALIAS) < layout::ARENA_SIZE);
    let moved = |at: u64| at - layout::ALIAS + layout::ARENA;
    range.into_iter().chain(there.map(|(from, to)| (moved(from), moved(to))))
}

fn initial_value(register: Register, case: &Case) -> Option<u64> {
    match register {
        Register::FS if case.bits() != 16 => Some(case.fs_base),
        Register::GS if case.bits() != 16 => Some(case.gs_base),
        _ if register.is_segment_register() => {
            Some(if case.bits() == 16 { layout::base_16(register) } else { 0 })
        }
        _ if register.is_gpr64() => case.gpr.get(register.number()).copied(),
        _ if register.is_gpr32() => case.gpr.get(register.number()).map(|v| v & 0xffff_ffff),
        _ if register.is_gpr16() => case.gpr.get(register.number()).map(|v| v & 0xffff),
        _ => None,
    }
}
