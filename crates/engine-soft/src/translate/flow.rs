//! The class of an instruction for the translator, and where status flags are needed.

use super::forms::{self, Field, Repeat};
use crate::thunk::{Classification, FpuClass, HostFeatures, MemOperand, Unthunkable, classify};
use iced_x86::{
    Code, ConditionCode, Decoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpCodeOperandKind, OpKind, Register, RflagsBits,
};
use std::cell::RefCell;

/// The six status flags in iced's numbering.
pub(super) const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// How an instruction is translated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// Copied: registers only.
    Plain,
    /// Rewritten: one memory operand.
    Memory(MemOperand),
    /// BT and its kin with a bit number in a register: as [`Class::Memory`] where that bit is in
    /// the operand named.
    Bit(MemOperand),
    /// LEA.
    Lea,
    /// Nothing to do.
    Nop,
    Pause,
    PushRegister,
    PushImmediate,
    PushMemory,
    PushFlags,
    PopRegister,
    Leave,
    Jump,
    Jcc(u8),
    Call,
    Return(u16),
    JumpRegister,
    JumpMemory,
    CallRegister,
    CallMemory,
    Syscall,
    /// To 64-bit mode. At level 0 only.
    Sysret,
    /// At level 0 only, as the following.
    Swapgs,
    Cli,
    Sti,
    /// At any level, as the following.
    Rdtsc,
    Rdtscp,
    Cld,
    /// MOV of a control register or selector to a general register.
    ReadState(Field),
    /// REP STOS or REP MOVS.
    Repeat(Repeat),
    /// Left to the interpreter.
    Other,
}

impl Class {
    /// Whether it is an indirect call.
    pub(super) fn calls(self) -> bool {
        matches!(self, Self::CallRegister | Self::CallMemory)
    }

    /// Whether it ends a block.
    pub(super) fn leaves(self) -> bool {
        matches!(
            self,
            Self::Jump
                | Self::Jcc(_)
                | Self::Call
                | Self::Return(_)
                | Self::JumpRegister
                | Self::JumpMemory
                | Self::CallRegister
                | Self::CallMemory
                | Self::Syscall
                | Self::Sysret
                | Self::Other
        )
    }
}

/// What an instruction does to registers, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// General registers read or written other than as part of an address (LEA's address included).
    pub(super) registers: u16,
    /// Of those, whose old value matters.
    pub(super) needed: u16,
    pub(super) gpr_written: u16,
    /// Of `registers`, those that the encoding does not name freely.
    pub(super) implicit: u16,
    /// XMM, YMM, or MXCSR.
    pub(super) vector: bool,
    pub(super) high_byte: bool,
    pub(super) flags: FlagUse,
}

/// Which vector units the guest's control registers enable.
#[derive(Clone, Copy)]
pub(super) struct Units {
    pub(super) sse: bool,
    pub(super) avx: bool,
}

impl Units {
    pub(super) const ALL: Self = Self { sse: true, avx: true };
}

/// Judges `i`, of 64-bit code.
pub(super) fn class_of(i: &Instruction, units: Units) -> Class {
    match i.flow_control() {
        FlowControl::Next => by_mnemonic(i)
            .or_else(|| by_operands(i))
            .or_else(|| by_code(i))
            .unwrap_or_else(|| copied(i, units)),
        _ => branch(i),
    }
}

fn branch(i: &Instruction) -> Class {
    match i.flow_control() {
        _ if i.code() == Code::Syscall => Class::Syscall,
        _ if i.code() == Code::Sysretq => Class::Sysret,
        FlowControl::UnconditionalBranch if i.is_jmp_short_or_near() => Class::Jump,
        FlowControl::ConditionalBranch
            if i.is_jcc_short_or_near() && i.condition_code() != ConditionCode::None =>
        {
            Class::Jcc(i.condition_code() as u8 - 1)
        }
        FlowControl::Call if i.code() == Code::Call_rel32_64 => Class::Call,
        FlowControl::Return if i.code() == Code::Retnq => Class::Return(0),
        FlowControl::Return if i.code() == Code::Retnq_imm16 => Class::Return(i.immediate16()),
        FlowControl::IndirectBranch if i.code() == Code::Jmp_rm64 => {
            indirect(i, Class::JumpRegister, Class::JumpMemory)
        }
        FlowControl::IndirectCall if i.code() == Code::Call_rm64 => {
            indirect(i, Class::CallRegister, Class::CallMemory)
        }
        _ => Class::Other,
    }
}

