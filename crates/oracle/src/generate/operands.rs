//! Random operands for an encoding, and the registers that make its memory operand point somewhere
//! sensible.

use super::{jump_target, sixteen, values};
use crate::case::Case;
use iced_x86::{Code, Instruction, OpCodeOperandKind as K, OpKind, Register};
use test_support::Rng;

/// For whom operands are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A single instruction: any register, whose value is set so that a memory operand hits its
    /// target.
    Single,
    /// As `Single`, for 32-bit code.
    Compatible,
    /// As `Single`, for 16-bit code.
    Sixteen,
    /// One of a block: pointers are in [`POINTERS`] already, and results go elsewhere for the most
    /// part.
    Block,
}

impl Style {
    /// Of compatibility mode.
    fn compatible(self) -> bool {
        matches!(self, Self::Compatible | Self::Sixteen)
    }
}

/// Registers that hold pointers to data throughout a block.
pub(super) const POINTERS: [usize; 8] = [3, 5, 6, 7, 12, 13, 14, 15];
/// Registers that hold small indexes throughout a block.
const INDEXES: [usize; 2] = [8, 9];
/// Vector registers whose elements are small, so that gathers find something: dwords and qwords.
const DWORD_INDEXES: u64 = 14;
const QWORD_INDEXES: u64 = 15;

/// An instruction with all operands chosen; `case` gets the registers its memory operand needs.
pub(super) fn fill(
    rng: &mut Rng,
    case: &mut Case,
    code: Code,
    style: Style,
) -> Option<Instruction> {
    let op = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for number in 0..op.op_count() {
        operand(rng, case, &mut instruction, number, op.op_kind(number), style)?;
    }
    prefixes(rng, &mut instruction);
    if style.compatible() {
        (0..op.op_count()).for_each(|n| low_register(&mut instruction, n));
    }
    Some(instruction)
}

/// Replaces a register that only REX or a 64-bit VEX prefix names by one of the lower eight.
fn low_register(i: &mut Instruction, number: u32) {
    if i.op_kind(number) != OpKind::Register {
        return;
    }
    let register = i.op_register(number);
    let n = register.number() as u32 % 8;
    let low = match register {
        _ if register.is_xmm() => Register::XMM0 + n,
        _ if register.is_ymm() => Register::YMM0 + n,
        _ if register.is_gpr32() => Register::EAX + n,
        _ if register.is_gpr16() => Register::AX + n,
        _ if register.is_gpr8() => Register::AL + n,
        _ => return,
    };
    i.set_op_register(number, low);
}

fn prefixes(rng: &mut Rng, instruction: &mut Instruction) {
    let op = instruction.op_code();
    if op.can_use_rep_prefix() && op.can_use_repne_prefix() {
        match rng.below(3) {
            0 => instruction.set_has_repe_prefix(true),
            1 => instruction.set_has_repne_prefix(true),
            _ => {}
        }
    } else if op.can_use_rep_prefix() && rng.chance(60) {
        instruction.set_has_rep_prefix(true);
    }
    if op.can_use_lock_prefix() && instruction.op0_kind() == OpKind::Memory && rng.chance(25) {
        instruction.set_has_lock_prefix(true);
    }
    let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    if memory && instruction.segment_prefix() == Register::None && rng.chance(6) {
        instruction.set_segment_prefix(rng.pick(&[Register::FS, Register::GS]));
    }
}

fn gpr(rng: &mut Rng, style: Style) -> u64 {
    let register = rng.below(if style.compatible() { 8 } else { 16 });
    let precious = POINTERS.contains(&(register as usize)) || register == 4;
    if style == Style::Block && precious && !rng.chance(15) {
        return rng.pick(&[0, 1, 2, 8, 9, 10, 11]);
    }
    // RSP as an ordinary operand is legal but ends most blocks.
    if register == 4 && !rng.chance(30) { rng.below(4) } else { register }
}

fn general(rng: &mut Rng, bits: u32, style: Style) -> Register {
    let number = gpr(rng, style) as u32;
    match bits {
        8 if rng.chance(15) => Register::AH + rng.below(4) as u32,
        8 => BYTES[number as usize % 16],
        16 => Register::AX + number,
        32 => Register::EAX + number,
        _ => Register::RAX + number,
    }
}

const BYTES: [Register; 16] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::SPL,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R12L,
    Register::R13L,
    Register::R14L,
    Register::R15L,
];

fn operand(
    rng: &mut Rng,
    case: &mut Case,
    instruction: &mut Instruction,
    number: u32,
    kind: K,
    style: Style,
) -> Option<()> {
    if let Some(register) = register_or_memory(rng, kind, style) {
        return match register {
            Some(register) => set_register(instruction, number, register),
            None => memory(rng, case, instruction, number, kind, style),
        };
    }
    if let Some(register) = register(rng, kind, style) {
        return set_register(instruction, number, register);
    }
    other(rng, case, instruction, number, kind, style)
}

