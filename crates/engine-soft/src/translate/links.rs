//! What is recorded of links between pages: each branch to another page, and where code pages were
//! entered.

use crate::block::{Key, Table};
use std::collections::HashSet;
use std::sync::OnceLock;

/// A branch to another page. It takes its link where its slot in the view at hand says that it
/// holds ([`super::targets`]).
#[derive(Debug)]
pub(super) struct CrossPageBranch {
    /// The rel32 of the jump to the linked code.
    pub(super) jump: u32,
    /// The block that it leads to, of all processors' for which it holds; set once.
    pub(super) target: OnceLock<Key>,
    /// From its page's start to its target.
    pub(super) to: i32,
    /// Guest-physical page of the branch.
    pub(super) page: u64,
    /// The vector registers are in the host's.
    pub(super) vectors: bool,
    /// Status flags are in [`Context::flags`].
    ///
    /// [`Context::flags`]: super::context::Context::flags
    pub(super) flags_saved: bool,
}

/// What a cross-page branch does where it is not linked: it goes to page + `to`.
#[derive(Clone, Copy)]
pub(super) struct Detour {
    pub(super) branch: usize,
    /// The jump that leads here.
    pub(super) from: usize,
    pub(super) to: i32,
    /// The code there may need flags.
    pub(super) live: bool,
    /// Flags are in `Context::flags`.
    pub(super) flags_saved: bool,
}

/// Where a processor has entered each guest-physical page with translated code.
pub(super) type CodePages = Table<u64, CodePage>;

/// A guest-physical page with translated code.
pub(super) struct CodePage {
    /// Where it was entered; `None`: at several linear addresses.
    pub(super) at: Option<u64>,
    /// Branches on it that were linked.
    pub(super) linked: HashSet<u32>,
}
