//! Operands as ops hold them: register numbers, address parts, sizes.

use crate::core::Op;
use crate::core::{BASED, FLAT, LEGACY};
use crate::interp::system;
use crate::op::{REP, REPNE};
use crate::word::HIGH_BYTE;
use iced_x86::{Instruction, Register};
use std::cell::Cell;
use x86::state::{Mode, Seg, gpr};

/// An op with nothing in it.
pub(crate) fn blank() -> Op {
    Op {
        run: Cell::new(system::undefined),
        imm: 0,
        disp: 0,
        base: gpr::ZERO as u8,
        index: gpr::ZERO as u8,
        scale: 0,
        seg: Seg::Ds as u8,
        dst: 0,
        src: 0,
        len: 0,
        size: 0,
        offset: 0,
        address_size: 8,
        rep: 0,
    }
}

/// Number of a general register as ops hold it; AH to BH with [`HIGH_BYTE`].
pub(crate) fn general(register: Register) -> u8 {
    match register {
        Register::AH => HIGH_BYTE,
        Register::CH => HIGH_BYTE | 1,
        Register::DH => HIGH_BYTE | 2,
        Register::BH => HIGH_BYTE | 3,
        _ => register.full_register().number() as u8,
    }
}

/// Number of a segment register.
pub(crate) fn segment(register: Register) -> u8 {
    match register {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::FS => 4,
        Register::GS => 5,
        _ => 3,
    }
}

/// Size in bytes of the addresses `instruction` forms.
fn address_size(instruction: &Instruction) -> u8 {
    let base = instruction.memory_base();
    let index = instruction.memory_index();
    match base {
        Register::RIP => 8,
        Register::EIP => 4,
        Register::None if index == Register::None || index.is_vector_register() => {
            instruction.memory_displ_size().clamp(2, 8) as u8
        }
        Register::None => index.size() as u8,
        _ => base.size() as u8,
    }
}

/// The segment of the memory operand. 64-bit mode ignores overrides by ES, CS, SS and DS, so there
/// the base register alone makes an operand a stack reference.
fn operand_segment(instruction: &Instruction, mode: Mode) -> u8 {
    let named = instruction.memory_segment();
    if mode != Mode::Long64 || matches!(named, Register::FS | Register::GS) {
        return segment(named);
    }
    match instruction.memory_base() {
        Register::RSP | Register::ESP | Register::RBP | Register::EBP => Seg::Ss as u8,
        _ => Seg::Ds as u8,
    }
}

/// Puts the memory operand into `op`. Returns `false` if its displacement from the block's start
/// does not fit 32 bits.
pub(crate) fn memory(op: &mut Op, instruction: &Instruction, block_ip: u64, mode: Mode) -> bool {
    op.seg = operand_segment(instruction, mode);
    op.address_size = address_size(instruction);
    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    let index = instruction.memory_index();
    if index.is_gpr() {
        op.index = general(index);
    }
    let displacement = instruction.memory_displacement64();
    if instruction.is_ip_rel_memory_operand() {
        op.base = gpr::BLOCK_IP as u8;
        let relative = displacement.wrapping_sub(block_ip) as i64;
        op.disp = relative as i32;
        return op.address_size != 8 || i64::from(op.disp) == relative;
    }
    let base = instruction.memory_base();
    if base != Register::None {
        op.base = general(base);
    }
    op.disp = displacement as i32;
    op.address_size != 8 || i64::from(op.disp) as u64 == displacement
}

/// Which form of address computation `op` needs.
pub(crate) fn form(op: &Op, mode: Mode) -> u8 {
    if mode != Mode::Long64 || op.address_size != 8 {
        LEGACY
    } else if op.seg >= Seg::Fs as u8 {
        BASED
    } else {
        FLAT
    }
}

/// The REP prefix that string instructions see.
pub(crate) fn rep(instruction: &Instruction) -> u8 {
    if instruction.has_repne_prefix() {
        REPNE
    } else if instruction.has_rep_prefix() {
        REP
    } else {
        0
    }
}