fn by_mnemonic(i: &Instruction) -> Option<Class> {
    Some(match i.mnemonic() {
        Mnemonic::Lea => Class::Lea,
        Mnemonic::Nop
        | Mnemonic::Endbr64
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetchw => Class::Nop,
        Mnemonic::Pause => Class::Pause,
        Mnemonic::Leave if i.code() == Code::Leaveq => Class::Leave,
        Mnemonic::Swapgs => Class::Swapgs,
        Mnemonic::Cli => Class::Cli,
        Mnemonic::Sti => Class::Sti,
        Mnemonic::Rdtsc => Class::Rdtsc,
        Mnemonic::Rdtscp => Class::Rdtscp,
        Mnemonic::Cld => Class::Cld,
        Mnemonic::Rdrand | Mnemonic::Rdseed => Class::Other,
        _ => return None,
    })
}

/// Instructions with code of their own for some forms of their operands.
fn by_operands(i: &Instruction) -> Option<Class> {
    if let Some(repeat) = forms::repeat_of(i) {
        return Some(Class::Repeat(repeat));
    }
    if let Some(operand) = forms::bit_operand_of(i).filter(|_| ordinary_address(i)) {
        return Some(Class::Bit(operand));
    }
    forms::field_of(i).map(Class::ReadState)
}

fn by_code(i: &Instruction) -> Option<Class> {
    Some(match i.code() {
        Code::Push_r64 => Class::PushRegister,
        Code::Pushq_imm8 | Code::Pushq_imm32 => Class::PushImmediate,
        Code::Push_rm64 if i.op0_kind() == OpKind::Memory && ordinary_address(i) => {
            Class::PushMemory
        }
        Code::Pushfq => Class::PushFlags,
        Code::Pop_r64 => Class::PopRegister,
        Code::Mov_AL_moffs8
        | Code::Mov_AX_moffs16
        | Code::Mov_EAX_moffs32
        | Code::Mov_RAX_moffs64
        | Code::Mov_moffs8_AL
        | Code::Mov_moffs16_AX
        | Code::Mov_moffs32_EAX
        | Code::Mov_moffs64_RAX => Class::Other,
        _ => return None,
    })
}

/// Whether `i` is copied as it is, with or without a memory operand.
fn copied(i: &Instruction, units: Units) -> Class {
    match classified(i) {
        Ok(c) => {
            let enabled = match c.fpu {
                FpuClass::None => true,
                FpuClass::Sse => units.sse,
                FpuClass::Avx => units.avx,
                _ => false,
            };
            match c.mem {
                _ if c.mmx || !enabled => Class::Other,
                None => Class::Plain,
                Some(operand) if ordinary_address(i) => Class::Memory(operand),
                Some(_) => Class::Other,
            }
        }
        Err(Unthunkable::VectorZero) if units.avx => Class::Plain,
        Err(_) => Class::Other,
    }
}

/// [`classify`], remembered: but for LOCK it is a matter of the opcode, and of whether there is a
/// memory operand.
fn classified(i: &Instruction) -> Result<Classification, Unthunkable> {
    type Known = Option<Result<Classification, Unthunkable>>;
    thread_local! {
        static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
    }
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    let slot = i.code() as usize * 2 + usize::from(memory);
    KNOWN.with_borrow_mut(|known| {
        if known.len() <= slot {
            known.resize(2 * Code::values().len(), None);
        }
        let mut found = *known[slot].get_or_insert_with(|| classify(i, HostFeatures::probe()));
        if let Ok(Classification { mem: Some(operand), .. }) = &mut found {
            operand.locked = i.has_lock_prefix() || i.mnemonic() == Mnemonic::Xchg;
        }
        found
    })
}

fn indirect(i: &Instruction, register: Class, memory: Class) -> Class {
    if i.op0_kind() == OpKind::Register {
        return if i.op0_register() == Register::RSP { Class::Other } else { register };
    }
    if ordinary_address(i) { memory } else { Class::Other }
}

/// 64-bit addresses only: what is cut to 32 bits is rare and the interpreter's.
fn ordinary_address(i: &Instruction) -> bool {
    let (base, index) = (i.memory_base(), i.memory_index());
    let wide = |r: Register| r == Register::None || r == Register::RIP || r.is_gpr64();
    wide(base)
        && wide(index)
        && (base != Register::None || index != Register::None || i.memory_displ_size() == 8)
}

