//! BT, BTS, BTR and BTC with a memory operand and a bit number in a register.
//!
//! The number may select any word of memory (SDM vol. 2, 3.1.1.9). It nearly always stays within
//! the word that the operand names; then the instruction is translated like others. Otherwise the
//! interpreter performs it.

use super::address::Access;
use super::emit::Emitter;
use crate::thunk::{MemAccess, MemOperand};
use iced_x86::{Code, Instruction, OpKind};

/// The word that `i` names, if it is such an instruction.
pub(super) fn operand_of(i: &Instruction) -> Option<MemOperand> {
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

impl Emitter<'_> {
    pub(super) fn bit(&mut self, n: usize, access: Access) -> Option<()> {
        let region = self.region;
        self.flags_aside(n)?;
        let number = self.value(region.insns[n].i.op1_register().number() as u8)?;
        let last = 8 * access.size as i32 - 1;
        if access.size == 8 {
            self.asm.cmp_imm(number, last);
        } else {
            self.asm.cmp32(number, last);
        }
        let elsewhere = self.asm.jcc(7);
        self.interpret_from(elsewhere, n);
        self.memory(n, access)
    }
}
