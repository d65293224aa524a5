//! BT, BTS, BTR, BTC (SDM vol. 2). With a register bit offset and a memory operand the offset moves
//! the address.

use crate::alu::CF;
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::op::{Fallible, Step, step};
use crate::word::Word;
use x86::bus::AccessKind;

/// What is done to the selected bit.
pub(crate) const TEST: u8 = 0;
/// Set it.
pub(crate) const SET: u8 = 1;
/// Clear it.
pub(crate) const RESET: u8 = 2;
/// Invert it.
pub(crate) const COMPLEMENT: u8 = 3;

#[inline(always)]
fn apply<W: Word, const KIND: u8>(value: W, bit: u32, f: &mut u16) -> W {
    let (old, mask) = (value.zext(), 1u64 << bit);
    *f = *f & !CF | if old & mask != 0 { CF } else { 0 };
    W::cut(match KIND {
        SET => old | mask,
        RESET => old & !mask,
        COMPLEMENT => old ^ mask,
        _ => old,
    })
}

fn on_register<W: Word, const KIND: u8>(core: &mut Core, op: &Op, offset: u64) -> Step {
    let value = core.reg::<W>(op.dst);
    let bit = offset as u32 & (W::BITS - 1);
    let new = apply::<W, KIND>(value, bit, &mut core.state.flags.arith);
    if KIND != TEST {
        core.set_reg::<W>(op.dst, new);
    }
    Step::Next
}

/// `op dst, src`.
pub(crate) fn rr<W: Word, const KIND: u8>(core: &mut Core, op: &Op) -> Step {
    let offset = core.reg::<W>(op.src).zext();
    on_register::<W, KIND>(core, op, offset)
}

/// `op dst, imm8`.
pub(crate) fn ri<W: Word, const KIND: u8>(core: &mut Core, op: &Op) -> Step {
    on_register::<W, KIND>(core, op, op.imm)
}

/// The effective address displaced by the signed bit offset in register `src`.
fn displaced<W: Word>(core: &mut Core, op: &Op, kind: AccessKind) -> Fallible<u64> {
    let offset = core.reg::<W>(op.src).sext() as i64;
    let words = offset >> W::BITS.trailing_zeros();
    let address = core.offset(op).wrapping_add((words * i64::from(W::SIZE)) as u64);
    let address = crate::core::truncate(address, op.address_size);
    core.segmented(op.seg, address, u64::from(W::SIZE), kind)
}

fn on_memory<W: Word, const KIND: u8>(
    core: &mut Core,
    la: u64,
    offset: u64,
    locked: bool,
) -> Fallible {
    let bit = offset as u32 & (W::BITS - 1);
    if KIND == TEST {
        let value = core.load::<W>(la)?;
        apply::<W, KIND>(value, bit, &mut core.state.flags.arith);
        return Ok(());
    }
    let change = |value: W, f: &mut u16| apply::<W, KIND>(value, bit, f);
    if locked {
        return crate::locked::modify::<W>(core, la, change);
    }
    core.modify::<W>(la, |state, value| change(value, &mut state.flags.arith))
}

/// `op [mem], src`; `imm` is 1 with a LOCK prefix.
pub(crate) fn mr<W: Word, const KIND: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let kind = if KIND == TEST { AccessKind::Read } else { AccessKind::Write };
        let la = displaced::<W>(core, op, kind)?;
        let offset = core.reg::<W>(op.src).zext();
        on_memory::<W, KIND>(core, la, offset, op.imm != 0)
    };
    step(body(core))
}

/// `op [mem], imm8`. Thunks perform the LOCKed forms.
pub(crate) fn mi<W: Word, const KIND: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let kind = if KIND == TEST { AccessKind::Read } else { AccessKind::Write };
        let la = core.linear::<LEGACY>(op, u64::from(W::SIZE), kind)?;
        on_memory::<W, KIND>(core, la, op.imm, false)
    };
    step(body(core))
}
