//! Selects the function that performs an instruction: the interpreter's table of contents.
//!
//! Each group of instructions has a file with a function `select`. The host runs what no group
//! claims ([`crate::interp::host_exec`]).

mod arithmetic;
mod branches;
mod context;
mod moves;
mod stack;
mod strings;
mod system;

use super::operand;
use crate::core::Handler;
use crate::core::Op;
use crate::core::{Core, LEGACY};
use crate::interp::fpu;
use crate::interp::host_exec;
use crate::op::DIRECT;
use crate::thunk::Unthunkable;
pub(crate) use context::Place;
use context::{Choice, Context, Kind, addressed, implicit_segment};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// The handler that was chosen, and the op it runs on.
pub(crate) struct Selected {
    pub(crate) run: Handler,
    pub(crate) op: Op,
    /// The block ends here.
    pub(crate) leaves: bool,
    /// The RIP-relative operand is too far from the block's start: a new block must begin here.
    pub(crate) too_far: bool,
}

impl Selected {
    pub(crate) fn leaves(run: Handler) -> Self {
        Self { run, op: operand::blank(), leaves: true, too_far: false }
    }
}

/// Selects the handler of `instruction`.
///
/// # Errors
/// The instruction is undefined on this processor, or the thunk cache is full.
pub(crate) fn select(
    core: &mut Core,
    instruction: &Instruction,
    place: &Place<'_>,
) -> Result<Selected, Unthunkable> {
    if !core.features.allows(instruction) {
        return Err(Unthunkable::Unsupported);
    }
    let mut c = Context {
        i: instruction,
        op: operand::blank(),
        form: LEGACY,
        mode: core.mode,
        too_far: false,
    };
    if (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory) {
        c.too_far = !operand::memory(&mut c.op, instruction, place.block_ip, core.mode);
        c.form = operand::form(&c.op, core.mode);
    }
    c.op.rep = operand::rep(instruction);
    let run = match by_hand(&mut c, place) {
        Some(run) => run,
        None => thunk(core, &mut c, place)?,
    };
    let leaves = ends_block(instruction);
    Ok(Selected { run, op: c.op, leaves, too_far: c.too_far })
}

/// Whether `op` is a branch whose target is `imm` from the block's start.
pub(crate) fn is_direct(op: &Op) -> bool {
    op.rep == DIRECT
}

fn thunk(core: &mut Core, c: &mut Context<'_>, place: &Place<'_>) -> Result<Handler, Unthunkable> {
    let run = match core.thunks.index(&alias(c.i), place.bytes) {
        Ok((index, memory)) => {
            c.op.imm = index;
            return Ok(match memory {
                None => host_exec::registers,
                Some(_) => addressed!(c.form, A => host_exec::memory::<A>),
            });
        }
        Err(Unthunkable::MaskedMove) => fpu::masked_move,
        Err(Unthunkable::Gather) => fpu::gather,
        Err(Unthunkable::VectorZero) => {
            c.op.size = u8::from(c.i.mnemonic() == M::Vzeroall);
            return Ok(fpu::zero_vectors);
        }
        Err(reason) => return Err(reason),
    };
    c.too_far = false;
    c.op.imm = core.thunks.keep(c.i, place.block_ip);
    if c.kind(0) != Kind::Memory && c.kind(1) != Kind::Memory && c.kind(2) != Kind::Memory {
        c.op.seg = implicit_segment(c);
    }
    c.op.dst = match c.i.mnemonic() {
        M::Maskmovq => 0,
        M::Maskmovdqu => 1,
        _ => 2,
    };
    Ok(run)
}

/// The encoding of `i` that exists in the host's 64-bit mode: opcode 80 in place of 82.
fn alias(i: &Instruction) -> Instruction {
    let mut i = *i;
    let code = match i.code() {
        Code::Add_rm8_imm8_82 => Code::Add_rm8_imm8,
        Code::Or_rm8_imm8_82 => Code::Or_rm8_imm8,
        Code::Adc_rm8_imm8_82 => Code::Adc_rm8_imm8,
        Code::Sbb_rm8_imm8_82 => Code::Sbb_rm8_imm8,
        Code::And_rm8_imm8_82 => Code::And_rm8_imm8,
        Code::Sub_rm8_imm8_82 => Code::Sub_rm8_imm8,
        Code::Xor_rm8_imm8_82 => Code::Xor_rm8_imm8,
        code => code,
    };
    i.set_code(code);
    i
}

/// Whether `i` ends its block: it may change the mode or the code that follows.
fn ends_block(i: &Instruction) -> bool {
    if i.flow_control() != FlowControl::Next {
        return !matches!(i.mnemonic(), M::Bound | M::Into);
    }
    let segment = |n: u32| {
        n < i.op_count()
            && i.op_kind(n) == OpKind::Register
            && i.op_register(n).is_segment_register()
    };
    match i.mnemonic() {
        M::Popf
        | M::Popfd
        | M::Popfq
        | M::Stac
        | M::Clac
        | M::Hlt
        | M::Wrmsr
        | M::Invlpg
        | M::Invpcid
        | M::Clts
        | M::Lmsw
        | M::Wrpkru
        | M::Out
        | M::Les
        | M::Lds
        | M::Lss
        | M::Lfs
        | M::Lgs => true,
        M::Mov => {
            segment(0)
                || i.op0_kind() == OpKind::Register && {
                    let r = i.op0_register();
                    r.is_dr() || r.is_cr() && r != Register::CR8
                }
        }
        M::Pop => segment(0),
        _ => false,
    }
}

fn by_hand(c: &mut Context<'_>, place: &Place<'_>) -> Choice {
    if c.i.has_lock_prefix() && !matches!(c.i.mnemonic(), M::Bts | M::Btr | M::Btc) {
        // The host runs LOCKed read-modify-writes itself. AMD's MOV CR8 with a LOCK prefix does not
        // decode here.
        return None;
    }
    moves::select(c)
        .or_else(|| arithmetic::select(c))
        .or_else(|| arithmetic::bit_tests(c))
        .or_else(|| stack::select(c))
        .or_else(|| branches::select(c, place))
        .or_else(|| strings::select(c))
        .or_else(|| moves::flag_operations(c))
        .or_else(|| system::select(c))
        .or_else(|| fpu::select(c.i, &mut c.op))
}
