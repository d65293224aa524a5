//! Which function performs an instruction: the interpreter's table of contents.
//!
//! Groups in the order of the match: moves, arithmetic, bits, stack, control flow, strings, flags,
//! system, state images; whatever has no function of its own is run by the host
//! ([`crate::thunked`]).

use super::operand;
use crate::cpu::{BASED, Cpu, FLAT, LEGACY};
use crate::interp::{arith, bits, control, data, fpu, legacy, stack, string, system};
use crate::op::{DIRECT, Handler, OWN_STEP, Op};
use crate::thunk::Unthunkable;
use crate::thunked;
use iced_x86::{
    Code, ConditionCode, FlowControl, Instruction, Mnemonic as M, OpCodeTableKind, OpKind, Register,
};
use x86::state::Mode;

/// Where the instruction stands.
pub(crate) struct Place<'a> {
    pub(crate) block_ip: u64,
    pub(crate) bytes: &'a [u8],
}

/// The choice.
pub(crate) struct Selected {
    pub(crate) run: Handler,
    pub(crate) op: Op,
    /// The block ends here.
    pub(crate) leaves: bool,
    /// The RIP-relative operand cannot be expressed from the block's start: begin a new block here.
    pub(crate) too_far: bool,
}

impl Selected {
    pub(crate) fn leaves(run: Handler) -> Self {
        Self { run, op: operand::blank(), leaves: true, too_far: false }
    }
}

/// Picks the instantiation for an operand size.
macro_rules! sized {
    ($size:expr, $w:ident => $e:expr) => {
        match $size {
            1 => {
                type $w = u8;
                $e as Handler
            }
            2 => {
                type $w = u16;
                $e as Handler
            }
            4 => {
                type $w = u32;
                $e as Handler
            }
            _ => {
                type $w = u64;
                $e as Handler
            }
        }
    };
}

/// Picks the instantiation for a form of address.
macro_rules! addressed {
    ($form:expr, $a:ident => $e:expr) => {
        match $form {
            FLAT => {
                const $a: u8 = FLAT;
                $e
            }
            BASED => {
                const $a: u8 = BASED;
                $e
            }
            _ => {
                const $a: u8 = LEGACY;
                $e
            }
        }
    };
}

/// Picks the instantiation for a condition.
macro_rules! conditional {
    ($cc:expr, $c:ident => $e:expr) => {
        conditional!(@ $cc, $c, $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $cc:expr, $c:ident, $e:expr, $($n:literal)*) => {
        match $cc {
            $($n => { const $c: u8 = $n; $e as Handler })*
            _ => { const $c: u8 = 15; $e as Handler }
        }
    };
}

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Register,
    Memory,
    Immediate,
    Other,
}

/// The instruction under selection.
struct Context<'a> {
    i: &'a Instruction,
    op: Op,
    form: u8,
    mode: Mode,
    too_far: bool,
}

impl Context<'_> {
    fn kind(&self, n: u32) -> Kind {
        if n >= self.i.op_count() {
            return Kind::Other;
        }
        match self.i.op_kind(n) {
            OpKind::Register => Kind::Register,
            OpKind::Memory => Kind::Memory,
            OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Kind::Immediate,
            _ => Kind::Other,
        }
    }

    /// Bytes of operand `n`.
    fn size(&self, n: u32) -> u8 {
        match self.kind(n) {
            Kind::Register => self.i.op_register(n).size() as u8,
            _ => self.i.memory_size().size() as u8,
        }
    }

    fn reg(&self, n: u32) -> u8 {
        operand::general(self.i.op_register(n))
    }
}

/// Chooses for `instruction`.
///
/// # Errors
/// It has no function: undefined for this processor, or the thunk cache is full.
pub(crate) fn select(
    cpu: &mut Cpu,
    instruction: &Instruction,
    place: &Place<'_>,
) -> Result<Selected, Unthunkable> {
    if !cpu.features.allows(instruction) {
        return Err(Unthunkable::Unsupported);
    }
    let mut c = Context {
        i: instruction,
        op: operand::blank(),
        form: LEGACY,
        mode: cpu.mode,
        too_far: false,
    };
    if (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory) {
        c.too_far = !operand::memory(&mut c.op, instruction, place.block_ip, cpu.mode);
        c.form = operand::form(&c.op, cpu.mode);
    }
    c.op.rep = operand::rep(instruction);
    let run = match by_hand(&mut c, place) {
        Some(run) => run,
        None => thunk(cpu, &mut c, place)?,
    };
    let leaves = ends_block(instruction);
    Ok(Selected { run, op: c.op, leaves, too_far: c.too_far })
}