/// What `i` does with registers and flags.
pub(super) fn usage(factory: &mut InstructionInfoFactory, i: &Instruction, class: Class) -> Usage {
    let (mut registers, mut needed, mut gpr_written) = (0u16, 0u16, 0u16);
    let mut vector = matches!(i.mnemonic(), Mnemonic::Vzeroupper | Mnemonic::Vzeroall);
    // LEA's address is its operand; else the address is judged elsewhere, and must not hide
    // what is also used as a register.
    let mut bare = *i;
    if !matches!(class, Class::Lea) {
        bare.set_memory_base(Register::None);
        bare.set_memory_index(Register::None);
    }
    for used in factory.info(&bare).used_registers() {
        let (register, access) = (used.register(), used.access());
        if access == OpAccess::None || access == OpAccess::NoMemAccess {
            continue;
        }
        vector |= register.is_vector_register();
        if !register.is_gpr() {
            continue;
        }
        let bit = 1u16 << register.full_register().number();
        registers |= bit;
        // What is written whole replaces what was there; parts of a register do not.
        if access != OpAccess::Write || register.size() < 4 {
            needed |= bit;
        }
        if !matches!(access, OpAccess::Read | OpAccess::CondRead) {
            gpr_written |= bit;
        }
    }
    let address = if matches!(class, Class::Lea) { address_registers(i) } else { 0 };
    let (explicit, fixed) = named_registers(i);
    let implicit = implicit_registers(i, registers & !explicit & !address | fixed) & registers;
    let high_byte = (0..i.op_count()).any(|n| {
        i.op_kind(n) == OpKind::Register
            && matches!(i.op_register(n), Register::AH | Register::CH | Register::DH | Register::BH)
    });
    // Conversions from memory to general registers name no vector register but use MXCSR.
    if matches!(class, Class::Plain | Class::Memory(_))
        && let Ok(c) = classified(i)
    {
        vector |= matches!(c.fpu, FpuClass::Sse | FpuClass::Avx);
    }
    Usage { registers, needed, gpr_written, implicit, vector, high_byte, flags: flag_use(i) }
}

fn bit(register: Register) -> u16 {
    if register.is_gpr() { 1 << register.full_register().number() } else { 0 }
}

fn address_registers(i: &Instruction) -> u16 {
    bit(i.memory_base()) | bit(i.memory_index())
}

/// Where an operand stands in the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// ModRM.reg.
    Reg,
    /// ModRM.rm, a register or memory.
    Rm,
    /// VEX.vvvv.
    Vvvv,
    /// The opcode's low bits.
    Low,
    /// Nowhere, or in the immediate.
    Fixed,
    /// None of what is copied.
    Unknown,
}

/// Where an operand of `kind` stands (SDM vol. 2, 3.1.1.3).
pub(super) fn spot(kind: OpCodeOperandKind) -> Spot {
    use OpCodeOperandKind as K;
    match kind {
        K::r8_reg | K::r16_reg | K::r32_reg | K::r64_reg | K::mm_reg | K::xmm_reg | K::ymm_reg => {
            Spot::Reg
        }
        K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::mem
        | K::r16_rm
        | K::r32_rm
        | K::r64_rm
        | K::mm_rm
        | K::xmm_rm
        | K::ymm_rm => Spot::Rm,
        K::r32_vvvv | K::r64_vvvv | K::xmm_vvvv | K::ymm_vvvv => Spot::Vvvv,
        K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode => Spot::Low,
        K::al
        | K::cl
        | K::ax
        | K::dx
        | K::eax
        | K::rax
        | K::imm8
        | K::imm8_const_1
        | K::imm8sex16
        | K::imm8sex32
        | K::imm8sex64
        | K::imm16
        | K::imm32
        | K::imm32sex64
        | K::imm64
        | K::xmm_is4
        | K::ymm_is4
        | K::imm4_m2z => Spot::Fixed,
        _ => Spot::Unknown,
    }
}

/// Registers that the encoding names and could name otherwise, and those that it names for good.
fn named_registers(i: &Instruction) -> (u16, u16) {
    let mut named = (0, 0);
    for n in (0..i.op_count()).filter(|n| i.op_kind(*n) == OpKind::Register) {
        let register = bit(i.op_register(n));
        match spot(i.op_code().op_kind(n)) {
            Spot::Fixed | Spot::Unknown => named.1 |= register,
            _ => named.0 |= register,
        }
    }
    named
}