fn set_register(instruction: &mut Instruction, number: u32, register: Register) -> Option<()> {
    instruction.try_set_op_kind(number, OpKind::Register).ok()?;
    instruction.try_set_op_register(number, register).ok()
}

/// For operands that may be memory: the register chosen, or `None` inside for memory.
#[allow(clippy::option_option)]
fn register_or_memory(rng: &mut Rng, kind: K, style: Style) -> Option<Option<Register>> {
    let memory = rng.chance(50);
    let either = |register: Register| Some((!memory).then_some(register));
    match kind {
        K::r8_or_mem => either(general(rng, 8, style)),
        K::r16_or_mem => either(general(rng, 16, style)),
        K::r32_or_mem => either(general(rng, 32, style)),
        K::r64_or_mem => either(general(rng, 64, style)),
        K::mm_or_mem => either(Register::MM0 + rng.below(8) as u32),
        K::xmm_or_mem => either(Register::XMM0 + rng.below(16) as u32),
        K::ymm_or_mem => either(Register::YMM0 + rng.below(16) as u32),
        K::mem | K::mem_vsib32x | K::mem_vsib64x | K::mem_vsib32y | K::mem_vsib64y => Some(None),
        _ => None,
    }
}

fn register(rng: &mut Rng, kind: K, style: Style) -> Option<Register> {
    Some(match kind {
        K::r8_reg | K::r8_opcode => general(rng, 8, style),
        K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => general(rng, 16, style),
        K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
            general(rng, 32, style)
        }
        K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
            general(rng, 64, style)
        }
        K::seg_reg => Register::ES + rng.below(6) as u32,
        K::mm_reg | K::mm_rm => Register::MM0 + rng.below(8) as u32,
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => Register::XMM0 + rng.below(16) as u32,
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => Register::YMM0 + rng.below(16) as u32,
        K::cr_reg => rng.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4]),
        K::dr_reg => Register::DR0 + rng.below(8) as u32,
        K::es => Register::ES,
        K::cs => Register::CS,
        K::ss => Register::SS,
        K::ds => Register::DS,
        K::fs => Register::FS,
        K::gs => Register::GS,
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::dx => Register::DX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        K::st0 => Register::ST0,
        K::sti_opcode => Register::ST0 + rng.below(8) as u32,
        _ => return None,
    })
}

/// Immediates, branch targets and implicit memory operands.
fn other(
    rng: &mut Rng,
    case: &Case,
    i: &mut Instruction,
    number: u32,
    kind: K,
    style: Style,
) -> Option<()> {
    if style == Style::Sixteen && sixteen::operand(rng, i, number, kind).is_some() {
        return Some(());
    }
    if style.compatible() && compatible_operand(rng, case, i, number, kind).is_some() {
        return Some(());
    }
    let immediate = if rng.chance(50) { values::small(rng) } else { values::integer(rng) };
    if let Some(op_kind) = immediate_operand(i, number, kind, immediate) {
        return i.try_set_op_kind(number, op_kind).ok();
    }
    let op_kind = match kind {
        K::br16_1 | K::br16_2 | K::br64_1 | K::br64_4 => {
            let near = jump_target(rng, case.rip());
            // A short branch reaches only its neighbourhood.
            let short = case.rip().wrapping_add(values::small(rng) / 2);
            i.set_near_branch64(if kind == K::br64_4 { near } else { short });
            OpKind::NearBranch64
        }
        K::seg_rSI => pick_kind(rng, case, [OpKind::MemorySegRSI, OpKind::MemorySegESI]),
        K::es_rDI => matching_address_size(i, OpKind::MemoryESRDI, OpKind::MemoryESEDI, rng, case),
        K::seg_rDI => pick_kind(rng, case, [OpKind::MemorySegRDI, OpKind::MemorySegEDI]),
        K::seg_rBX_al => {
            i.set_memory_base(if rng.chance(90) { Register::RBX } else { Register::EBX });
            i.set_memory_index(Register::AL);
            i.set_memory_index_scale(1);
            OpKind::Memory
        }
        K::mem_offs => {
            i.set_memory_displacement64(values::data_address(rng));
            i.set_memory_displ_size(8);
            OpKind::Memory
        }
        _ => return None,
    };
    i.try_set_op_kind(number, op_kind).ok()
}