/// Whether `op` is a branch whose target is `imm` from the block's start.
pub(crate) fn is_direct(op: &Op) -> bool {
    op.rep == DIRECT
}

fn thunk(cpu: &mut Cpu, c: &mut Context<'_>, place: &Place<'_>) -> Result<Handler, Unthunkable> {
    let run = match cpu.thunks.index(&alias(c.i), place.bytes) {
        Ok((index, memory)) => {
            c.op.imm = index;
            return Ok(match memory {
                None => thunked::registers,
                Some(_) => addressed!(c.form, A => thunked::memory::<A>),
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
    c.op.imm = cpu.thunks.keep(c.i, place.block_ip);
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

/// The encoding that the host's 64-bit mode has for it: opcode 82 does what 80 does.
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

/// Instructions after which nothing decoded before may be relied on.
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
        | M::Sti
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

type Choice = Option<Handler>;

fn by_hand(c: &mut Context<'_>, place: &Place<'_>) -> Choice {
    if c.i.has_lock_prefix() && !matches!(c.i.mnemonic(), M::Bts | M::Btr | M::Btc) {
        // LOCKed read-modify-writes are the host's own; MOV CR8 spelt with LOCK (AMD) does not
        // decode here.
        return None;
    }
    moves(c)
        .or_else(|| arithmetic(c))
        .or_else(|| bit_tests(c))
        .or_else(|| stack_operations(c))
        .or_else(|| branches(c, place))
        .or_else(|| strings(c))
        .or_else(|| flag_operations(c))
        .or_else(|| system_operations(c))
        .or_else(|| fpu::select(c.i, &mut c.op))
}

fn moves(c: &mut Context<'_>) -> Choice {
    let (k0, k1) = (c.kind(0), c.kind(1));
    Some(match c.i.mnemonic() {
        M::Mov => return mov(c, k0, k1),
        M::Movzx | M::Movsx | M::Movsxd => return extend(c, k1),
        M::Lea => {
            c.op.dst = c.reg(0);
            sized!(c.size(0), W => addressed!(c.form, A => data::lea::<W, A> as Handler))
        }
        M::Xchg if k1 == Kind::Register && k0 == Kind::Register => {
            (c.op.dst, c.op.src) = (c.reg(0), c.reg(1));
            sized!(c.size(0), W => data::xchg_rr::<W>)
        }
        M::Bswap => {
            (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
            data::bswap
        }
        M::Xlatb => {
            c.op.seg = implicit_segment(c);
            c.op.address_size = c.i.memory_base().size() as u8;
            data::xlat
        }
        M::Nop | M::Endbr32 | M::Endbr64 | M::Rdsspd | M::Rdsspq | M::Reservednop | M::Cldemote => {
            data::nop
        }
        M::Prefetch
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchit0
        | M::Prefetchit1 => data::nop,
        M::Lahf => data::lahf,
        M::Sahf => data::sahf,
        _ => return conditional_moves(c, k0, k1),
    })
}

fn conditional_moves(c: &mut Context<'_>, k0: Kind, k1: Kind) -> Choice {
    let cc = c.i.condition_code();
    if cc == ConditionCode::None {
        return None;
    }
    let cc = cc as u8 - 1;
    // 0F 4x: CMOVcc; 0F 9x: SETcc (7x and 0F 8x: Jcc).
    let code = c.i.op_code();
    let group = if code.table() == OpCodeTableKind::T0F { code.op_code() & 0xf0 } else { 0 };
    if group == 0x40 {
        let size = c.size(0);
        c.op.dst = c.reg(0);
        if k1 == Kind::Register {
            c.op.src = c.reg(1);
            return Some(conditional!(cc, C => sized!(size, W => data::cmov_rr::<W, C>)));
        }
        let form = c.form;
        return Some(
            conditional!(cc, C => sized!(size, W => addressed!(form, A => data::cmov_rm::<W, C, A> as Handler))),
        );
    }
    if group == 0x90 {
        if k0 == Kind::Register {
            c.op.dst = c.reg(0);
            return Some(conditional!(cc, C => data::set_r::<C>));
        }
        return Some(conditional!(cc, C => data::set_m::<C>));
    }
    None
}

fn mov(c: &mut Context<'_>, k0: Kind, k1: Kind) -> Choice {
    let special = |r: Register| r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr();
    let register =
        |n: u32| if c.kind(n) == Kind::Register { c.i.op_register(n) } else { Register::None };
    if special(register(0)) || special(register(1)) {
        return mov_special(c, k0, k1);
    }
    if matches!(
        c.i.code(),
        Code::Mov_AL_moffs8 | Code::Mov_AX_moffs16 | Code::Mov_EAX_moffs32 | Code::Mov_RAX_moffs64
    ) {
        return Some(moffs(c, 0));
    }
    if matches!(
        c.i.code(),
        Code::Mov_moffs8_AL | Code::Mov_moffs16_AX | Code::Mov_moffs32_EAX | Code::Mov_moffs64_RAX
    ) {
        return Some(moffs(c, 1));
    }
    let size = if k0 == Kind::Register { c.size(0) } else { c.i.memory_size().size() as u8 };
    let form = c.form;
    Some(match (k0, k1) {
        (Kind::Register, Kind::Register) => {
            (c.op.dst, c.op.src) = (c.reg(0), c.reg(1));
            sized!(size, W => data::mov_rr::<W>)
        }
        (Kind::Register, Kind::Immediate) => {
            c.op.dst = c.reg(0);
            c.op.imm = c.i.immediate(1);
            sized!(size, W => data::mov_ri::<W>)
        }
        (Kind::Register, _) => {
            c.op.dst = c.reg(0);
            sized!(size, W => addressed!(form, A => data::mov_rm::<W, A> as Handler))
        }
        (_, Kind::Register) => {
            c.op.src = c.reg(1);
            sized!(size, W => addressed!(form, A => data::mov_mr::<W, A> as Handler))
        }
        _ => {
            c.op.imm = c.i.immediate(1);
            sized!(size, W => addressed!(form, A => data::mov_mi::<W, A> as Handler))
        }
    })
}

/// MOV between the accumulator and an absolute address; operand `register` is the accumulator.
fn moffs(c: &mut Context<'_>, register: u32) -> Handler {
    c.op.imm = c.i.memory_displacement64();
    c.too_far = false;
    let size = c.size(register);
    if register == 0 {
        sized!(size, W => data::mov_a_moffs::<W>)
    } else {
        sized!(size, W => data::mov_moffs_a::<W>)
    }
}

fn mov_special(c: &mut Context<'_>, k0: Kind, k1: Kind) -> Choice {
    let long = if c.mode == Mode::Long64 { 8 } else { 4 };
    if k1 == Kind::Register && c.i.op1_register().is_segment_register() {
        c.op.src = operand::segment(c.i.op1_register());
        if k0 == Kind::Memory {
            return Some(stack::mov_m_seg);
        }
        (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
        return Some(stack::mov_r_seg);
    }
    let to = c.i.op0_register();
    if to.is_segment_register() {
        if to == Register::CS {
            return Some(system::undefined);
        }
        c.op.dst = operand::segment(to);
        if k1 == Kind::Memory {
            return Some(system::mov_seg::<true>);
        }
        c.op.src = c.reg(1);
        return Some(system::mov_seg::<false>);
    }
    c.op.size = long;
    if to.is_cr() || to.is_dr() {
        c.op.dst = to.number() as u8;
        c.op.src = c.reg(1);
        return Some(if to.is_cr() { system::mov_to_cr } else { system::mov_to_dr });
    }
    let from = c.i.op1_register();
    c.op.dst = c.reg(0);
    c.op.src = from.number() as u8;
    Some(if from.is_cr() {
        system::mov_from_cr
    } else if from.is_dr() {
        system::mov_from_dr
    } else {
        system::undefined
    })
}

fn extend(c: &mut Context<'_>, k1: Kind) -> Choice {
    let signed = c.i.mnemonic() != M::Movzx;
    let (to, from, form) = (c.size(0), c.size(1), c.form);
    c.op.dst = c.reg(0);
    if k1 == Kind::Register {
        c.op.src = c.reg(1);
        return Some(match (signed, from) {
            (false, 1) => sized!(to, W => data::movzx_rr::<W, u8>),
            (false, _) => sized!(to, W => data::movzx_rr::<W, u16>),
            (true, 1) => sized!(to, W => data::movsx_rr::<W, u8>),
            (true, 2) => sized!(to, W => data::movsx_rr::<W, u16>),
            (true, _) => sized!(to, W => data::movsx_rr::<W, u32>),
        });
    }
    Some(match (signed, from) {
        (false, 1) => sized!(to, W => addressed!(form, A => data::movzx_rm::<W, u8, A> as Handler)),
        (false, _) => {
            sized!(to, W => addressed!(form, A => data::movzx_rm::<W, u16, A> as Handler))
        }
        (true, 1) => sized!(to, W => addressed!(form, A => data::movsx_rm::<W, u8, A> as Handler)),
        (true, 2) => sized!(to, W => addressed!(form, A => data::movsx_rm::<W, u16, A> as Handler)),
        (true, _) => sized!(to, W => addressed!(form, A => data::movsx_rm::<W, u32, A> as Handler)),
    })
}

fn arithmetic(c: &mut Context<'_>) -> Choice {
    match c.i.mnemonic() {
        M::Add => binary::<arith::Add>(c),
        M::Or => binary::<arith::Or>(c),
        M::Adc => binary::<arith::Adc>(c),
        M::Sbb => binary::<arith::Sbb>(c),
        M::And => binary::<arith::And>(c),
        M::Sub => binary::<arith::Sub>(c),
        M::Xor => binary::<arith::Xor>(c),
        M::Cmp => binary::<arith::Cmp>(c),
        M::Test => binary::<arith::Test>(c),
        M::Inc => unary::<arith::Inc>(c),
        M::Dec => unary::<arith::Dec>(c),
        M::Neg => unary::<arith::Neg>(c),
        M::Not => unary::<arith::Not>(c),
        M::Rol => shift::<arith::Rol>(c),
        M::Ror => shift::<arith::Ror>(c),
        M::Rcl => shift::<arith::Rcl>(c),
        M::Rcr => shift::<arith::Rcr>(c),
        M::Shl | M::Sal => shift::<arith::Shl>(c),
        M::Shr => shift::<arith::Shr>(c),
        M::Sar => shift::<arith::Sar>(c),
        M::Mul => accumulate::<arith::Mul>(c),
        M::Div => accumulate::<arith::Div>(c),
        M::Idiv => accumulate::<arith::Idiv>(c),
        M::Imul if c.i.op_count() == 1 => accumulate::<arith::Imul>(c),
        M::Imul => imul(c),
        M::Cbw => extend_accumulator(c, arith::extend_a, 2),
        M::Cwde => extend_accumulator(c, arith::extend_a, 4),
        M::Cdqe => extend_accumulator(c, arith::extend_a, 8),
        M::Cwd => extend_accumulator(c, arith::extend_d, 2),
        M::Cdq => extend_accumulator(c, arith::extend_d, 4),
        M::Cqo => extend_accumulator(c, arith::extend_d, 8),
        M::Aaa => Some(legacy::aaa_aas::<false>),
        M::Aas => Some(legacy::aaa_aas::<true>),
        M::Daa => Some(legacy::daa_das::<false>),
        M::Das => Some(legacy::daa_das::<true>),
        M::Aam => {
            c.op.imm = c.i.immediate(0);
            Some(legacy::aam)
        }
        M::Aad => {
            c.op.imm = c.i.immediate(0);
            Some(legacy::aad)
        }
        M::Salc => Some(legacy::salc),
        _ => None,
    }
}

fn extend_accumulator(c: &mut Context<'_>, run: Handler, size: u8) -> Choice {
    c.op.size = size;
    Some(run)
}

fn binary<O: arith::Binary>(c: &mut Context<'_>) -> Choice {
    let (size, form) = (c.size(0), c.form);
    Some(match (c.kind(0), c.kind(1)) {
        (Kind::Register, Kind::Register) => {
            (c.op.dst, c.op.src) = (c.reg(0), c.reg(1));
            sized!(size, W => arith::rr::<W, O>)
        }
        (Kind::Register, Kind::Immediate) => {
            (c.op.dst, c.op.imm) = (c.reg(0), c.i.immediate(1));
            sized!(size, W => arith::ri::<W, O>)
        }
        (Kind::Register, _) => {
            c.op.dst = c.reg(0);
            sized!(size, W => addressed!(form, A => arith::rm::<W, O, A> as Handler))
        }
        (_, Kind::Register) => {
            c.op.src = c.reg(1);
            sized!(size, W => addressed!(form, A => arith::mr::<W, O, A> as Handler))
        }
        _ => {
            c.op.imm = c.i.immediate(1);
            sized!(size, W => addressed!(form, A => arith::mi::<W, O, A> as Handler))
        }
    })
}

fn unary<O: arith::Unary>(c: &mut Context<'_>) -> Choice {
    let (size, form) = (c.size(0), c.form);
    if c.kind(0) == Kind::Register {
        c.op.dst = c.reg(0);
        return Some(sized!(size, W => arith::r1::<W, O>));
    }
    Some(sized!(size, W => addressed!(form, A => arith::m1::<W, O, A> as Handler)))
}

fn shift<O: arith::Shift>(c: &mut Context<'_>) -> Choice {
    if c.kind(1) == Kind::Register {
        return Some(shift_by::<O, true>(c));
    }
    c.op.imm = c.i.immediate(1);
    let count = c.op.imm & if c.size(0) == 8 { 63 } else { 31 };
    Some(if count > 1 && O::keeps_of() {
        shift_by::<arith::Keeping<O>, false>(c)
    } else {
        shift_by::<O, false>(c)
    })
}

fn shift_by<O: arith::Shift, const BY_CL: bool>(c: &mut Context<'_>) -> Handler {
    let (size, form) = (c.size(0), c.form);
    if c.kind(0) == Kind::Register {
        c.op.dst = c.reg(0);
        return sized!(size, W => arith::shift_r::<W, O, BY_CL>);
    }
    sized!(size, W => addressed!(form, A => arith::shift_m::<W, O, BY_CL, A> as Handler))
}

fn accumulate<O: arith::Accumulate>(c: &mut Context<'_>) -> Choice {
    let (size, form) = (c.size(0), c.form);
    if c.kind(0) == Kind::Register {
        c.op.dst = c.reg(0);
        return Some(sized!(size, W => arith::acc_r::<W, O>));
    }
    Some(sized!(size, W => addressed!(form, A => arith::acc_m::<W, O, A> as Handler)))
}

fn imul(c: &mut Context<'_>) -> Choice {
    let (size, form) = (c.size(0), c.form);
    let immediate = c.i.op_count() == 3;
    c.op.dst = c.reg(0);
    if immediate {
        c.op.imm = c.i.immediate(2);
    }
    Some(match (c.kind(1) == Kind::Register, immediate) {
        (true, false) => {
            c.op.src = c.reg(1);
            sized!(size, W => arith::imul_rr::<W>)
        }
        (true, true) => {
            c.op.src = c.reg(1);
            sized!(size, W => arith::imul_rri::<W>)
        }
        (false, false) => {
            sized!(size, W => addressed!(form, A => arith::imul_rm::<W, A> as Handler))
        }
        (false, true) => {
            sized!(size, W => addressed!(form, A => arith::imul_rmi::<W, A> as Handler))
        }
    })
}

fn bit_tests(c: &mut Context<'_>) -> Choice {
    match c.i.mnemonic() {
        M::Bt => bit_test::<{ bits::TEST }>(c),
        M::Bts => bit_test::<{ bits::SET }>(c),
        M::Btr => bit_test::<{ bits::RESET }>(c),
        M::Btc => bit_test::<{ bits::COMPLEMENT }>(c),
        _ => None,
    }
}

fn bit_test<const KIND: u8>(c: &mut Context<'_>) -> Choice {
    let size = c.size(0);
    Some(match (c.kind(0), c.kind(1)) {
        (Kind::Register, Kind::Register) => {
            (c.op.dst, c.op.src) = (c.reg(0), c.reg(1));
            sized!(size, W => bits::rr::<W, KIND>)
        }
        (Kind::Register, _) => {
            (c.op.dst, c.op.imm) = (c.reg(0), c.i.immediate(1));
            sized!(size, W => bits::ri::<W, KIND>)
        }
        (_, Kind::Register) => {
            (c.op.src, c.op.imm) = (c.reg(1), u64::from(c.i.has_lock_prefix()));
            sized!(size, W => bits::mr::<W, KIND>)
        }
        _ if c.i.has_lock_prefix() => return None,
        _ => {
            c.op.imm = c.i.immediate(1);
            sized!(size, W => bits::mi::<W, KIND>)
        }
    })
}

/// Bytes that a stack instruction moves.
fn stack_size(c: &Context<'_>) -> u8 {
    c.i.stack_pointer_increment().unsigned_abs() as u8
}

fn stack_operations(c: &mut Context<'_>) -> Choice {
    let long = c.mode == Mode::Long64;
    Some(match c.i.mnemonic() {
        M::Push => {
            c.op.size = stack_size(c);
            match c.kind(0) {
                Kind::Register if c.i.op0_register().is_segment_register() => {
                    c.op.dst = operand::segment(c.i.op0_register());
                    stack::push_seg
                }
                Kind::Register => {
                    c.op.dst = c.reg(0);
                    stack_segment(c);
                    if long && c.op.size == 8 { stack::push_r64 } else { stack::push_r }
                }
                Kind::Immediate => {
                    c.op.imm = c.i.immediate(0);
                    stack_segment(c);
                    stack::push_i
                }
                _ => stack::push_m,
            }
        }
        M::Pop => {
            c.op.size = stack_size(c);
            match c.kind(0) {
                Kind::Register if c.i.op0_register().is_segment_register() => {
                    c.op.dst = operand::segment(c.i.op0_register());
                    stack_segment(c);
                    system::pop_seg
                }
                Kind::Register => {
                    c.op.dst = c.reg(0);
                    stack_segment(c);
                    if long && c.op.size == 8 { stack::pop_r64 } else { stack::pop_r }
                }
                _ => stack::pop_m,
            }
        }
        M::Pusha | M::Pushad => {
            c.op.size = stack_size(c) / 8;
            stack::pusha
        }
        M::Popa | M::Popad => {
            c.op.size = stack_size(c) / 8;
            stack::popa
        }
        M::Pushf | M::Pushfd | M::Pushfq => {
            c.op.size = stack_size(c);
            stack_segment(c);
            stack::pushf
        }
        M::Popf | M::Popfd | M::Popfq => {
            c.op.size = stack_size(c);
            stack_segment(c);
            stack::popf
        }
        M::Leave => {
            c.op.size = match c.i.code() {
                Code::Leavew => 2,
                Code::Leaved => 4,
                _ => 8,
            };
            stack_segment(c);
            stack::leave
        }
        M::Enter => {
            c.op.size = match c.i.code() {
                Code::Enterw_imm16_imm8 => 2,
                Code::Enterd_imm16_imm8 => 4,
                _ => 8,
            };
            c.op.imm = c.i.immediate(0) & 0xffff | (c.i.immediate(1) & 31) << 16;
            stack_segment(c);
            stack::enter
        }
        _ => return None,
    })
}

/// Says that the op's only memory access is to the stack.
fn stack_segment(c: &mut Context<'_>) {
    c.op.seg = x86::state::Seg::Ss as u8;
}

fn branches(c: &mut Context<'_>, place: &Place<'_>) -> Choice {
    let long = c.mode == Mode::Long64;
    let direct = matches!(
        c.i.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    ) && c.i.op_count() > 0;
    if direct {
        c.op.imm = c.i.near_branch_target().wrapping_sub(place.block_ip);
        c.op.rep = DIRECT;
        c.op.size = match c.i.op0_kind() {
            OpKind::NearBranch16 => 2,
            OpKind::NearBranch32 => 4,
            _ => 8,
        };
        return direct_branch(c, long);
    }
    indirect_branch(c, long).or_else(|| far_branch(c))
}

fn direct_branch(c: &mut Context<'_>, long: bool) -> Choice {
    let cc = c.i.condition_code();
    Some(match c.i.mnemonic() {
        M::Jmp => {
            if long {
                control::jmp
            } else {
                control::jmp_legacy
            }
        }
        M::Call => {
            stack_segment(c);
            if long { control::call } else { control::call_legacy }
        }
        M::Jcxz => counted(c, 2, control::jrcxz),
        M::Jecxz => counted(c, 4, control::jrcxz),
        M::Jrcxz => counted(c, 8, control::jrcxz),
        M::Loop => counted_by_code(c, control::loop_cc::<0>),
        M::Loope => counted_by_code(c, control::loop_cc::<1>),
        M::Loopne => counted_by_code(c, control::loop_cc::<2>),
        _ if cc == ConditionCode::None => return None,
        _ if long => conditional!(cc as u8 - 1, C => control::jcc::<C>),
        _ => conditional!(cc as u8 - 1, C => control::jcc_legacy::<C>),
    })
}

fn counted(c: &mut Context<'_>, size: u8, run: Handler) -> Handler {
    c.op.address_size = size;
    run
}

/// LOOP's counter is CX, ECX or RCX by the encoding's address size.
fn counted_by_code(c: &mut Context<'_>, run: Handler) -> Handler {
    let bits = c.i.code().op_code().address_size();
    c.op.address_size = (bits / 8) as u8;
    run
}

fn indirect_branch(c: &mut Context<'_>, long: bool) -> Choice {
    let memory = c.kind(0) == Kind::Memory;
    let form = c.form;
    let far = matches!(c.i.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
        && (c.i.is_jmp_far_indirect() || c.i.is_call_far_indirect());
    if far {
        return None;
    }
    match c.i.mnemonic() {
        M::Ret => {
            c.op.imm = if c.i.op_count() == 1 { c.i.immediate(0) } else { 0 };
            c.op.size = match c.i.code() {
                Code::Retnw | Code::Retnw_imm16 => 2,
                Code::Retnd | Code::Retnd_imm16 => 4,
                _ => 8,
            };
            stack_segment(c);
            Some(if long && c.op.size == 8 { control::ret } else { control::ret_legacy })
        }
        M::Jmp | M::Call if c.i.op_count() == 1 && c.kind(0) != Kind::Other => {
            let call = c.i.mnemonic() == M::Call;
            c.op.size = c.size(0);
            if !memory {
                c.op.dst = c.reg(0);
            }
            Some(match (call, memory, long && c.op.size == 8) {
                (false, false, true) => control::jmp_r,
                (false, true, true) => addressed!(form, A => control::jmp_m::<A> as Handler),
                (true, false, true) => control::call_r,
                (true, true, true) => addressed!(form, A => control::call_m::<A> as Handler),
                (false, false, false) => control::jmp_rm_legacy::<false>,
                (false, true, false) => control::jmp_rm_legacy::<true>,
                (true, false, false) => control::call_rm_legacy::<false>,
                (true, true, false) => control::call_rm_legacy::<true>,
            })
        }
        _ => None,
    }
}

fn far_branch(c: &mut Context<'_>) -> Choice {
    let call = c.i.mnemonic() == M::Call;
    Some(match c.i.mnemonic() {
        M::Jmp | M::Call => match c.i.op0_kind() {
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                let wide = c.i.op0_kind() == OpKind::FarBranch32;
                c.op.size = if wide { 4 } else { 2 };
                c.op.imm = if wide {
                    u64::from(c.i.far_branch32())
                } else {
                    u64::from(c.i.far_branch16())
                };
                c.op.disp = i32::from(c.i.far_branch_selector());
                if call {
                    system::far_branch::<true, false>
                } else {
                    system::far_branch::<false, false>
                }
            }
            OpKind::Memory => {
                c.op.size = c.i.memory_size().size() as u8 - 2;
                if call {
                    system::far_branch::<true, true>
                } else {
                    system::far_branch::<false, true>
                }
            }
            _ => return None,
        },
        M::Retf => {
            c.op.imm = if c.i.op_count() == 1 { c.i.immediate(0) } else { 0 };
            c.op.size = match c.i.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            system::far_return
        }
        M::Iret | M::Iretd | M::Iretq => {
            c.op.size = match c.i.mnemonic() {
                M::Iret => 2,
                M::Iretd => 4,
                _ => 8,
            };
            system::iret
        }
        M::Int => {
            c.op.imm = c.i.immediate(0);
            own_step(c, system::int_n)
        }
        M::Int3 => own_step(c, system::int3),
        M::Int1 => own_step(c, system::int1),
        M::Into => own_step(c, system::into),
        M::Bound => {
            (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
            legacy::bound
        }
        M::Syscall => own_step(c, system::syscall),
        M::Sysret | M::Sysretq => {
            c.op.size = if c.i.mnemonic() == M::Sysretq { 8 } else { 4 };
            own_step(c, system::sysret)
        }
        M::Sysenter => system::sysenter,
        M::Sysexit | M::Sysexitq => {
            c.op.size = if c.i.mnemonic() == M::Sysexitq { 8 } else { 4 };
            system::sysexit
        }
        M::Ud0 | M::Ud1 | M::Ud2 => system::undefined,
        _ => return None,
    })
}

fn own_step(c: &mut Context<'_>, run: Handler) -> Handler {
    c.op.rep = OWN_STEP;
    run
}

/// Address size of a string instruction: that of its index register.
fn string_address_size(i: &Instruction) -> u8 {
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => return 2,
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => return 4,
            _ => {}
        }
    }
    8
}

/// The segment of an operand without ModRM. 64-bit mode ignores all prefixes but FS and GS: a stack
/// reference it never is.
fn implicit_segment(c: &Context<'_>) -> u8 {
    match operand::segment(c.i.memory_segment()) {
        0..=3 if c.mode == Mode::Long64 => x86::state::Seg::Ds as u8,
        seg => seg,
    }
}

fn strings(c: &mut Context<'_>) -> Choice {
    if !c.i.is_string_instruction() {
        return None;
    }
    let size = match c.i.mnemonic() {
        M::Movsb | M::Stosb | M::Lodsb | M::Cmpsb | M::Scasb | M::Insb | M::Outsb => 1,
        M::Movsw | M::Stosw | M::Lodsw | M::Cmpsw | M::Scasw | M::Insw | M::Outsw => 2,
        M::Movsd | M::Stosd | M::Lodsd | M::Cmpsd | M::Scasd | M::Insd | M::Outsd => 4,
        _ => 8,
    };
    c.op.address_size = string_address_size(c.i);
    c.op.seg = implicit_segment(c);
    Some(match c.i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => sized!(size, W => string::movs::<W>),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => sized!(size, W => string::stos::<W>),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => sized!(size, W => string::lods::<W>),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => sized!(size, W => string::cmps::<W>),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => sized!(size, W => string::scas::<W>),
        M::Insb | M::Insw | M::Insd => sized!(size, W => string::ins::<W>),
        M::Outsb | M::Outsw | M::Outsd => sized!(size, W => string::outs::<W>),
        _ => return None,
    })
}

fn flag_operations(c: &mut Context<'_>) -> Choice {
    Some(match c.i.mnemonic() {
        M::Clc => data::clc,
        M::Stc => data::stc,
        M::Cmc => data::cmc,
        M::Cld => data::cld,
        M::Std => data::std,
        M::Cli => system::cli,
        M::Sti => system::sti,
        M::Stac => system::set_ac::<true>,
        M::Clac => system::set_ac::<false>,
        _ => return None,
    })
}

/// The variants with a memory or a register operand.
fn either(c: &mut Context<'_>, register: Handler, memory: Handler) -> Handler {
    c.op.size = c.size(0);
    if c.kind(0) == Kind::Register {
        c.op.dst = c.reg(0);
        register
    } else {
        memory
    }
}

fn system_operations(c: &mut Context<'_>) -> Choice {
    Some(match c.i.mnemonic() {
        M::Hlt => system::hlt,
        M::Cpuid => system::cpuid,
        M::Rdtsc => system::rdtsc::<false>,
        M::Rdtscp => system::rdtsc::<true>,
        M::Rdpmc => system::rdpmc,
        M::Rdmsr => system::rdmsr,
        M::Wrmsr => system::wrmsr,
        M::Rdpid => {
            c.op.dst = c.reg(0);
            system::rdpid
        }
        M::Swapgs => system::swapgs,
        M::Clts => system::clts,
        M::Lmsw => either(c, system::lmsw::<false>, system::lmsw::<true>),
        M::Smsw => either(c, system::smsw::<false>, system::smsw::<true>),
        M::Sldt | M::Str => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Str);
            either(c, system::sldt_str::<false>, system::sldt_str::<true>)
        }
        M::Lldt | M::Ltr => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Ltr);
            either(c, system::lldt_ltr::<false>, system::lldt_ltr::<true>)
        }
        M::Verr | M::Verw => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Verw);
            either(c, system::verr_verw::<false>, system::verr_verw::<true>)
        }
        M::Sgdt | M::Sidt => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Sidt);
            system::sgdt_sidt
        }
        M::Lgdt | M::Lidt => {
            c.op.imm = u64::from(c.i.mnemonic() == M::Lidt);
            c.op.size =
                if matches!(c.i.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) { 2 } else { 4 };
            system::lgdt_lidt
        }
        M::Lar | M::Lsl => return Some(lar_lsl(c)),
        M::Arpl => {
            c.op.src = c.reg(1);
            either(c, system::arpl::<false>, system::arpl::<true>)
        }
        M::Les => load_far(c, 0),
        M::Lss => load_far(c, 2),
        M::Lds => load_far(c, 3),
        M::Lfs => load_far(c, 4),
        M::Lgs => load_far(c, 5),
        M::In | M::Out => return Some(port(c)),
        M::Invlpg => system::invlpg,
        M::Invpcid => {
            (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
            system::invpcid
        }
        M::Invd | M::Wbinvd | M::Wbnoinvd => system::cache_control,
        M::Clflush | M::Clflushopt | M::Clwb => system::flush_line,
        M::Lfence | M::Mfence | M::Sfence => system::fence,
        // Also with REX.B, as on Intel's processors.
        M::Pause => system::pause,
        M::Xgetbv => system::xgetbv,
        M::Xsetbv => system::xsetbv,
        M::Rdpkru => system::rdpkru,
        M::Wrpkru => system::wrpkru,
        M::Rdfsbase => base(c, 4, system::read_base),
        M::Rdgsbase => base(c, 5, system::read_base),
        M::Wrfsbase => base(c, 4, system::write_base),
        M::Wrgsbase => base(c, 5, system::write_base),
        _ => return None,
    })
}

