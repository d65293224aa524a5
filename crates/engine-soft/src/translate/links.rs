//! What is recorded of links between pages: each branch to another page, and where code pages were
//! entered.

use crate::block::Table;
use std::collections::HashSet;

/// A branch to another page. It goes by its slot in the view at hand ([`super::targets`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct CrossPageBranch {
    /// Where it goes without a link, as an offset in the code area.
    pub(super) detour: u32,
    /// Where it goes by the table of targets.
    pub(super) table: u32,
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

impl CrossPageBranch {
    /// The same, of code that stands at `base`.
    pub(super) fn placed(self, base: u32) -> Self {
        Self { detour: base + self.detour, table: base + self.table, ..self }
    }

    /// What its slot holds if it goes to `place`.
    pub(super) fn distance(&self, place: u32) -> i32 {
        (i64::from(place) - i64::from(self.detour)) as i32
    }
}

/// What cross-page branch `branch` does where it is not linked: it goes to page + `to`, whose page
/// is the one at hand already.
#[derive(Clone, Copy)]
pub(super) struct Detour {
    pub(super) branch: usize,
    /// Where in the code the distance to the slot's target is counted from.
    pub(super) place: usize,
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