/// An immediate of `kind`, if that is one.
fn immediate_operand(i: &mut Instruction, number: u32, kind: K, immediate: u64) -> Option<OpKind> {
    Some(match kind {
        K::imm8 | K::imm8_const_1 if number > 0 && immediate_before(i, number) => {
            i.set_immediate8_2nd(immediate as u8);
            OpKind::Immediate8_2nd
        }
        K::imm8 => {
            i.set_immediate8(immediate as u8);
            OpKind::Immediate8
        }
        K::imm8_const_1 => {
            i.set_immediate8(1);
            OpKind::Immediate8
        }
        K::imm8sex16 => {
            i.set_immediate8to16(immediate as i8 as i16);
            OpKind::Immediate8to16
        }
        K::imm8sex32 => {
            i.set_immediate8to32(immediate as i8 as i32);
            OpKind::Immediate8to32
        }
        K::imm8sex64 => {
            i.set_immediate8to64(immediate as i8 as i64);
            OpKind::Immediate8to64
        }
        K::imm16 => {
            i.set_immediate16(immediate as u16);
            OpKind::Immediate16
        }
        K::imm32 => {
            i.set_immediate32(immediate as u32);
            OpKind::Immediate32
        }
        K::imm32sex64 => {
            i.set_immediate32to64(immediate as i32 as i64);
            OpKind::Immediate32to64
        }
        K::imm64 => {
            i.set_immediate64(immediate);
            OpKind::Immediate64
        }
        _ => return None,
    })
}

/// Branch targets and implicit operands as 32-bit code has them.
fn compatible_operand(
    rng: &mut Rng,
    case: &Case,
    i: &mut Instruction,
    number: u32,
    kind: K,
) -> Option<()> {
    let op_kind = match kind {
        K::br16_1 | K::br16_2 | K::br32_1 | K::br32_4 => {
            let near = jump_target(rng, case.rip());
            let short = case.rip().wrapping_add(values::small(rng) / 2);
            let to = if matches!(kind, K::br32_4 | K::br16_2) { near } else { short };
            if matches!(kind, K::br16_1 | K::br16_2) {
                i.set_near_branch16(to as u16);
                OpKind::NearBranch16
            } else {
                i.set_near_branch32(to as u32);
                OpKind::NearBranch32
            }
        }
        K::seg_rSI => OpKind::MemorySegESI,
        K::es_rDI => OpKind::MemoryESEDI,
        K::seg_rDI => OpKind::MemorySegEDI,
        K::seg_rBX_al => {
            i.set_memory_base(Register::EBX);
            i.set_memory_index(Register::AL);
            i.set_memory_index_scale(1);
            OpKind::Memory
        }
        K::mem_offs => {
            i.set_memory_displacement64(values::data_address(rng) & 0xffff_ffff);
            i.set_memory_displ_size(4);
            OpKind::Memory
        }
        _ => return None,
    };
    i.try_set_op_kind(number, op_kind).ok()
}

fn immediate_before(instruction: &Instruction, number: u32) -> bool {
    (0..number).any(|n| matches!(instruction.op_kind(n), OpKind::Immediate8 | OpKind::Immediate16))
}

/// The two implicit operands of a string instruction have one address size.
fn matching_address_size(
    i: &Instruction,
    wide: OpKind,
    narrow: OpKind,
    rng: &mut Rng,
    case: &Case,
) -> OpKind {
    let kinds = [i.op0_kind(), i.op1_kind()];
    if kinds.contains(&OpKind::MemorySegESI) {
        narrow
    } else if kinds.contains(&OpKind::MemorySegRSI) {
        wide
    } else {
        pick_kind(rng, case, [wide, narrow])
    }
}

/// The first of two address sizes nine times out of ten, half as often where a string ends at 4
/// GiB.
fn pick_kind(rng: &mut Rng, case: &Case, [wide, narrow]: [OpKind; 2]) -> OpKind {
    let end = [6, 7].iter().any(|&r| values::at_end_of_32_bits(case.gpr[r]));
    if rng.chance(if end { 45 } else { 90 }) { wide } else { narrow }
}

/// A memory operand with ModRM.
fn memory(
    rng: &mut Rng,
    case: &mut Case,
    i: &mut Instruction,
    number: u32,
    kind: K,
    style: Style,
) -> Option<()> {
    i.try_set_op_kind(number, OpKind::Memory).ok()?;
    let target = values::data_address(rng);
    if let Some(index) = vector_index(rng, kind) {
        i.set_memory_index(index);
        i.set_memory_index_scale(rng.pick(&[1, 2, 4, 8]));
        let compatible = style.compatible();
        let base = gpr(rng, if compatible { style } else { Style::Single }) as usize;
        i.set_memory_base(if compatible { Register::EAX } else { Register::RAX } + base as u32);
        if compatible {
            i.set_memory_index(
                if index.is_ymm() { Register::YMM0 } else { Register::XMM0 }
                    + index.number() as u32 % 8,
            );
        }
        case.gpr[base] = if style == Style::Sixteen { sixteen::offset(target) } else { target };
        return Some(());
    }
    if style == Style::Sixteen && rng.chance(80) {
        sixteen::address(rng, case, i, target);
        return Some(());
    }
    if style.compatible() {
        let sixteen = style == Style::Sixteen;
        let target = if sixteen { sixteen::offset(target) } else { target };
        compatible_address(rng, case, i, target as u32);
        return Some(());
    }
    match rng.below(100) {
        0..12 => {
            i.set_memory_base(Register::RIP);
            i.set_memory_displacement64(target);
            i.set_memory_displ_size(8);
        }
        12..17 => {
            i.set_memory_displacement64(target as i32 as i64 as u64);
            i.set_memory_displ_size(8);
        }
        _ if style == Style::Block => block_address(rng, i),
        _ => solved_address(rng, case, i, target),
    }
    Some(())
}

