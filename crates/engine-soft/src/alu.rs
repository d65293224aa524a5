//! Integer arithmetic on the host's own ALU, flags included.
//!
//! Guest ISA = host ISA: instead of computing six flags lazily in software, each operation runs as
//! itself and LAHF;SETO AL catch the flags in AX, the form [`x86::state::Flags::arith`] keeps (ADR
//! 0002). Undefined flags thereby come out as this processor leaves them.
#![allow(unsafe_code)] // inline assembly on registers only: no memory, no stack

use crate::word::Word;
use core::arch::asm;

/// CF in `Flags::arith`.
pub(crate) const CF: u16 = 0x0100;
/// PF in `Flags::arith`.
pub(crate) const PF: u16 = 0x0400;
/// ZF in `Flags::arith`.
pub(crate) const ZF: u16 = 0x4000;
/// SF in `Flags::arith`.
pub(crate) const SF: u16 = 0x8000;
/// OF in `Flags::arith`.
pub(crate) const OF: u16 = 0x0001;

/// The operations of one operand width. `f` is `Flags::arith`.
#[allow(clippy::missing_docs_in_private_items)]
pub(crate) trait Alu: Word {
    fn add(self, b: Self, f: &mut u16) -> Self;
    fn or(self, b: Self, f: &mut u16) -> Self;
    fn adc(self, b: Self, f: &mut u16) -> Self;
    fn sbb(self, b: Self, f: &mut u16) -> Self;
    fn and(self, b: Self, f: &mut u16) -> Self;
    fn sub(self, b: Self, f: &mut u16) -> Self;
    fn xor(self, b: Self, f: &mut u16) -> Self;
    fn inc(self, f: &mut u16) -> Self;
    fn dec(self, f: &mut u16) -> Self;
    fn neg(self, f: &mut u16) -> Self;
    fn rol(self, count: u8, f: &mut u16) -> Self;
    fn ror(self, count: u8, f: &mut u16) -> Self;
    fn rcl(self, count: u8, f: &mut u16) -> Self;
    fn rcr(self, count: u8, f: &mut u16) -> Self;
    fn shl(self, count: u8, f: &mut u16) -> Self;
    fn shr(self, count: u8, f: &mut u16) -> Self;
    fn sar(self, count: u8, f: &mut u16) -> Self;
}

/// `op a, b` with all flags written.
macro_rules! binary {
    ($name:ident, $class:ident, $m:literal, $insn:literal) => {
        #[inline(always)]
        fn $name(mut self, b: Self, f: &mut u16) -> Self {
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!(concat!($insn, " {a", $m, "}, {b", $m, "}"), "lahf", "seto al",
                    a = inout($class) self, b = in($class) b, out("ax") *f,
                    options(pure, nomem, nostack));
            }
            self
        }
    };
}

/// `op a, b` that leaves some flags as they were on some processors (undefined by the manual).
macro_rules! binary_over {
    ($name:ident, $class:ident, $m:literal, $insn:literal) => {
        #[inline(always)]
        fn $name(mut self, b: Self, f: &mut u16) -> Self {
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!("add al, 0x7f", "sahf",
                    concat!($insn, " {a", $m, "}, {b", $m, "}"),
                    "lahf", "seto al",
                    a = inout($class) self, b = in($class) b, inout("ax") *f,
                    options(pure, nomem, nostack));
            }
            self
        }
    };
}

/// `op a, b` that also reads CF.
macro_rules! with_carry {
    ($name:ident, $class:ident, $m:literal, $insn:literal) => {
        #[inline(always)]
        fn $name(mut self, b: Self, f: &mut u16) -> Self {
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!("bt eax, 8", concat!($insn, " {a", $m, "}, {b", $m, "}"), "lahf", "seto al",
                    a = inout($class) self, b = in($class) b, inout("ax") *f,
                    options(pure, nomem, nostack));
            }
            self
        }
    };
}

/// `op a`; CF survives if `$keep` masks it in from before.
macro_rules! unary {
    ($name:ident, $class:ident, $m:literal, $insn:literal, $keep:expr) => {
        #[inline(always)]
        fn $name(mut self, f: &mut u16) -> Self {
            let after: u16;
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!(concat!($insn, " {a", $m, "}"), "lahf", "seto al",
                    a = inout($class) self, out("ax") after, options(pure, nomem, nostack));
            }
            *f = (after & !$keep) | (*f & $keep);
            self
        }
    };
}

/// `op a, cl`: flags in and out, since a zero count leaves them and rotates touch only two.
macro_rules! shift {
    ($name:ident, $class:ident, $m:literal, $insn:literal) => {
        #[inline(always)]
        fn $name(mut self, count: u8, f: &mut u16) -> Self {
            // SAFETY: registers only. `add al, 7fh` sets OF exactly if AL is 1.
            unsafe {
                asm!("add al, 0x7f", "sahf", concat!($insn, " {a", $m, "}, cl"), "lahf", "seto al",
                    a = inout($class) self, in("cl") count, inout("ax") *f,
                    options(pure, nomem, nostack));
            }
            self
        }
    };
}

