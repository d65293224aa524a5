//! Raw access to guest RAM through host pointers.
//!
//! Guest memory is shared with other processors, devices and the guest's own code cache: every access is volatile, so
//! the compiler neither invents, drops, tears nor reorders any, and the host's memory order is the guest's (same ISA).
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
    // SAFETY: the caller's.
    unsafe { core::ptr::read_volatile(p.cast::<Unaligned<W>>()).0 }
}

/// Stores a word.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub(crate) unsafe fn store<W: Word>(p: *mut u8, value: W) {
    // SAFETY: the caller's.
    unsafe { core::ptr::write_volatile(p.cast::<Unaligned<W>>(), Unaligned(value)) }
}

/// Copies `len` bytes upwards, as REP MOVSB would when the ranges overlap harmlessly (destination below the source, or apart).
///
/// # Safety
/// Both ranges lie in guest RAM.
pub(crate) unsafe fn copy_up(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's. `rep movsb` is the host's own string copy: element by element, upwards.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Fills `count` words from `to` upwards.
///
/// # Safety
/// The range lies in guest RAM.
pub(crate) unsafe fn fill<W: Word>(to: *mut u8, value: W, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        match W::SIZE {
            1 => {
                core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("rax") value.zext(), options(nostack, preserves_flags));
            }
            2 => {
                core::arch::asm!("rep stosw", inout("rcx") count => _, inout("rdi") to => _, in("rax") value.zext(), options(nostack, preserves_flags));
            }
            4 => {
                core::arch::asm!("rep stosd", inout("rcx") count => _, inout("rdi") to => _, in("rax") value.zext(), options(nostack, preserves_flags));
            }
            _ => {
                core::arch::asm!("rep stosq", inout("rcx") count => _, inout("rdi") to => _, in("rax") value.zext(), options(nostack, preserves_flags));
            }
        }
    }
}