fn vector_index(rng: &mut Rng, kind: K) -> Option<Register> {
    let (first, small) = match kind {
        K::mem_vsib32x => (Register::XMM0, DWORD_INDEXES),
        K::mem_vsib32y => (Register::YMM0, DWORD_INDEXES),
        K::mem_vsib64x => (Register::XMM0, QWORD_INDEXES),
        K::mem_vsib64y => (Register::YMM0, QWORD_INDEXES),
        _ => return None,
    };
    let number = if rng.chance(80) { small } else { rng.below(16) };
    Some(first + number as u32)
}

/// Base, index and displacement such that the address is `target`: the base register is set
/// accordingly.
fn solved_address(rng: &mut Rng, case: &mut Case, i: &mut Instruction, target: u64) {
    // Where a 32-bit address ends, one with the 67 prefix more often than not.
    let narrow = rng.chance(if values::at_end_of_32_bits(target) { 65 } else { 8 });
    let name = |n: usize| (if narrow { Register::EAX } else { Register::RAX }) + n as u32;
    let base = gpr(rng, Style::Single) as usize;
    let mut offset = match rng.below(3) {
        0 => 0,
        1 => values::small(rng),
        _ => values::integer(rng) as i32 as i64 as u64,
    };
    i.set_memory_displacement64(if narrow { offset & 0xffff_ffff } else { offset });
    i.set_memory_displ_size(u32::from(offset != 0));
    i.set_memory_base(name(base));
    let index = rng.below(16) as usize;
    if rng.chance(40) && index != 4 && index != base {
        let scale = rng.pick(&[1u32, 2, 4, 8]);
        i.set_memory_index(name(index));
        i.set_memory_index_scale(scale);
        let value = if narrow { case.gpr[index] & 0xffff_ffff } else { case.gpr[index] };
        offset = offset.wrapping_add(value.wrapping_mul(u64::from(scale)));
    }
    case.gpr[base] = target.wrapping_sub(offset);
    if narrow && !rng.chance(20) {
        case.gpr[base] &= 0xffff_ffff;
    }
}

/// As [`solved_address`] in 32-bit code, sometimes without any register.
fn compatible_address(rng: &mut Rng, case: &mut Case, i: &mut Instruction, target: u32) {
    if rng.chance(15) {
        i.set_memory_displacement64(u64::from(target));
        i.set_memory_displ_size(4);
        return;
    }
    let base = gpr(rng, Style::Compatible) as usize;
    let mut offset = match rng.below(3) {
        0 => 0,
        1 => values::small(rng) as u32,
        _ => values::integer(rng) as u32,
    };
    i.set_memory_displacement64(u64::from(offset));
    i.set_memory_displ_size(u32::from(offset != 0));
    i.set_memory_base(Register::EAX + base as u32);
    let index = rng.below(8) as usize;
    if rng.chance(40) && index != 4 && index != base {
        let scale = rng.pick(&[1u32, 2, 4, 8]);
        i.set_memory_index(Register::EAX + index as u32);
        i.set_memory_index_scale(scale);
        offset = offset.wrapping_add((case.gpr[index] as u32).wrapping_mul(scale));
    }
    case.gpr[base] = u64::from(target.wrapping_sub(offset));
}

/// An address from the registers that a block keeps for it.
fn block_address(rng: &mut Rng, i: &mut Instruction) {
    let base = if rng.chance(12) { 4 } else { rng.pick(&POINTERS) };
    i.set_memory_base(Register::RAX + base as u32);
    if rng.chance(70) {
        let displacement = if rng.chance(60) { rng.below(16) * 8 } else { values::small(rng) };
        i.set_memory_displacement64(displacement);
        i.set_memory_displ_size(u32::from(displacement != 0));
    }
    if rng.chance(30) {
        i.set_memory_index(Register::RAX + rng.pick(&INDEXES) as u32);
        i.set_memory_index_scale(rng.pick(&[1, 2, 4, 8]));
    }
}
