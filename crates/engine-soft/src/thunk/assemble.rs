//! From a guest instruction to the code of its thunk.
//!
//! Registers keep their numbers. Two registers that the instruction does not use carry the guest
//! state's address and the memory pointer; RSP as an operand is renamed, since the host's stack
//! must stand. The order is: unit state, vectors, flags, general registers, *the instruction*,
//! general registers, flags, vectors, unit state: up to the instruction nothing of the guest state
//! is changed and RSP stands at the return address, on which the fault guard relies.

use std::mem::offset_of;

use iced_x86::{
    CodeSize, Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use x86::state::{CpuState, Flags, X87};

use super::classify::{STATUS, is_shift};
use super::emit::{Emitter, Mem, reg};
use super::enter::{Enter, enter_full, enter_light, enter_mmx};
use super::types::{Classification, FpuClass, Unthunkable};

/// RBX, RBP, R12 to R15.
const CALLEE_SAVED: u16 = 1 << 3 | 1 << 5 | 0xf000;
/// The host's MXCSR outside thunks: all exceptions masked, round to nearest.
const HOST_MXCSR: u32 = 0x1f80;

// FXRSTOR reads 512 bytes of the guest's state from `x87` on: it must lie as FXSAVE's image, with
// enough behind it.
const _: () = {
    assert!(offset_of!(CpuState, x87).is_multiple_of(16) && align_of::<CpuState>() >= 32);
    assert!(offset_of!(CpuState, x87) + 512 <= size_of::<CpuState>());
    assert!(offset_of!(X87, fsw) == 2 && offset_of!(X87, ftw) == 4 && offset_of!(X87, mxcsr) == 24);
    assert!(offset_of!(X87, st) == 32 && offset_of!(CpuState, ymm).is_multiple_of(32));
};

const EMMS: [u8; 2] = [0x0f, 0x77];

/// A thunk's position-independent code.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) code: Vec<u8>,
    callee_saved: bool,
    mmx: bool,
}

impl Assembled {
    /// The entry that saves what this code destroys.
    pub(super) fn enter(&self) -> Enter {
        match (self.mmx, self.callee_saved) {
            (true, _) => enter_mmx,
            (false, true) => enter_full,
            (false, false) => enter_light,
        }
    }
}

/// The instruction without its address and prefixes that do not matter: equal for all that share a
/// thunk.
pub(super) fn normalize(instruction: &Instruction) -> Instruction {
    let mut key = *instruction;
    key.set_code_size(CodeSize::Code64);
    key.set_ip(0);
    key.set_len(0);
    key.set_segment_prefix(Register::None);
    key.set_has_xacquire_prefix(false);
    key.set_has_xrelease_prefix(false);
    if !key.is_string_instruction() {
        key.set_has_rep_prefix(false);
        key.set_has_repne_prefix(false);
    }
    if (0..key.op_count()).any(|op| key.op_kind(op) == OpKind::Memory) && !key.is_vsib() {
        key.set_memory_base(Register::None);
        key.set_memory_index(Register::None);
        key.set_memory_index_scale(1);
        key.set_memory_displacement64(0);
        key.set_memory_displ_size(0);
    }
    key
}

/// What the instruction uses, as bit masks by register number.
#[derive(Debug, Default)]
struct Usage {
    gpr: u16,
    gpr_written: u16,
    vector: u16,
    vector_written: u16,
    mmx: u16,
    mmx_written: u16,
    high_byte: bool,
}

fn usage(instruction: &Instruction) -> Usage {
    let mut usage = Usage::default();
    let mut factory = InstructionInfoFactory::new();
    for used in factory.info(instruction).used_registers() {
        let (register, access) = (used.register(), used.access());
        if access == OpAccess::None || access == OpAccess::NoMemAccess {
            continue;
        }
        let written = !matches!(access, OpAccess::Read | OpAccess::CondRead);
        let bit = 1u16.checked_shl(register.full_register().number() as u32).unwrap_or(0);
        if register.is_gpr() {
            usage.gpr |= bit;
            usage.gpr_written |= if written { bit } else { 0 };
        } else if register.is_vector_register() {
            usage.vector |= bit;
            usage.vector_written |= if written { bit } else { 0 };
        } else if register.is_mm() {
            usage.mmx |= bit;
            usage.mmx_written |= if written { bit } else { 0 };
        }
    }
    usage.high_byte = (0..instruction.op_count()).any(|op| {
        instruction.op_kind(op) == OpKind::Register
            && matches!(
                instruction.op_register(op),
                Register::AH | Register::CH | Register::DH | Register::BH
            )
    });
    usage
}

