//! What is recorded of emitted code: what each exit means, which stub a jump goes to, what a fault
//! means at each place.

use super::address::Check;
use super::links::CrossPageBranch;
use super::recipe::Recipe;
use crate::block::{Entries, Key};
use iced_x86::Mnemonic;

/// A finished translation, offsets into `code`.
pub(super) struct Translation {
    pub(super) code: Vec<u8>,
    /// Entries of blocks that others may enter.
    pub(super) entries: Vec<(Key, Entries)>,
    /// Registers spilled within.
    pub(super) spilled: u16,
    pub(super) sites: Vec<ExitSite>,
    pub(super) cross_page: Vec<CrossPageBranch>,
    /// Jumps out of this code: places of rel32.
    pub(super) jumps: Vec<(usize, StubTarget)>,
    /// Where the code has the number of a site, counted from its own first.
    pub(super) site_numbers: Vec<usize>,
    /// Where it has the place of a cross-page branch's slot, and which branch of its own.
    pub(super) slots: Vec<(usize, u32)>,
    /// What a fault means from each offset on, ascending.
    pub(super) fault_map: Vec<FaultMapEntry>,
}

/// What an exit means. Status flags that are *saved* are in `Context::flags`, others in RFLAGS.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExitSite {
    /// Go on at page + delta; the jump at `place` may be linked to that block.
    Link { place: u32, delta: i32, vectors: bool },
    /// Go on at page + delta, of which the table of targets knows nothing; status flags are saved
    /// if `saved`.
    Target { delta: i32, saved: bool },
    /// Go on at page + delta, where there was a translation, which is dead; status flags are saved.
    Dead { delta: i32 },
    /// Go on at page + delta, on another page; cross-page branch number `branch` may be linked to
    /// it. Status flags are saved if `saved`.
    CrossPage { branch: u32, delta: i32, saved: bool },
    /// Go on at page + delta in the interpreter; `undone` instructions of the block were counted
    /// but not run. Status flags are saved if `saved`. An STI went before it if `shadow`.
    /// `recipe`: how to recover flags that a check may have overwritten.
    Interpret { delta: i32, undone: u16, saved: bool, shadow: bool, recipe: Option<Recipe> },
    /// A check of instruction page + delta missed: call `fill`, then retry at `retry`.
    Check {
        check: Check,
        delta: i32,
        undone: u16,
        saved: bool,
        shadow: bool,
        recipe: Option<Recipe>,
        retry: u32,
    },
}

/// Why an exit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The operand's page is not in the TLB, or not for this access, or the operand crosses its
    /// end.
    Miss,
    /// The instruction is left to the interpreter.
    Left(Mnemonic),
    /// A direct jump that is not linked yet.
    Unlinked,
    /// The target of a branch is not in the table.
    Target,
    /// The code that was gone to has been rewritten.
    Dead,
}

/// A stub that code jumps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StubTarget {
    /// The exit, at a boundary; the site's number is in ADDRESS.
    Leave,
    /// The exit, within the region; the site's number is in the last register spilled.
    LeaveRegion,
    /// Making good a missed check; the site's number is in this register, a spilled one.
    Fill(u8),
    /// Loading the vector registers.
    LoadVectors,
    /// As [`StubTarget::Leave`], unless SYSCALL can be done here: the next RIP is in THIRD.
    Syscall,
    /// As [`StubTarget::Leave`], unless SYSRET can be done here.
    Sysret,
}

/// From `offset` of the code on a fault belongs to the instruction at page + `delta`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultMapEntry {
    pub(super) offset: u32,
    pub(super) delta: i32,
    /// Instructions from it to the block's end.
    pub(super) rest: u16,
    /// Which registers are spilled here.
    pub(super) spilled: u16,
    /// Status flags are in `Context::flags` rather than in RFLAGS.
    pub(super) saved: bool,
    /// An STI went before it.
    pub(super) shadow: bool,
    /// How to recover flags that a check may have overwritten.
    pub(super) recipe: Option<Recipe>,
    /// The instruction begins right here, with nothing counted of it: code that is to stop may
    /// leave.
    pub(super) boundary: bool,
}
