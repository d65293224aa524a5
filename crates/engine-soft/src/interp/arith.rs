//! Integer arithmetic, logic, shifts, multiplication and division (SDM vol. 2).

use crate::alu::{self, Alu, Destination, Multiply, OF};
use crate::core::Core;
use crate::core::Op;
use crate::op::{Fallible, Step, step};
use crate::word::Word;
use std::marker::PhantomData;
use std::sync::LazyLock;
use x86::addr::Vector;
use x86::bus::AccessKind;
use x86::exception::Exception;
use x86::state::gpr::{RAX, RDX};

/// A two-operand operation.
pub(crate) trait Binary {
    /// False for CMP and TEST.
    const WRITES: bool = true;
    /// Performs it.
    fn apply<W: Alu>(a: W, b: W, f: &mut u16) -> W;
}

/// A one-operand operation.
pub(crate) trait Unary {
    /// Performs it.
    fn apply<W: Alu>(a: W, f: &mut u16) -> W;
}

/// A shift or rotate.
pub(crate) trait Shift {
    /// Performs it; `count` unmasked, the host masks.
    fn apply<W: Alu>(a: W, count: u8, f: &mut u16) -> W;
    /// Whether the host leaves OF where the count is an immediate above 1
    /// ([`alu::immediate_keeps_of`]).
    fn keeps_of(destination: Destination) -> bool;
}

macro_rules! binary {
    ($($name:ident $method:ident $writes:literal,)*) => {$(
        pub(crate) struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<W: Alu>(a: W, b: W, f: &mut u16) -> W {
                a.$method(b, f)
            }
        }
    )*};
}

binary! {
    Add add true, Or or true, Adc adc true, Sbb sbb true, And and true, Sub sub true, Xor xor true,
    Cmp sub false, Test and false,
}

macro_rules! unary {
    ($($name:ident $method:ident,)*) => {$(
        pub(crate) struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<W: Alu>(a: W, f: &mut u16) -> W {
                a.$method(f)
            }
        }
    )*};
}

unary! { Inc inc, Dec dec, Neg neg, }

/// NOT, which leaves the flags.
pub(crate) struct Not;
impl Unary for Not {
    #[inline(always)]
    fn apply<W: Alu>(a: W, _: &mut u16) -> W {
        W::cut(!a.zext())
    }
}

macro_rules! shift {
    ($($name:ident $method:ident,)*) => {$(
        pub(crate) struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn apply<W: Alu>(a: W, count: u8, f: &mut u16) -> W {
                a.$method(count, f)
            }
            fn keeps_of(destination: Destination) -> bool {
                static KNOWN: LazyLock<[bool; 2]> = LazyLock::new(|| {
                    [Destination::Register, Destination::Memory].map(|destination| {
                        let shift = |a, f: &mut u16| alu::by_immediate::$method(a, f, destination);
                        alu::immediate_keeps_of(shift)
                    })
                });
                KNOWN[usize::from(destination == Destination::Memory)]
            }
        }
    )*};
}

/// `O` by an immediate above 1, on a host that leaves OF unchanged there (but not for a count in
/// CL). Translated code does the same on that host, and Intel's processors do it for rotations of
/// registers.
pub(crate) struct Keeping<O>(PhantomData<O>);
impl<O: Shift> Shift for Keeping<O> {
    #[inline(always)]
    fn apply<W: Alu>(a: W, count: u8, f: &mut u16) -> W {
        let overflow = *f & OF;
        let result = O::apply(a, count, f);
        *f = *f & !OF | overflow;
        result
    }
    fn keeps_of(_: Destination) -> bool {
        true
    }
}

shift! { Rol rol, Ror ror, Rcl rcl, Rcr rcr, Shl shl, Shr shr, Sar sar, }

/// `op dst, src`, registers.
pub(crate) fn rr<W: Alu, O: Binary>(core: &mut Core, op: &Op) -> Step {
    let r = O::apply::<W>(core.reg(op.dst), core.reg(op.src), &mut core.state.flags.arith);
    if O::WRITES {
        core.set_reg::<W>(op.dst, r);
    }
    Step::Next
}

/// `op dst, imm`.
pub(crate) fn ri<W: Alu, O: Binary>(core: &mut Core, op: &Op) -> Step {
    let r = O::apply::<W>(core.reg(op.dst), W::cut(op.imm), &mut core.state.flags.arith);
    if O::WRITES {
        core.set_reg::<W>(op.dst, r);
    }
    Step::Next
}

