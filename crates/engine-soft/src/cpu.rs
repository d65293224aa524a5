//! One virtual processor as the dispatcher and the translator see it: the core that performs
//! instructions, and around it what translated code and its making need.
//!
//! The interpreter never sees this: it works on the core alone.
#![allow(unsafe_code)] // moves between threads; see docs/UNSAFE.md

use crate::core::{Block, Core};
use crate::translate::context::{Context, Source};
use crate::translate::{CachedExit, Translator};
use std::mem::offset_of;

/// See the module. GS points to it while translated code runs.
pub(crate) struct Cpu {
    pub(crate) core: Core,
    /// What translated code needs at hand.
    pub(crate) jit: Context,
    /// What [`Context::stack_page`] was found in.
    pub(crate) stack_sources: [Source; 2],
    pub(crate) translator: Translator,
    /// Exits of translated code to the interpreter that were taken before, by site.
    pub(crate) cached_exits: Box<[CachedExit<Block>]>,
    /// Runs before translation; `u32::MAX`: never.
    pub(crate) hot: u32,
    /// The slice under way has a limit.
    pub(crate) limited: bool,
    /// So many instructions of the slice under way must be done for no more blocks to begin.
    pub(crate) last_start: u64,
    /// Instructions that translated code was entered for.
    pub(crate) granted: i64,
    /// Translated code is to stop at its first poll, if it polls.
    pub(crate) stopping: bool,
}

// SAFETY: `stack_sources` are compared, and never followed. `cached_exits` point to blocks that
// `core.mmu.blocks` owns, and are followed only while its epoch says that they live. Both move with
// the processor.
unsafe impl Send for Cpu {}

impl Cpu {
    /// Where [`Core::view`] lies, for translated code.
    pub(crate) const VIEW_OFFSET: usize = offset_of!(Self, core) + Core::VIEW_OFFSET;

    /// Where the instruction entries of the current view lie.
    pub(crate) const FETCH_OFFSET: usize = offset_of!(Self, core) + Core::FETCH_OFFSET;

    /// Where [`Core::pauses`] lies.
    pub(crate) const PAUSES_OFFSET: usize = offset_of!(Self, core) + Core::PAUSES_OFFSET;

    /// A processor around `core`, interpreted, with `translator`.
    pub(crate) fn new(core: Core, translator: Translator) -> Self {
        Self {
            core,
            jit: Context::default(),
            stack_sources: [(std::ptr::null(), 0); 2],
            translator,
            cached_exits: Box::default(),
            hot: u32::MAX,
            last_start: u64::MAX,
            limited: false,
            granted: 0,
            stopping: false,
        }
    }
}
