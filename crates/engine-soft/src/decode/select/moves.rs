//! Moves, conditional moves, and the flags that are moved or set directly.

use super::context::{Choice, implicit_segment};
use super::context::{Context, Kind, addressed, conditional, sized};
use crate::core::Handler;
use crate::decode::operand;
use crate::interp::system::{self, flags, registers, segments};
use crate::interp::{data, stack};
use iced_x86::{Code, ConditionCode, Mnemonic as M, OpCodeTableKind, Register};
use x86::state::Mode;

pub(super) fn select(c: &mut Context<'_>) -> Choice {
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
        return Some(conditional!(cc, C =>
            sized!(size, W => addressed!(form, A => data::cmov_rm::<W, C, A> as Handler))));
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
            return Some(segments::mov_seg::<true>);
        }
        c.op.src = c.reg(1);
        return Some(segments::mov_seg::<false>);
    }
    c.op.size = long;
    if to.is_cr() || to.is_dr() {
        c.op.dst = to.number() as u8;
        c.op.src = c.reg(1);
        return Some(if to.is_cr() { registers::mov_to_cr } else { registers::mov_to_dr });
    }
    let from = c.i.op1_register();
    c.op.dst = c.reg(0);
    c.op.src = from.number() as u8;
    Some(if from.is_cr() {
        registers::mov_from_cr
    } else if from.is_dr() {
        registers::mov_from_dr
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

pub(super) fn flag_operations(c: &mut Context<'_>) -> Choice {
    Some(match c.i.mnemonic() {
        M::Clc => data::clc,
        M::Stc => data::stc,
        M::Cmc => data::cmc,
        M::Cld => data::cld,
        M::Std => data::std,
        M::Cli => flags::cli,
        M::Sti => flags::sti,
        M::Stac => flags::set_ac::<true>,
        M::Clac => flags::set_ac::<false>,
        _ => return None,
    })
}