/// Registers that `i` uses by its nature: `others` are those found used though not named.
fn implicit_registers(i: &Instruction, others: u16) -> u16 {
    use Mnemonic::{Cmpxchg, Cmpxchg8b, Cmpxchg16b, Div, Idiv, Imul, Mul, Mulx};
    const RAX_RCX_RDX: u16 = 0b111;
    match i.mnemonic() {
        Cmpxchg8b | Cmpxchg16b => others | 0b1111,
        Cmpxchg | Mul | Div | Idiv | Mulx => others | RAX_RCX_RDX,
        Imul if i.op_count() == 1 => others | RAX_RCX_RDX,
        _ if others != 0 => others | RAX_RCX_RDX,
        _ => 0,
    }
}

/// What `i` does with status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagUse {
    /// Reads some.
    Reads,
    /// Replaces all six, whatever the operands.
    Replaces,
    /// Replaces some, or all of them sometimes: those before it matter if those after it do.
    Changes,
    /// Leaves them.
    Leaves,
}

pub(super) fn flag_use(i: &Instruction) -> FlagUse {
    use Mnemonic::{And, Or, Test, Xor};
    // SYSCALL saves them in R11; the frame of SYSRET's fault shows them.
    let gate = matches!(i.code(), Code::Syscall | Code::Sysretq);
    if gate || i.rflags_read() & STATUS != 0 {
        return FlagUse::Reads;
    }
    let defined = (i.rflags_written() | i.rflags_cleared() | i.rflags_set()) & STATUS;
    match i.rflags_modified() & STATUS {
        0 => FlagUse::Leaves,
        STATUS if may_keep_flags(i) => FlagUse::Changes,
        STATUS if defined == STATUS || matches!(i.mnemonic(), And | Or | Xor | Test) => {
            FlagUse::Replaces
        }
        _ => FlagUse::Changes,
    }
}

/// Whether `i`, though it has to do with flags, leaves them all sometimes: when it shifts by
/// nothing, or repeats not once.
pub(super) fn may_keep_flags(i: &Instruction) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
    repeats || matches!(i.mnemonic(), Rcl | Rcr | Rol | Ror | Sal | Sar | Shl | Shld | Shr | Shrd)
}

/// How many of `bytes`, code, it takes to see that all status flags are replaced before anything
/// can read them; `None`: not to be seen.
pub(super) fn replaced_within(bytes: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(64, bytes, 0);
    for _ in 0..12 {
        if !decoder.can_decode() {
            return None;
        }
        let i = decoder.decode();
        if i.is_invalid() {
            return None;
        }
        match flag_use(&i) {
            FlagUse::Reads => return None,
            FlagUse::Replaces => return Some(decoder.position()),
            FlagUse::Changes | FlagUse::Leaves => {}
        }
        if i.flow_control() != FlowControl::Next || !stays(&i) {
            return None;
        }
    }
    None
}

/// Whether `i`, which does not branch, is surely not left to the interpreter.
fn stays(i: &Instruction) -> bool {
    !matches!(class_of(i, Units::ALL), Class::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_leave_flags_neither_needs_nor_ends_them() {
        let flags = |code: &[u8]| flag_use(&Decoder::new(64, code, 0).decode());
        assert_eq!(flags(&[0x01, 0xc8]), FlagUse::Replaces, "add eax, ecx");
        assert_eq!(flags(&[0x21, 0xc8]), FlagUse::Replaces, "and eax, ecx");
        assert_eq!(flags(&[0xff, 0xc0]), FlagUse::Changes, "inc eax");
        assert_eq!(flags(&[0xd3, 0xe0]), FlagUse::Changes, "shl eax, cl");
        assert_eq!(flags(&[0xc1, 0xe8, 0x20]), FlagUse::Leaves, "shr eax, 32, which is by 0");
        assert_eq!(flags(&[0xd3, 0xd0]), FlagUse::Reads, "rcl eax, cl");
        assert_ne!(flags(&[0xf3, 0xa6]), FlagUse::Replaces, "repe cmpsb");
        assert_eq!(flags(&[0xa6]), FlagUse::Replaces, "cmpsb");
        assert_eq!(flags(&[0x89, 0xc8]), FlagUse::Leaves, "mov eax, ecx");
    }
}
