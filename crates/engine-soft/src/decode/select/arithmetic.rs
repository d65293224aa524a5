//! Integer arithmetic, shifts, decimal adjustments and bit tests.

use super::context::Choice;
use super::context::{Context, Kind, addressed, sized};
use crate::alu::Destination;
use crate::core::Handler;
use crate::interp::{arith, bits, legacy};
use iced_x86::Mnemonic as M;

pub(super) fn select(c: &mut Context<'_>) -> Choice {
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
    let destination = match c.kind(0) {
        Kind::Register => Destination::Register,
        _ => Destination::Memory,
    };
    Some(if count > 1 && O::keeps_of(destination) {
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

pub(super) fn bit_tests(c: &mut Context<'_>) -> Choice {
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