/// The host registers that carry what is not the guest's.
#[derive(Clone, Copy, Debug)]
struct Roles {
    state: u8,
    mem: Option<u8>,
    rsp: Option<u8>,
}

fn pick(candidates: &[u8], taken: &mut u16) -> Result<u8, Unthunkable> {
    let found = candidates
        .iter()
        .copied()
        .find(|r| *taken & 1 << r == 0)
        .ok_or(Unthunkable::Unsupported)?;
    *taken |= 1 << found;
    Ok(found)
}

/// With a high-byte register there can be no REX prefix, so the instruction's own pointers must be
/// legacy registers.
fn assign(usage: &Usage, has_mem: bool) -> Result<Roles, Unthunkable> {
    let mut taken = usage.gpr | 1 << reg::RSP | 1 << reg::RAX;
    if has_mem {
        taken |= 1 << reg::RSI;
    }
    let state = pick(&[reg::RDI, 8, 9, 10, 11], &mut taken)?;
    if has_mem && usage.gpr & 1 << reg::RSI == 0 {
        taken &= !(1 << reg::RSI);
    }
    let operands: &[u8] = if usage.high_byte {
        &[reg::RSI, reg::RDX, reg::RCX, 3, 5]
    } else {
        &[reg::RSI, 8, 9, 10, 11]
    };
    let mem = if has_mem { Some(pick(operands, &mut taken)?) } else { None };
    let rsp = if usage.gpr & 1 << reg::RSP != 0 { Some(pick(operands, &mut taken)?) } else { None };
    Ok(Roles { state, mem, rsp })
}

fn sized(number: u8, size: usize) -> Register {
    let n = u32::from(number);
    match size {
        1 if number < 4 => Register::AL + n,
        1 if number < 8 => Register::SPL + (n - 4),
        1 => Register::R8L + (n - 8),
        2 => Register::AX + n,
        4 => Register::EAX + n,
        _ => Register::RAX + n,
    }
}

/// Puts the roles into the instruction's operands.
fn rewrite(key: &Instruction, roles: Roles) -> Instruction {
    let mut instruction = *key;
    for op in 0..key.op_count() {
        match (key.op_kind(op), roles.rsp) {
            (OpKind::Register, Some(rsp))
                if key.op_register(op).full_register() == Register::RSP =>
            {
                instruction.set_op_register(op, sized(rsp, key.op_register(op).size()));
            }
            _ => {}
        }
    }
    if let Some(mem) = roles.mem {
        instruction.set_memory_base(sized(mem, 8));
    }
    instruction
}

/// Assembles the thunk of the normalized instruction `key`, which `class` describes.
pub(super) fn assemble(
    key: &Instruction,
    class: &Classification,
) -> Result<Assembled, Unthunkable> {
    let usage = usage(key);
    let names_rsp = (0..key.op_count()).any(|op| {
        key.op_kind(op) == OpKind::Register && key.op_register(op).full_register() == Register::RSP
    });
    if usage.gpr & 1 << reg::RSP != 0 && !names_rsp {
        return Err(Unthunkable::Stack);
    }
    let roles = assign(&usage, class.mem.is_some())?;
    let guest = encode(&rewrite(key, roles))?;
    let touched = usage.gpr | roles.mem.map_or(0, |r| 1 << r) | roles.rsp.map_or(0, |r| 1 << r);
    let mut body = Body { emit: Emitter::default(), usage, roles, class: *class, key };
    body.load();
    body.emit.bytes(&guest);
    body.store();
    let mmx = body.plain_mmx();
    Ok(Assembled { code: body.emit.code, callee_saved: touched & CALLEE_SAVED != 0, mmx })
}