macro_rules! alu {
    ($t:ty, $class:ident, $m:literal) => {
        impl Alu for $t {
            binary!(add, $class, $m, "add");
            binary!(or, $class, $m, "or");
            with_carry!(adc, $class, $m, "adc");
            with_carry!(sbb, $class, $m, "sbb");
            binary!(and, $class, $m, "and");
            binary!(sub, $class, $m, "sub");
            binary!(xor, $class, $m, "xor");
            unary!(inc, $class, $m, "inc", CF);
            unary!(dec, $class, $m, "dec", CF);
            unary!(neg, $class, $m, "neg", 0);
            shift!(rol, $class, $m, "rol");
            shift!(ror, $class, $m, "ror");
            shift!(rcl, $class, $m, "rcl");
            shift!(rcr, $class, $m, "rcr");
            shift!(shl, $class, $m, "shl");
            shift!(shr, $class, $m, "shr");
            shift!(sar, $class, $m, "sar");
        }
    };
}

alu!(u8, reg_byte, "");
alu!(u16, reg, ":x");
alu!(u32, reg, ":e");
alu!(u64, reg, ":r");

/// What an instruction changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Register,
    Memory,
}

/// Shifts of a register or of memory by an immediate count of 5, as translated code performs them.
pub(crate) mod by_immediate {
    use super::{Destination, asm};

    macro_rules! five {
        ($($name:ident $insn:literal,)*) => {$(
            pub(crate) fn $name(mut a: u32, f: &mut u16, destination: Destination) -> u32 {
                match destination {
                    // SAFETY: the text uses the registers it names and no memory or stack.
                    Destination::Register => unsafe {
                        asm!("add al, 0x7f", "sahf", concat!($insn, " {a:e}, 5"), "lahf", "seto al",
                            a = inout(reg) a, inout("ax") *f, options(pure, nomem, nostack));
                    },
                    // SAFETY: the text uses the registers it names, no stack, and of memory the
                    // word that `a` is, which this function owns.
                    Destination::Memory => unsafe {
                        asm!("add al, 0x7f", "sahf", concat!($insn, " dword ptr [{a}], 5"),
                            "lahf", "seto al",
                            a = in(reg) &raw mut a, inout("ax") *f, options(nostack));
                    },
                }
                a
            }
        )*};
    }

    five! { rol "rol", ror "ror", rcl "rcl", rcr "rcr", shl "shl", shr "shr", sar "sar", }
}

/// Whether `shift` leaves OF as it was, which the manual does not define: Intel's processors do
/// where they rotate a register, AMD's give OF as for a count of 1.
pub(crate) fn immediate_keeps_of(shift: impl Fn(u32, &mut u16) -> u32) -> bool {
    [0x4000_0001, 0xc000_0001, 0x0f00_0010, 0, u32::MAX].into_iter().all(|value| {
        [0, OF].into_iter().all(|overflow| {
            let mut flags = 0x200 | overflow;
            shift(value, &mut flags);
            flags & OF == overflow
        })
    })
}

/// Multiplication, with the host's flags.
pub(crate) trait Multiply: Alu {
    /// IMUL r, r/m: the low half.
    fn imul(self, b: Self, f: &mut u16) -> Self;
    /// MUL: (low, high).
    fn mul_wide(self, b: Self, f: &mut u16) -> (Self, Self);
    /// IMUL with one operand: (low, high).
    fn imul_wide(self, b: Self, f: &mut u16) -> (Self, Self);
}

macro_rules! wide {
    ($name:ident, $insn:literal, $m:literal, $a:tt, $d:tt) => {
        #[inline(always)]
        fn $name(self, b: Self, f: &mut u16) -> (Self, Self) {
            let (low, high, flags): (Self, Self, Self);
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!("add al, 0x7f", "sahf",
                    concat!("mov ", $a, ", {a", $m, "}"), concat!($insn, " {b", $m, "}"),
                    concat!("mov {lo", $m, "}, ", $a), "lahf", "seto al",
                    a = in(reg) self, b = in(reg) b, lo = lateout(reg) low,
                    inout($a) Self::cut(u64::from(*f)) => flags,
                    lateout($d) high, options(pure, nomem, nostack));
            }
            *f = flags as u16;
            (low, high)
        }
    };
}

macro_rules! multiply {
    ($t:ty, $m:literal, $a:tt, $d:tt) => {
        impl Multiply for $t {
            binary_over!(imul, reg, $m, "imul");
            wide!(mul_wide, "mul", $m, $a, $d);
            wide!(imul_wide, "imul", $m, $a, $d);
        }
    };
}

multiply!(u16, ":x", "ax", "dx");
multiply!(u32, ":e", "eax", "edx");
multiply!(u64, ":r", "rax", "rdx");

macro_rules! wide_byte {
    ($name:ident, $insn:literal) => {
        #[inline(always)]
        fn $name(self, b: Self, f: &mut u16) -> (Self, Self) {
            let product: u16;
            // SAFETY: the assembly text uses the registers it names and no memory or stack.
            unsafe {
                asm!("add al, 0x7f", "sahf",
                    "mov al, {a}", concat!($insn, " {b}"), "mov {p:x}, ax",
                    "lahf", "seto al",
                    a = in(reg_byte) self, b = in(reg_byte) b, p = out(reg) product, inout("ax") *f,
                    options(pure, nomem, nostack));
            }
            (product as u8, (product >> 8) as u8)
        }
    };
}

impl Multiply for u8 {
    fn imul(self, b: Self, f: &mut u16) -> Self {
        self.imul_wide(b, f).0
    }
    wide_byte!(mul_wide, "mul");
    wide_byte!(imul_wide, "imul");
}
