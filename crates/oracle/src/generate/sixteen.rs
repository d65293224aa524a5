//! Operands of 16-bit code, whose data segments begin at [`layout::DATA_16_BASE`]: the arena's
//! first page is the last that 16 bits reach.

use super::values;
use crate::case::{Case, layout};
use iced_x86::{Instruction, OpCodeOperandKind as K, OpKind, Register};
use test_support::Rng;

const RBX: usize = 3;
const RSI: usize = 6;
const RDI: usize = 7;

/// The offset of linear address `target`, as 32 bits tell it.
pub(super) fn offset(target: u64) -> u64 {
    target.wrapping_sub(layout::DATA_16_BASE) & 0xffff_ffff
}

/// An offset of 16 bits: that of `target` in the arena's first page, or the same place in that
/// page; now and then at its end.
fn short_offset(rng: &mut Rng, target: u64) -> u16 {
    if rng.chance(12) {
        (rng.below(40) as u16).wrapping_neg()
    } else {
        0xf000 | target as u16 & 0xfff
    }
}

/// Implicit operands with 16-bit addresses; the rest as in 32-bit code.
pub(super) fn operand(rng: &mut Rng, i: &mut Instruction, number: u32, kind: K) -> Option<()> {
    // Both operands of a string instruction have one address size.
    let short = match number {
        0 => rng.chance(80),
        _ => {
            matches!(i.op0_kind(), OpKind::MemorySegSI | OpKind::MemoryESDI)
                || i.op0_kind() == OpKind::Register && rng.chance(80)
        }
    };
    let op_kind = match kind {
        K::seg_rSI if short => OpKind::MemorySegSI,
        K::es_rDI if short => OpKind::MemoryESDI,
        K::seg_rDI if short => OpKind::MemorySegDI,
        K::seg_rBX_al => {
            i.set_memory_base(Register::BX);
            i.set_memory_index(Register::AL);
            i.set_memory_index_scale(1);
            OpKind::Memory
        }
        K::mem_offs => {
            let target = values::data_address(rng);
            i.set_memory_displacement64(short_offset(rng, target).into());
            i.set_memory_displ_size(2);
            OpKind::Memory
        }
        _ => return None,
    };
    i.try_set_op_kind(number, op_kind).ok()
}

/// A ModRM operand with a 16-bit address (SDM vol. 2, table 2-1), whose base is set so that it hits
/// `target`. BP goes through SS, which is flat: nothing is there.
pub(super) fn address(rng: &mut Rng, case: &mut Case, i: &mut Instruction, target: u64) {
    let wanted = short_offset(rng, target);
    let (base, index) = rng.pick(&[
        (Register::BX, Register::None),
        (Register::SI, Register::None),
        (Register::DI, Register::None),
        (Register::BX, Register::SI),
        (Register::BX, Register::DI),
        (Register::BP, Register::SI),
        (Register::None, Register::None),
    ]);
    if base == Register::None {
        i.set_memory_displacement64(wanted.into());
        i.set_memory_displ_size(2);
        return;
    }
    let displacement = if rng.chance(50) { 0 } else { values::integer(rng) as u16 };
    i.set_memory_base(base);
    i.set_memory_index(index);
    i.set_memory_displacement64(displacement.into());
    i.set_memory_displ_size(if displacement == 0 { u32::from(base == Register::BP) } else { 2 });
    let value = if index == Register::None { 0 } else { case.gpr[index.number()] as u16 };
    let rest = wanted.wrapping_sub(displacement).wrapping_sub(value);
    let register = &mut case.gpr[base.number()];
    *register = *register & !0xffff | u64::from(rest);
}

/// Makes the registers that implicit operands of `i` go through offsets.
pub(super) fn strings(case: &mut Case, i: &Instruction) {
    let implicit = |n| {
        matches!(
            i.op_kind(n),
            OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemorySegDI
                | OpKind::MemorySegEDI
        )
    };
    let table = (0..i.op_count())
        .any(|n| i.op_kind(n) == OpKind::Memory && i.memory_index() == Register::AL);
    if (0..i.op_count()).any(implicit) || table {
        for r in [RBX, RSI, RDI] {
            case.gpr[r] = offset(case.gpr[r]);
        }
    }
}