fn encode(instruction: &Instruction) -> Result<Vec<u8>, Unthunkable> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, 0).map_err(|_| Unthunkable::NotIn64)?;
    Ok(encoder.take_buffer())
}

struct Body<'a> {
    emit: Emitter,
    usage: Usage,
    roles: Roles,
    class: Classification,
    key: &'a Instruction,
}

impl Body<'_> {
    fn state(&self, offset: usize) -> Mem {
        Mem { base: self.roles.state, disp: offset as i32 }
    }

    fn gpr(&self, number: u8) -> Mem {
        self.state(offset_of!(CpuState, gpr) + 8 * usize::from(number))
    }

    fn ymm(&self, number: u8) -> Mem {
        self.state(offset_of!(CpuState, ymm) + 32 * usize::from(number))
    }

    fn flags(&self) -> Mem {
        self.state(offset_of!(CpuState, flags) + offset_of!(Flags, arith))
    }

    fn mxcsr(&self) -> Mem {
        self.state(offset_of!(CpuState, x87) + offset_of!(X87, mxcsr))
    }

    /// The whole x87 unit is loaded: for its own instructions, EMMS, and the conversions between
    /// MMX and SSE, which enter MMX state or not as the processor likes.
    fn x87(&self) -> bool {
        let all = self.class.mmx || matches!(self.class.fpu, FpuClass::X87 | FpuClass::Wait);
        all && !self.plain_mmx()
    }

    /// MMX registers are loaded and stored one by one; `enter_mmx` has brought the unit into MMX
    /// state.
    fn plain_mmx(&self) -> bool {
        self.class.mmx && !self.class.mxcsr && self.key.mnemonic() != Mnemonic::Emms
    }

    fn mmx(&self, number: u8) -> Mem {
        self.state(offset_of!(CpuState, x87) + offset_of!(X87, st) + 16 * usize::from(number))
    }

    fn vex(&self) -> bool {
        self.class.fpu == FpuClass::Avx
    }

    /// Which host register stands for guest register `number`.
    fn host(&self, number: u8) -> u8 {
        if number == reg::RSP { self.roles.rsp.unwrap_or(number) } else { number }
    }

    /// Flags that the instruction reads, or may leave as they were.
    fn needs_flags(&self) -> bool {
        let modified = self.key.rflags_modified() & STATUS;
        let defined =
            (self.key.rflags_written() | self.key.rflags_cleared() | self.key.rflags_set())
                & STATUS;
        self.key.rflags_read() & STATUS != 0
            || (modified != 0 && defined != STATUS)
            || is_shift(self.key.mnemonic())
    }

    fn load(&mut self) {
        if self.roles.state != reg::RDI {
            self.emit.move64(self.roles.state, reg::RDI);
        }
        match self.roles.mem {
            Some(mem) if mem != reg::RSI => self.emit.move64(mem, reg::RSI),
            _ => {}
        }
        if self.x87() {
            // Loads MXCSR too, and leaves garbage in XMM registers that hold nothing.
            let image = self.state(offset_of!(CpuState, x87));
            self.emit.fxrstor64(image);
        } else if self.class.mxcsr {
            let mxcsr = self.mxcsr();
            self.emit.ldmxcsr(mxcsr);
        }
        for n in numbers(self.usage.vector) {
            let mem = self.ymm(n);
            if self.vex() { self.emit.load_ymm(n, mem) } else { self.emit.load_xmm(n, mem) }
        }
        if self.plain_mmx() {
            for n in numbers(self.usage.mmx) {
                let mem = self.mmx(n);
                self.emit.load_mmx(n, mem);
            }
        }
        if self.needs_flags() {
            let flags = self.flags();
            self.emit.load_flags(flags);
        }
        for n in numbers(self.usage.gpr) {
            let mem = self.gpr(n);
            self.emit.load64(self.host(n), mem);
        }
    }

    fn store(&mut self) {
        for n in numbers(self.usage.gpr_written) {
            let mem = self.gpr(n);
            self.emit.store64(mem, self.host(n));
        }
        if self.key.rflags_modified() & STATUS != 0 {
            let flags = self.flags();
            self.emit.store_flags(flags);
        }
        for n in numbers(self.usage.vector_written) {
            let mem = self.ymm(n);
            if self.vex() { self.emit.store_ymm(mem, n) } else { self.emit.store_xmm(mem, n) }
        }
        if self.class.mxcsr {
            let mxcsr = self.mxcsr();
            self.emit.stmxcsr(mxcsr);
        }
        if self.plain_mmx() {
            self.save_mmx();
        }
        if self.x87() {
            self.save_x87();
        }
        if self.vex() {
            self.emit.vzeroupper();
        }
        self.finish();
    }

    /// A written MMX register has ones in sign and exponent (SDM vol. 1, 9.2.1).
    fn save_mmx(&mut self) {
        for n in numbers(self.usage.mmx_written) {
            let mem = self.mmx(n);
            self.emit.store_mmx(mem, n);
            self.emit.store16_ones(Mem { disp: mem.disp + 8, ..mem });
        }
        self.emit.bytes(&EMMS);
    }

    /// FXSAVE to the stack, then FCW, FSW, FTW and the registers to the state. The pointers stay as
    /// they are: hosts differ in saving them, so the interpreter keeps them. The host gets its own
    /// environment back: by EMMS, which is a hundred times faster than FNINIT, if the control word
    /// is the host's and no exception is pending.
    fn save_x87(&mut self) {
        const IMAGE: i32 = 512;
        self.emit.move64(reg::RAX, reg::RSP);
        // sub rsp, 512; and rsp, -16
        self.emit.bytes(&[0x48, 0x81, 0xec]);
        self.emit.bytes(&IMAGE.to_le_bytes());
        self.emit.bytes(&[0x48, 0x83, 0xe4, 0xf0]);
        let at = |disp: i32| Mem { base: reg::RSP, disp };
        let x87 = offset_of!(CpuState, x87);
        self.emit.fxsave64(at(0));
        self.emit.load32(reg::RCX, at(0));
        let control = self.state(x87);
        self.emit.store32(control, reg::RCX);
        self.emit.load8(reg::RCX, at(offset_of!(X87, ftw) as i32));
        let tags = self.state(x87 + offset_of!(X87, ftw));
        self.emit.store8(tags, reg::RCX);
        for n in 0..8u8 {
            let offset = offset_of!(X87, st) + 16 * usize::from(n);
            self.emit.load_xmm(n, at(offset as i32));
            let mem = self.state(x87 + offset);
            self.emit.store_xmm(mem, n);
        }
        self.emit.move64(reg::RSP, reg::RAX);
        self.emit.load32(reg::RCX, control);
        // and ecx, ES<<16 | FFFFH; cmp ecx, 37FH; je +4; fninit; jmp +2; emms
        self.emit.bytes(&[0x81, 0xe1, 0xff, 0xff, 0x80, 0x00, 0x81, 0xf9, 0x7f, 0x03, 0, 0]);
        self.emit.bytes(&[0x74, 4, 0xdb, 0xe3, 0xeb, 2]);
        self.emit.bytes(&EMMS);
    }

    /// Restores the host's MXCSR from the constant after the code, and returns 0.
    fn finish(&mut self) {
        let foreign_mxcsr = self.class.mxcsr || self.x87();
        if foreign_mxcsr {
            // ldmxcsr [rip+3]: over `xor eax, eax; ret`.
            self.emit.bytes(&[0x0f, 0xae, 0x15, 3, 0, 0, 0]);
        }
        self.emit.bytes(&[0x31, 0xc0, 0xc3]);
        if foreign_mxcsr {
            self.emit.bytes(&HOST_MXCSR.to_le_bytes());
        }
    }
}

fn numbers(mask: u16) -> impl Iterator<Item = u8> {
    (0..16u8).filter(move |n| mask & 1 << n != 0)
}