/// `op dst, [mem]`.
pub(crate) fn rm<W: Alu, O: Binary, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let b = core.load::<W>(la)?;
        let r = O::apply::<W>(core.reg(op.dst), b, &mut core.state.flags.arith);
        if O::WRITES {
            core.set_reg::<W>(op.dst, r);
        }
        Ok(())
    };
    step(body(core))
}

/// `op [mem], src`.
pub(crate) fn mr<W: Alu, O: Binary, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let b = core.reg::<W>(op.src);
    step(memory::<W, O, A>(core, op, b))
}

/// `op [mem], imm`.
pub(crate) fn mi<W: Alu, O: Binary, const A: u8>(core: &mut Core, op: &Op) -> Step {
    step(memory::<W, O, A>(core, op, W::cut(op.imm)))
}

#[inline(always)]
fn memory<W: Alu, O: Binary, const A: u8>(core: &mut Core, op: &Op, b: W) -> Fallible {
    if O::WRITES {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        core.modify::<W>(la, |state, a| O::apply(a, b, &mut state.flags.arith))
    } else {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let a = core.load::<W>(la)?;
        O::apply(a, b, &mut core.state.flags.arith);
        Ok(())
    }
}

/// `op dst`.
pub(crate) fn r1<W: Alu, O: Unary>(core: &mut Core, op: &Op) -> Step {
    let r = O::apply::<W>(core.reg(op.dst), &mut core.state.flags.arith);
    core.set_reg::<W>(op.dst, r);
    Step::Next
}

/// `op [mem]`.
pub(crate) fn m1<W: Alu, O: Unary, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        core.modify::<W>(la, |state, a| O::apply(a, &mut state.flags.arith))
    };
    step(body(core))
}

/// Shift count: CL if `BY_CL`, else the immediate.
#[inline(always)]
fn count<const BY_CL: bool>(core: &Core, op: &Op) -> u8 {
    if BY_CL { core.reg::<u8>(1) } else { op.imm as u8 }
}

/// Shift of a register.
pub(crate) fn shift_r<W: Alu, O: Shift, const BY_CL: bool>(core: &mut Core, op: &Op) -> Step {
    let n = count::<BY_CL>(core, op);
    let r = O::apply::<W>(core.reg(op.dst), n, &mut core.state.flags.arith);
    core.set_reg::<W>(op.dst, r);
    Step::Next
}

/// Shift in memory.
pub(crate) fn shift_m<W: Alu, O: Shift, const BY_CL: bool, const A: u8>(
    core: &mut Core,
    op: &Op,
) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let n = count::<BY_CL>(core, op);
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Write)?;
        core.modify::<W>(la, |state, a| O::apply(a, n, &mut state.flags.arith))
    };
    step(body(core))
}

/// IMUL dst, src.
pub(crate) fn imul_rr<W: Multiply>(core: &mut Core, op: &Op) -> Step {
    let r = core.reg::<W>(op.dst).imul(core.reg(op.src), &mut core.state.flags.arith);
    core.set_reg::<W>(op.dst, r);
    Step::Next
}

/// IMUL dst, src, imm.
pub(crate) fn imul_rri<W: Multiply>(core: &mut Core, op: &Op) -> Step {
    let r = core.reg::<W>(op.src).imul(W::cut(op.imm), &mut core.state.flags.arith);
    core.set_reg::<W>(op.dst, r);
    Step::Next
}

/// IMUL dst, [mem].
pub(crate) fn imul_rm<W: Multiply, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let b = core.load::<W>(la)?;
        let r = core.reg::<W>(op.dst).imul(b, &mut core.state.flags.arith);
        core.set_reg::<W>(op.dst, r);
        Ok(())
    };
    step(body(core))
}

/// IMUL dst, [mem], imm.
pub(crate) fn imul_rmi<W: Multiply, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let b = core.load::<W>(la)?;
        let r = b.imul(W::cut(op.imm), &mut core.state.flags.arith);
        core.set_reg::<W>(op.dst, r);
        Ok(())
    };
    step(body(core))
}

/// What the one-operand forms do with the accumulator.
pub(crate) trait Accumulate {
    /// Performs it.
    fn apply<W: Multiply>(core: &mut Core, b: W) -> Fallible;
}

pub(crate) struct Mul;
pub(crate) struct Imul;
pub(crate) struct Div;
pub(crate) struct Idiv;

impl Accumulate for Mul {
    fn apply<W: Multiply>(core: &mut Core, b: W) -> Fallible {
        let (low, high) = core.reg::<W>(0).mul_wide(b, &mut core.state.flags.arith);
        set_wide(core, low, high);
        Ok(())
    }
}

impl Accumulate for Imul {
    fn apply<W: Multiply>(core: &mut Core, b: W) -> Fallible {
        let (low, high) = core.reg::<W>(0).imul_wide(b, &mut core.state.flags.arith);
        set_wide(core, low, high);
        Ok(())
    }
}

