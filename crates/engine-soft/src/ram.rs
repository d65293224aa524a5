//! Raw access to guest RAM through host pointers.
//!
//! Guest memory is shared with other processors, devices and the guest's own code cache: every
//! access is volatile, so the compiler neither invents, drops, tears nor reorders any, and the
//! host's memory order is the guest's (same ISA).
#![allow(unsafe_code)] // the engine's loads and stores; see docs/UNSAFE.md

use crate::word::Word;

/// A word at any alignment: on x86 one ordinary move.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<W: Copy>(W);

/// Loads a word.
///
/// # Safety
/// `p..p+SIZE` lies in one mapped page run of guest RAM.
#[inline(always)]
pub(crate) unsafe fn load<W: Word>(p: *const u8) -> W {
    // SAFETY: the caller vouches that the word lies in mapped guest RAM, of which no Rust reference
    // exists.
    unsafe { core::ptr::read_volatile(p.cast::<Unaligned<W>>()).0 }
}

/// Stores a word.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub(crate) unsafe fn store<W: Word>(p: *mut u8, value: W) {
    // SAFETY: the caller vouches that the word lies in mapped guest RAM, of which no Rust reference
    // exists.
    unsafe { core::ptr::write_volatile(p.cast::<Unaligned<W>>(), Unaligned(value)) }
}

/// Replaces the word at `p` by `new` if it is `old`, and tells whether it was: the host's LOCK
/// CMPXCHG, at any alignment.
///
/// # Safety
/// As [`load`].
pub(crate) unsafe fn compare_exchange<W: Word>(p: *mut u8, old: W, new: W) -> bool {
    macro_rules! exchange {
        ($new:literal) => {{
            let done: u8;
            core::arch::asm!(concat!("lock cmpxchg [{p}], ", $new), "sete {done}", p = in(reg) p,
                done = out(reg_byte) done, inout("rax") old.zext() => _, in("rcx") new.zext(),
                options(nostack));
            done != 0
        }};
    }
    // SAFETY: the caller vouches for a word of guest RAM at `p`; the instruction touches no other
    // memory.
    unsafe {
        match W::SIZE {
            1 => exchange!("cl"),
            2 => exchange!("cx"),
            4 => exchange!("ecx"),
            _ => exchange!("rcx"),
        }
    }
}

/// Copies `count` words from `from` upwards, as the host's MOVS of this size does: whole words, one
/// after the other, also where the ranges overlap.
///
/// # Safety
/// Both ranges lie in guest RAM.
pub(crate) unsafe fn copy_up<W: Word>(from: *const u8, to: *mut u8, count: usize) {
    macro_rules! copy {
        ($repeated:literal) => {
            core::arch::asm!($repeated, inout("rcx") count => _, inout("rsi") from => _,
                inout("rdi") to => _, options(nostack, preserves_flags))
        };
    }
    // SAFETY: the caller vouches for both ranges of guest RAM; the instruction touches no other
    // memory.
    unsafe {
        match W::SIZE {
            1 => copy!("rep movsb"),
            2 => copy!("rep movsw"),
            4 => copy!("rep movsd"),
            _ => copy!("rep movsq"),
        }
    }
}

/// Fills `count` words from `to` upwards.
///
/// # Safety
/// The range lies in guest RAM.
pub(crate) unsafe fn fill<W: Word>(to: *mut u8, value: W, count: usize) {
    macro_rules! store {
        ($repeated:literal) => {
            core::arch::asm!($repeated, inout("rcx") count => _, inout("rdi") to => _,
                in("rax") value.zext(), options(nostack, preserves_flags))
        };
    }
    // SAFETY: the caller vouches that the range is guest RAM; the instruction writes no other
    // memory.
    unsafe {
        match W::SIZE {
            1 => store!("rep stosb"),
            2 => store!("rep stosw"),
            4 => store!("rep stosd"),
            _ => store!("rep stosq"),
        }
    }
}

/// How words compare as long as a repeated comparison goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum While {
    Equal,
    Unequal,
}

/// Runs the host's repeated `$string` of words of `$size` bytes from `$first` (which SCAS does
/// without) and `$second` upwards; how many comparisons it made.
macro_rules! comparisons {
    ($string:literal, $size:expr, $still:expr, $count:ident, $first:expr, $second:expr,
        $value:expr) => {{
        macro_rules! run {
            ($repeat:literal, $suffix:literal) => {{
                let left: usize;
                core::arch::asm!(concat!($repeat, $string, $suffix), inout("rcx") $count => left,
                    inout("rsi") $first => _, inout("rdi") $second => _, in("rax") $value,
                    options(nostack, readonly));
                $count - left
            }};
        }
        match ($size, $still) {
            (1, While::Equal) => run!("repe ", "b"),
            (2, While::Equal) => run!("repe ", "w"),
            (4, While::Equal) => run!("repe ", "d"),
            (_, While::Equal) => run!("repe ", "q"),
            (1, While::Unequal) => run!("repne ", "b"),
            (2, While::Unequal) => run!("repne ", "w"),
            (4, While::Unequal) => run!("repne ", "d"),
            (_, While::Unequal) => run!("repne ", "q"),
        }
    }};
}

/// Compares words at `a` and `b` upwards, `count` at the most, up to the first pair that is not as
/// `still` says: how many pairs that was.
///
/// # Safety
/// `count` words at either lie in guest RAM.
pub(crate) unsafe fn compare<W: Word>(
    a: *const u8,
    b: *const u8,
    count: usize,
    still: While,
) -> usize {
    // SAFETY: the caller vouches for `count` words of guest RAM at `a` and at `b`; nothing is
    // written.
    unsafe { comparisons!("cmps", W::SIZE, still, count, a, b, 0) }
}

/// As [`compare`], with `value` instead of words at `a`.
///
/// # Safety
/// `count` words at `b` lie in guest RAM.
pub(crate) unsafe fn scan<W: Word>(value: W, b: *const u8, count: usize, still: While) -> usize {
    // SAFETY: the caller vouches for `count` words of guest RAM at `b`; nothing is written.
    unsafe { comparisons!("scas", W::SIZE, still, count, b, b, value.zext()) }
}
