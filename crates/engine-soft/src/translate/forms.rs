//! Forms of instructions that the translator performs in place: bit tests, repeated string
//! instructions, reads of the state.

use crate::thunk::{MemAccess, MemOperand};
use iced_x86::{Code, Instruction, OpKind, Register};

/// The word that `i` names, if it is such an instruction.
pub(super) fn bit_operand_of(i: &Instruction) -> Option<MemOperand> {
    let (size, access) = match i.code() {
        Code::Bt_rm32_r32 => (4, MemAccess::Read),
        Code::Bt_rm64_r64 => (8, MemAccess::Read),
        Code::Bts_rm32_r32 | Code::Btr_rm32_r32 | Code::Btc_rm32_r32 => (4, MemAccess::ReadWrite),
        Code::Bts_rm64_r64 | Code::Btr_rm64_r64 | Code::Btc_rm64_r64 => (8, MemAccess::ReadWrite),
        _ => return None,
    };
    let memory = i.op0_kind() == OpKind::Memory;
    memory.then_some(MemOperand { size, access, alignment: 1, locked: i.has_lock_prefix() })
}

/// A repeated store or move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// log2 of an element's bytes.
    pub(super) scale: u8,
    pub(super) moves: bool,
}

/// `i` as such a one; `None`: it is none, or addresses memory in a way of its own.
pub(super) fn repeat_of(i: &Instruction) -> Option<Repeat> {
    let (scale, moves) = match i.code() {
        Code::Stosb_m8_AL => (0, false),
        Code::Stosw_m16_AX => (1, false),
        Code::Stosd_m32_EAX => (2, false),
        Code::Stosq_m64_RAX => (3, false),
        Code::Movsb_m8_m8 => (0, true),
        Code::Movsw_m16_m16 => (1, true),
        Code::Movsd_m32_m32 => (2, true),
        Code::Movsq_m64_m64 => (3, true),
        _ => return None,
    };
    let plain_source = i.op1_kind() == OpKind::MemorySegRSI
        && !matches!(i.memory_segment(), Register::FS | Register::GS);
    let plain = i.op0_kind() == OpKind::MemoryESRDI && (!moves || plain_source);
    (plain && i.has_rep_prefix() && !i.has_repne_prefix()).then_some(Repeat { scale, moves })
}

/// What MOV reads from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Cr2,
    Cr3,
    /// The selector of this segment register.
    Selector(u8),
}

/// What `i` reads, if it is a MOV from there to all of a general register.
pub(super) fn field_of(i: &Instruction) -> Option<Field> {
    match (i.code(), i.op1_register()) {
        _ if i.has_lock_prefix() => None,
        (Code::Mov_r64_cr, Register::CR2) => Some(Field::Cr2),
        (Code::Mov_r64_cr, Register::CR3) => Some(Field::Cr3),
        (Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg, sreg)
            if i.op0_kind() == OpKind::Register =>
        {
            Some(Field::Selector(sreg.number() as u8))
        }
        _ => None,
    }
}
