//! The operands that a copied instruction is given.

use iced_x86::Register;

/// New operands for a copied instruction.
#[derive(Debug)]
pub(in super::super) struct Operands {
    /// Host register for each general register of the guest that the instruction names explicitly.
    pub(in super::super) registers: [u8; 16],
    /// The new memory operand, if the instruction has one.
    pub(in super::super) memory: Option<Memory>,
}

/// [base + index << scale + displacement], host register numbers.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Memory {
    pub(in super::super) base: Option<u8>,
    pub(in super::super) index: Option<u8>,
    pub(in super::super) scale: u8,
    pub(in super::super) displacement: i32,
}

pub(super) fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}