impl Accumulate for Div {
    fn apply<W: Multiply>(core: &mut Core, b: W) -> Fallible {
        let dividend = wide(core, W::BITS);
        let divisor = u128::from(b.zext());
        if divisor == 0 || (dividend / divisor) >> W::BITS != 0 {
            return core.raise(Exception::plain(Vector::DE));
        }
        let (q, r) = (dividend / divisor, dividend % divisor);
        set_wide::<W>(core, W::cut(q as u64), W::cut(r as u64));
        Ok(())
    }
}

impl Accumulate for Idiv {
    fn apply<W: Multiply>(core: &mut Core, b: W) -> Fallible {
        let spare = 128 - 2 * W::BITS;
        let dividend = (wide(core, W::BITS) << spare) as i128 >> spare;
        let divisor = i128::from(b.sext() as i64);
        let (Some(q), Some(r)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
        else {
            return core.raise(Exception::plain(Vector::DE));
        };
        if q << (128 - W::BITS) >> (128 - W::BITS) != q {
            return core.raise(Exception::plain(Vector::DE));
        }
        set_wide::<W>(core, W::cut(q as u64), W::cut(r as u64));
        Ok(())
    }
}

/// rDX:rAX, or AX for bytes.
fn wide(core: &Core, bits: u32) -> u128 {
    let (a, d) = (core.state.gpr[RAX], core.state.gpr[RDX]);
    match bits {
        8 => u128::from(a as u16),
        16 => u128::from(d as u16) << 16 | u128::from(a as u16),
        32 => u128::from(d as u32) << 32 | u128::from(a as u32),
        _ => u128::from(d) << 64 | u128::from(a),
    }
}

/// Sets rAX and rDX, or AL and AH for bytes.
fn set_wide<W: Word>(core: &mut Core, low: W, high: W) {
    core.set_reg::<W>(0, low);
    core.set_reg::<W>(if W::SIZE == 1 { crate::word::HIGH_BYTE } else { 2 }, high);
}

/// MUL, IMUL, DIV, IDIV by a register.
pub(crate) fn acc_r<W: Multiply, O: Accumulate>(core: &mut Core, op: &Op) -> Step {
    let b = core.reg::<W>(op.dst);
    step(O::apply(core, b))
}

/// MUL, IMUL, DIV, IDIV by memory.
pub(crate) fn acc_m<W: Multiply, O: Accumulate, const A: u8>(core: &mut Core, op: &Op) -> Step {
    let body = |core: &mut Core| -> Fallible {
        let la = core.linear::<A>(op, u64::from(W::SIZE), AccessKind::Read)?;
        let b = core.load::<W>(la)?;
        O::apply(core, b)
    };
    step(body(core))
}

/// CBW, CWDE, CDQE: sign-extends the half of rAX to `op.size` bytes.
pub(crate) fn extend_a(core: &mut Core, op: &Op) -> Step {
    match op.size {
        2 => core.set_reg::<u16>(0, core.reg::<u8>(0).sext() as u16),
        4 => core.set_reg::<u32>(0, core.reg::<u16>(0).sext() as u32),
        _ => core.set_reg::<u64>(0, core.reg::<u32>(0).sext()),
    }
    Step::Next
}

/// CWD, CDQ, CQO: fills rDX with the sign of rAX.
pub(crate) fn extend_d(core: &mut Core, op: &Op) -> Step {
    match op.size {
        2 => core.set_reg::<u16>(2, (core.reg::<u16>(0) as i16 >> 15) as u16),
        4 => core.set_reg::<u32>(2, (core.reg::<u32>(0) as i32 >> 31) as u32),
        _ => core.set_reg::<u64>(2, (core.reg::<u64>(0) as i64 >> 63) as u64),
    }
    Step::Next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alu::CF;

    #[test]
    fn a_rotate_that_keeps_of_changes_the_rest() {
        for overflow in [0, OF] {
            let mut flags = 0x200 | overflow;
            assert_eq!(Keeping::<Rol>::apply(0x8800_0000u32, 5, &mut flags), 0x11);
            assert_eq!(flags & (OF | CF), overflow | CF);
        }
    }

    #[test]
    fn what_the_host_keeps_is_told_from_what_it_gives() {
        fn keeps(value: u32, _: &mut u16) -> u32 {
            value
        }
        fn gives(value: u32, flags: &mut u16) -> u32 {
            *flags &= !OF;
            value
        }
        assert!(alu::immediate_keeps_of(keeps));
        assert!(!alu::immediate_keeps_of(gives));
    }
}
