//! What the thunk tests share: decoding, running, synthesized operands.
// each test binary uses a part; `run` vouches for the memory it passes
#![allow(dead_code, unreachable_pub, missing_docs, unsafe_code)]

pub mod native;

use engine_soft::thunk::{HostFeatures, Thunk, ThunkCache, ThunkFault, Unthunkable};
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, OpCodeOperandKind as K, OpKind, Register,
};
use test_support::Rng;
use x86::state::CpuState;

/// Memory for operands, aligned like the strictest of them.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena(pub [u8; 64]);

pub struct Bench {
    pub cache: ThunkCache,
    pub state: CpuState,
    pub arena: Arena,
}

impl Bench {
    pub fn new() -> Self {
        let mut state = CpuState::reset();
        state.x87.fcw = 0x37f;
        state.x87.ftw = 0;
        Self {
            cache: ThunkCache::new(1 << 20).expect("a code cache"),
            state,
            arena: Arena([0; 64]),
        }
    }

    pub fn compile(&mut self, bytes: &[u8]) -> Result<Thunk, Unthunkable> {
        self.compile_in(64, bytes)
    }

    pub fn compile_in(&mut self, bitness: u32, bytes: &[u8]) -> Result<Thunk, Unthunkable> {
        let instruction = Decoder::with_ip(bitness, bytes, 0x1000, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), bytes.len(), "{bytes:02x?} is not one instruction");
        self.cache.compile(&instruction, HostFeatures::probe())
    }

    pub fn execute(&mut self, thunk: &Thunk, offset: usize) -> Result<(), ThunkFault> {
        let size = thunk.class.mem.map_or(0, |m| usize::from(m.size));
        assert!(offset + size <= self.arena.0.len());
        let mem = self.arena.0[offset..].as_mut_ptr();
        // SAFETY: `mem` has `size` bytes, checked above; the cache lives in `self` and is not reset
        // by these tests.
        unsafe { thunk.run(&mut self.state, mem) }
    }

    /// Compiles and runs one 64-bit instruction whose memory operand, if any, is the arena's start.
    pub fn run(&mut self, bytes: &[u8]) -> Result<(), ThunkFault> {
        let thunk = self.compile(bytes).unwrap_or_else(|why| panic!("{bytes:02x?}: {why:?}"));
        self.execute(&thunk, 0)
    }
}

/// `code` with operands of our choice, registers from `seed`, memory at [RBX+RSI*2+40H]; `None` if
/// it takes operands no thunk can have.
pub fn synthesize(code: Code, memory: bool, seed: u32) -> Option<Instruction> {
    let info = code.op_code();
    let mut i = Instruction::default();
    i.set_code(code);
    for op in 0..info.op_count() {
        let n = (seed + op * 3) % 8;
        let kind = info.op_kind(op);
        let register = match kind {
            K::mem
            | K::mem_mib
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y => None,
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
                if memory =>
            {
                None
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => Some(Register::AL + n),
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => Some(Register::AX + n),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
                Some(Register::EAX + n)
            }
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
                Some(Register::RAX + (n + 8 * (seed & 1)))
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => Some(Register::MM0 + n),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => {
                Some(Register::XMM0 + (n + 8 * (seed & 1)))
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => {
                Some(Register::YMM0 + (n + 8 * (seed & 1)))
            }
            K::al => Some(Register::AL),
            K::cl => Some(Register::CL),
            K::ax => Some(Register::AX),
            K::dx => Some(Register::DX),
            K::eax => Some(Register::EAX),
            K::rax => Some(Register::RAX),
            K::st0 => Some(Register::ST0),
            K::sti_opcode => Some(Register::ST0 + n),
            K::imm8
            | K::imm8sex16
            | K::imm8sex32
            | K::imm8sex64
            | K::imm16
            | K::imm32
            | K::imm32sex64
            | K::imm64
            | K::imm8_const_1 => {
                set_immediate(&mut i, op, kind, seed);
                continue;
            }
            _ => return None,
        };
        match register {
            Some(register) => {
                i.set_op_kind(op, OpKind::Register);
                i.set_op_register(op, register);
            }
            None => set_memory(&mut i, op, kind, n),
        }
    }
    Some(i)
}

/// Operand `op` at [RBX+RSI*2+40H], or a vector register's elements for index.
fn set_memory(i: &mut Instruction, op: u32, kind: K, index: u32) {
    i.set_op_kind(op, OpKind::Memory);
    i.set_memory_base(Register::RBX);
    i.set_memory_index(Register::RSI);
    i.set_memory_index_scale(2);
    i.set_memory_displacement64(0x40);
    i.set_memory_displ_size(1);
    match kind {
        K::mem_vsib32x | K::mem_vsib64x => i.set_memory_index(Register::XMM0 + index),
        K::mem_vsib32y | K::mem_vsib64y => i.set_memory_index(Register::YMM0 + index),
        _ => {}
    }
}

fn set_immediate(i: &mut Instruction, op: u32, kind: K, seed: u32) {
    let (to, value) = match kind {
        K::imm8sex16 => (OpKind::Immediate8to16, seed % 100),
        K::imm8sex32 => (OpKind::Immediate8to32, seed % 100),
        K::imm8sex64 => (OpKind::Immediate8to64, seed % 100),
        K::imm16 => (OpKind::Immediate16, seed),
        K::imm32 => (OpKind::Immediate32, seed),
        K::imm32sex64 => (OpKind::Immediate32to64, seed),
        K::imm64 => (OpKind::Immediate64, seed),
        K::imm8_const_1 => (OpKind::Immediate8, 1),
        _ if (0..op).any(|o| i.op_kind(o) == OpKind::Immediate8) => {
            (OpKind::Immediate8_2nd, seed % 256)
        }
        _ => (OpKind::Immediate8, seed % 256),
    };
    i.set_op_kind(op, to);
    i.set_immediate_u64(op, u64::from(value));
}

/// Encoded and decoded again, as the interpreter would meet it; `None` if that gives another
/// instruction.
pub fn through_bytes(instruction: &Instruction) -> Option<(Instruction, Vec<u8>)> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, 0x1000).ok()?;
    let bytes = encoder.take_buffer();
    let decoded = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE).decode();
    (decoded.code() == instruction.code()).then_some((decoded, bytes))
}

/// Fills processors and memory.
pub struct Random(Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub fn fill(&mut self, state: &mut CpuState, arena: &mut Arena) {
        for gpr in &mut state.gpr[..16] {
            *gpr = self.next();
        }
        for byte in state.ymm.iter_mut().flat_map(|y| y.0.iter_mut()).chain(arena.0.iter_mut()) {
            *byte = self.next() as u8;
        }
        state.flags.arith = (self.next() & 0xd501) as u16 | 0x200;
    }
}
