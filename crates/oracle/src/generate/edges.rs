//! What random values seldom come to: strings over their own instruction, and operands in several
//! parts some of which are not there.
//!
//! That an operand lies across 4 GiB is up to [`super::values::data_address`].

use crate::case::{Case, layout};
use iced_x86::{Instruction, Mnemonic as M};
use test_support::Rng;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
/// RFLAGS.DF.
const DF: u64 = 1 << 10;

/// Sometimes makes `i`, of `len` bytes at the beginning of `case`, meet one of them.
pub(super) fn aim(rng: &mut Rng, case: &mut Case, i: &Instruction, len: usize) {
    match i.mnemonic() {
        M::Stosb | M::Stosw | M::Stosd | M::Stosq | M::Movsb | M::Movsw | M::Movsd | M::Movsq
            if i.has_rep_prefix() && i.is_string_instruction() && rng.chance(12) =>
        {
            over_itself(rng, case, len as u64);
        }
        M::Pusha | M::Pushad | M::Popa | M::Popad if rng.chance(60) => {
            let edge = rng.pick(&[layout::STACK, layout::STACK + layout::STACK_SIZE]);
            case.gpr[RSP] = edge.wrapping_add(rng.below(80)).wrapping_sub(40);
        }
        M::Xsave | M::Xsave64 => {
            // Components that the guest has.
            (case.gpr[RAX], case.gpr[RDX]) = (rng.below(8), 0);
            if rng.chance(85) {
                round_to_64(case, i);
            }
        }
        _ => {}
    }
}

/// The string writes over its own bytes, upwards or downwards, and NOPs, INT3 or itself for the
/// most part.
fn over_itself(rng: &mut Rng, case: &mut Case, len: u64) {
    let (from, count) = (case.rip(), 1 + rng.below(24));
    case.gpr[RCX] = count;
    let size = rng.pick(&[1, 2, 4, 8]);
    if rng.chance(50) {
        case.rflags |= DF;
        case.gpr[RDI] = from + len + rng.below(16);
    } else {
        case.rflags &= !DF;
        case.gpr[RDI] = from.wrapping_sub(rng.below(16) * size);
    }
    case.gpr[RAX] =
        rng.pick(&[0x9090_9090_9090_9090, 0xcccc_cccc_cccc_cccc, 0xaaf3_aaf3_aaf3_aaf3]);
    // Filler, and now and then this very instruction: what comes out must be such that it soon
    // ends.
    case.gpr[RSI] = if rng.chance(50) { from + 64 } else { from.wrapping_sub(rng.below(24)) };
}

/// Makes the operand one that XSAVE takes, if a register alone tells its place.
fn round_to_64(case: &mut Case, i: &Instruction) {
    let base = i.memory_base();
    let alone = base.is_gpr() && i.memory_index() == iced_x86::Register::None;
    if let Some(value) = case.gpr.get_mut(base.number()).filter(|_| alone) {
        let at = value.wrapping_add(i.memory_displacement64());
        *value = value.wrapping_sub(at & 63);
    }
}
