//! Atomic read-modify-write across host threads: LOCKed operations that no thunk performs.
//!
//! Aligned words on one page change by compare-exchange, which every other access observes. What crosses a page or is no RAM
//! cannot be made atomic from here: one process-wide lock serializes such operations among themselves (as a split lock serializes the bus).
#![allow(unsafe_code)] // atomics on host pointers; see docs/UNSAFE.md

use crate::cpu::Cpu;
use crate::op::Fallible;
use crate::word::Word;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use x86::bus::AccessKind;

static SPLIT: Mutex<()> = Mutex::new(());

/// Held while a locked operation goes through a bounce buffer.
pub(crate) fn split_lock() -> MutexGuard<'static, ()> {
    SPLIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes the word at `la` atomically. `change` may run several times; the flags of its last run count.
pub(crate) fn modify<W: Word>(
    cpu: &mut Cpu,
    la: u64,
    mut change: impl FnMut(W, &mut u16) -> W,
) -> Fallible {
    cpu.aligned(la, u64::from(W::SIZE), u64::from(W::SIZE))?;
    let privilege = cpu.privilege();
    let place = cpu.mmu.pin(la, u64::from(W::SIZE), AccessKind::Write, privilege);
    let place = cpu.check(place)?;
    match place {
        Some((host, gpa)) if (host as u64).is_multiple_of(u64::from(W::SIZE)) => {
            let before = cpu.state.flags.arith;
            let flags = loop {
                // SAFETY: aligned RAM that `pin` vouches for.
                let old = unsafe { load::<W>(host) };
                let mut flags = before;
                let new = change(old, &mut flags);
                // SAFETY: as above.
                if unsafe { exchange::<W>(host, old, new) } {
                    break flags;
                }
            };
            cpu.state.flags.arith = flags;
            cpu.mmu.wrote(gpa, u64::from(W::SIZE));
            Ok(())
        }
        _ => {
            let _serialized = split_lock();
            cpu.modify::<W>(la, |state, old| change(old, &mut state.flags.arith))
        }
    }
}

unsafe fn load<W: Word>(p: *mut u8) -> W {
    // SAFETY: the caller's.
    unsafe { crate::ram::load(p) }
}

unsafe fn exchange<W: Word>(p: *mut u8, old: W, new: W) -> bool {
    let (old, new, order) = (old.zext(), new.zext(), Ordering::SeqCst);
    // SAFETY: the caller's: aligned, mapped, shared only by atomic and volatile accesses.
    unsafe {
        match W::SIZE {
            1 => AtomicU8::from_ptr(p).compare_exchange(old as u8, new as u8, order, order).is_ok(),
            2 => AtomicU16::from_ptr(p.cast())
                .compare_exchange(old as u16, new as u16, order, order)
                .is_ok(),
            4 => AtomicU32::from_ptr(p.cast())
                .compare_exchange(old as u32, new as u32, order, order)
                .is_ok(),
            _ => AtomicU64::from_ptr(p.cast()).compare_exchange(old, new, order, order).is_ok(),
        }
    }
}
