//! What is recorded of links between pages: each branch to another page.

use crate::thunk::area::CodeArea;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a slot holds where the branch's direct jump goes to the right place. No distance: no place
/// to go to begins in the middle of the instruction at the detour.
pub(super) const DIRECT: i32 = 1;

/// A branch to another page. It goes as its slot in the view at hand says ([`super::targets`]).
#[derive(Debug)]
pub(super) struct CrossPageBranch {
    /// Where it goes without a link, as an offset in the code area.
    pub(super) detour: u32,
    /// Where it goes by the table of targets.
    pub(super) table: u32,
    /// The rel32 of its direct jump, if it has one: that goes to `target`, if its slot holds
    /// [`DIRECT`].
    pub(super) jump: Option<u32>,
    /// Where the direct jump goes, once some processor has linked it: for good. 0: nowhere yet.
    pub(super) target: AtomicU32,
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
        let jump = self.jump.map(|jump| base + jump);
        Self { detour: base + self.detour, table: base + self.table, jump, ..self }
    }

    /// What its slot holds if it goes to `place` by way of the slot.
    pub(super) fn distance(&self, place: u32) -> i32 {
        (i64::from(place) - i64::from(self.detour)) as i32
    }

    /// What its slot holds if it goes to `place`. The first place that is asked for is the one that
    /// its direct jump goes to from then on; who fetches the jump as it was takes the detour.
    pub(super) fn link(&self, place: u32, area: &CodeArea) -> i32 {
        let Some(jump) = self.jump else { return self.distance(place) };
        match self.target.compare_exchange(0, place, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => area.patch_rel32(jump, place),
            Err(other) if other != place => return self.distance(place),
            Err(_) => {}
        }
        DIRECT
    }
}

/// How a branch to another page goes where it is linked.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// By the distance in its slot, which is counted from what this place is resolved to.
    Distance { place: usize },
    /// By the direct jump at `jump`; from `other` on by the distance, where the slot says so.
    Jump { jump: usize, other: usize },
}

/// What cross-page branch `branch` does where it is not linked: it goes to page + `to`, whose page
/// is the one at hand already.
#[derive(Clone, Copy)]
pub(super) struct Detour {
    pub(super) branch: usize,
    /// How the branch is made.
    pub(super) way: Way,
    pub(super) to: i32,
    /// The code there may need flags.
    pub(super) live: bool,
    /// Flags are in `Context::flags`.
    pub(super) flags_saved: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors and address spaces share the jump: it goes where the first has linked it, and
    /// who has something else there goes by the distance.
    #[test]
    fn a_direct_jump_is_linked_once() {
        let area = CodeArea::new_translated(0x1000).expect("memory for code");
        area.push(&[0xe9; 64]).expect("room");
        let made = CrossPageBranch {
            detour: 0,
            table: 8,
            jump: Some(16),
            target: AtomicU32::new(0),
            to: 0x1000,
            page: 0,
            vectors: false,
            flags_saved: true,
        };
        let branch = made.placed(16);
        assert_eq!(branch.link(0x300, &area), DIRECT);
        assert_eq!(area.bytes(32, 4), (0x300_i32 - 36).to_le_bytes());
        assert_eq!(branch.link(0x200, &area), 0x200 - 16, "counted from the detour");
        assert_eq!(branch.link(0x300, &area), DIRECT, "another processor's");
        assert_eq!(area.bytes(32, 4), (0x300_i32 - 36).to_le_bytes());
        let without = CrossPageBranch { jump: None, target: AtomicU32::new(0), ..branch };
        assert_eq!(without.link(0x300, &area), 0x300 - 16);
    }
}
