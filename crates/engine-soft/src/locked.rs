//! Atomic read-modify-write across host threads: LOCKed operations that no thunk performs.
//!
//! Words on one page change by compare-exchange, which every other access observes, also where they
//! are not aligned. What crosses a page of RAM is exchanged in two parts, one after the other: so
//! nothing is lost that others store meanwhile. Such operations are serialized among themselves by
//! one lock of the machine's (as a split lock serializes the bus). Only who looks at each part by
//! itself may see one changed before the other. What touches a device is as atomic as the device
//! makes it.
#![allow(unsafe_code)] // atomics on host pointers; see docs/UNSAFE.md

use crate::core::Core;
use crate::op::Fallible;
use crate::ram;
use crate::tlb::PAGE_MASK;
use crate::word::Word;
use memory::SplitLock;
use x86::bus::AccessKind;

/// To be held while a locked operation changes `len` bytes at `la`, which cross a page. `None`:
/// part of it is a device's, which may take its time. The instruction is not begun anew from here
/// on.
pub(crate) fn split_lock(core: &mut Core, la: u64, len: u64) -> Fallible<Option<SplitLock>> {
    let privilege = core.privilege();
    for at in [la, core.mmu.wrap(la, la.wrapping_add(len - 1), privilege)] {
        let place = core.mmu.pin(at, 1, AccessKind::Write, privilege);
        if core.check(place)?.is_none() {
            return Ok(None);
        }
    }
    let lock = core.mmu.split_lock();
    core.mmu.commit();
    Ok(Some(lock))
}

/// Replaces the `len` bytes at `la`, which cross a page of RAM, by `new` if they are `old`; whether
/// they were. The [`split_lock`] is held.
pub(crate) fn exchange(core: &mut Core, la: u64, len: u64, old: u64, new: u64) -> Fallible<bool> {
    let first = PAGE_MASK + 1 - (la & PAGE_MASK);
    let next = core.mmu.wrap(la, la.wrapping_add(first), core.privilege());
    let begin = |word: u64| word & low(first);
    let end = |word: u64| word >> (8 * first);
    if !exchange_part(core, next, len - first, end(old), end(new))? {
        return Ok(false);
    }
    if exchange_part(core, la, first, begin(old), begin(new))? {
        return Ok(true);
    }
    // Somebody has stored to the first part. If the second is not as it was left either, both were
    // stored to after this.
    Ok(!exchange_part(core, next, len - first, end(new), end(old))?)
}

/// As [`exchange`], within an aligned quadword.
fn exchange_part(core: &mut Core, la: u64, len: u64, old: u64, new: u64) -> Fallible<bool> {
    let (quadword, at) = (la & !7, la & 7);
    let privilege = core.privilege();
    let place = core.mmu.pin(quadword, 8, AccessKind::Write, privilege);
    // A device's meanwhile: nothing there is to be kept.
    let Some((host, gpa)) = core.check(place)? else { return Ok(true) };
    let part = |word: u64| word >> (8 * at) & low(len);
    loop {
        // SAFETY: `pin` has checked that the quadword at `host` is RAM that may be written.
        let word = unsafe { ram::load::<u64>(host) };
        if part(word) != old {
            return Ok(false);
        }
        let changed = word ^ (old ^ new) << (8 * at);
        // SAFETY: `pin` has checked that the quadword at `host` is RAM that may be written.
        if unsafe { ram::compare_exchange::<u64>(host, word, changed) } {
            core.mmu.wrote(gpa.map(|gpa| gpa + at), len);
            return Ok(true);
        }
    }
}

/// A word whose `bytes` lowest bytes, at most eight, are ones.
fn low(bytes: u64) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
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
        Some((host, gpa)) => {
            let before = core.state.flags.arith;
            let flags = loop {
                // SAFETY: `pin` has checked that the word at `host` is RAM that may be written.
                let old = unsafe { ram::load::<W>(host) };
                let mut flags = before;
                let new = change(old, &mut flags);
                // SAFETY: `pin` has checked that the word at `host` is RAM that may be written.
                if unsafe { ram::compare_exchange::<W>(host, old, new) } {
                    break flags;
                }
            };
            core.state.flags.arith = flags;
            core.mmu.wrote(gpa, u64::from(W::SIZE));
            Ok(())
        }
        None => beyond_page(core, la, change),
    }
}

/// As [`modify`]: the word crosses a page, or is a device's.
#[cold]
fn beyond_page<W: Word>(
    core: &mut Core,
    la: u64,
    mut change: impl FnMut(W, &mut u16) -> W,
) -> Fallible {
    let Some(_serialized) = split_lock(core, la, u64::from(W::SIZE))? else {
        return core.modify::<W>(la, |state, old| change(old, &mut state.flags.arith));
    };
    loop {
        let old = core.load::<W>(la)?;
        let mut flags = core.state.flags.arith;
        let new = change(old, &mut flags);
        if exchange(core, la, u64::from(W::SIZE), old.zext(), new.zext())? {
            core.state.flags.arith = flags;
            return Ok(());
        }
    }
}
