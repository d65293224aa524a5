//! Atomic read-modify-write across host threads: LOCKed operations that no thunk performs.
//!
//! Aligned words on one page change by compare-exchange, which every other access observes. What
//! crosses a page or is no RAM cannot be made atomic from here. Those in RAM are serialized among
//! themselves by one lock of the machine's (as a split lock serializes the bus); one that touches a
//! device is as atomic as the device makes it.
#![allow(unsafe_code)] // atomics on host pointers; see docs/UNSAFE.md

use crate::core::Core;
use crate::op::Fallible;
use crate::word::Word;
use memory::SplitLock;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use x86::bus::AccessKind;

/// To be held while a locked operation on `len` bytes at `la`, two pages at the most, goes through
/// a bounce buffer. `None`: part of it is a device's, which may take its time.
pub(crate) fn split_lock(core: &mut Core, la: u64, len: u64) -> Fallible<Option<SplitLock>> {
    let privilege = core.privilege();
    for at in [la, core.mmu.wrap(la, la.wrapping_add(len - 1), privilege)] {
        let place = core.mmu.pin(at, 1, AccessKind::Write, privilege);
        if core.check(place)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(core.mmu.split_lock()))
}

/// Changes the word at `la` atomically. `change` may run several times; the flags of its last run
/// count.
pub(crate) fn modify<W: Word>(
    core: &mut Core,
    la: u64,
    mut change: impl FnMut(W, &mut u16) -> W,
) -> Fallible {
    core.aligned(la, u64::from(W::SIZE), u64::from(W::SIZE))?;
    let privilege = core.privilege();
    let place = core.mmu.pin(la, u64::from(W::SIZE), AccessKind::Write, privilege);
    let place = core.check(place)?;
    match place {
        Some((host, gpa)) if (host as u64).is_multiple_of(u64::from(W::SIZE)) => {
            let before = core.state.flags.arith;
            let flags = loop {
                // SAFETY: `pin` has checked that `host` is RAM that may be written; the match arm,
                // that it is aligned.
                let old = unsafe { load::<W>(host) };
                let mut flags = before;
                let new = change(old, &mut flags);
                // SAFETY: `pin` has checked that `host` is RAM that may be written; the match arm,
                // that it is aligned.
                if unsafe { exchange::<W>(host, old, new) } {
                    break flags;
                }
            };
            core.state.flags.arith = flags;
            core.mmu.wrote(gpa, u64::from(W::SIZE));
            Ok(())
        }
        _ => {
            let _serialized = split_lock(core, la, u64::from(W::SIZE))?;
            core.modify::<W>(la, |state, old| change(old, &mut state.flags.arith))
        }
    }
}

unsafe fn load<W: Word>(p: *mut u8) -> W {
    // SAFETY: the caller passes aligned guest RAM that `pin` has checked.
    unsafe { crate::ram::load(p) }
}

unsafe fn exchange<W: Word>(p: *mut u8, old: W, new: W) -> bool {
    let (old, new, order) = (old.zext(), new.zext(), Ordering::SeqCst);
    // SAFETY: the caller passes aligned guest RAM that `pin` has checked; it is shared only by
    // atomic and volatile accesses.
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
