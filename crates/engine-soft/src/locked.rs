//! Atomic read-modify-write across host threads: LOCKed operations that no thunk performs.
//!
//! Words on one page change by compare-exchange, which every other access observes, also where they
//! are not aligned. What crosses a page or is no RAM cannot be made atomic from here. Those in RAM
//! are serialized among themselves by one lock of the machine's (as a split lock serializes the
//! bus); one that touches a device is as atomic as the device makes it.
#![allow(unsafe_code)] // atomics on host pointers; see docs/UNSAFE.md

use crate::core::Core;
use crate::op::Fallible;
use crate::ram;
use crate::word::Word;
use memory::SplitLock;
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
        None => {
            let _serialized = split_lock(core, la, u64::from(W::SIZE))?;
            core.modify::<W>(la, |state, old| change(old, &mut state.flags.arith))
        }
    }
}