fn base(c: &mut Context<'_>, seg: u64, run: Handler) -> Handler {
    (c.op.dst, c.op.size, c.op.imm) = (c.reg(0), c.size(0), seg);
    run
}

fn lar_lsl(c: &mut Context<'_>) -> Handler {
    c.op.imm = u64::from(c.i.mnemonic() == M::Lsl);
    (c.op.dst, c.op.size) = (c.reg(0), c.size(0));
    if c.kind(1) == Kind::Register {
        c.op.src = c.reg(1);
        system::lar_lsl::<false>
    } else {
        system::lar_lsl::<true>
    }
}

fn load_far(c: &mut Context<'_>, seg: u8) -> Handler {
    (c.op.dst, c.op.src, c.op.size) = (c.reg(0), seg, c.size(0));
    system::load_far
}

/// IN and OUT: the accumulator gives the size, the other operand the port.
fn port(c: &mut Context<'_>) -> Handler {
    let input = c.i.mnemonic() == M::In;
    let (data, port) = if input { (0, 1) } else { (1, 0) };
    c.op.size = c.size(data);
    if c.kind(port) == Kind::Immediate {
        c.op.imm = c.i.immediate(port) & 0xff;
        if input { system::input::<false> } else { system::output::<false> }
    } else if input {
        system::input::<true>
    } else {
        system::output::<true>
    }
}
