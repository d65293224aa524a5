//! The links between pages: each branch to another page, and where code pages were entered.

use crate::block::Table;

/// No address space's generation.
pub(super) const NEVER: u32 = u32::MAX;

/// A branch to another page: offsets in the code area.
#[derive(Clone, Copy)]
pub(super) struct CrossPageBranch {
    /// The rel32 of the jump that is taken where the link does not hold. Code that compares nothing
    /// runs into it, and has a NOP instead while there is a link.
    pub(super) detour: u32,
    /// Where the detour leaves, to be linked.
    pub(super) exit: u32,
    /// Where the detour goes by the table of targets.
    pub(super) table: u32,
    /// The rel32 of the jump to the linked code.
    pub(super) jump: u32,
    /// Where the generation is compared; kernel code has none.
    pub(super) generation: Option<GenerationCheck>,
    /// The translation it is in.
    pub(super) region: u32,
    /// Guest-physical page of the branch.
    pub(super) page: u64,
    /// The vector registers are in the host's.
    pub(super) vectors: bool,
    /// Status flags are in [`Context::flags`].
    pub(super) flags_saved: bool,
    /// Its page has it among those that were linked.
    pub(super) listed: bool,
}

impl CrossPageBranch {
    /// Its translation has number `region` and begins at `base`.
    pub(super) fn place(&mut self, region: u32, base: u32) {
        self.region = region;
        for place in [&mut self.detour, &mut self.exit, &mut self.table, &mut self.jump] {
            *place += base;
        }
        if let Some(generation) = &mut self.generation {
            generation.place += base;
        }
    }
}

/// The generation in the code, 32 bits.
#[derive(Clone, Copy)]
pub(super) struct GenerationCheck {
    pub(super) place: u32,
    /// It is added, so that its negative stands there.
    pub(super) negative: bool,
}

impl GenerationCheck {
    pub(super) fn bytes(self, number: u32) -> [u8; 4] {
        if self.negative { number.wrapping_neg() } else { number }.to_le_bytes()
    }
}

/// What cross-page branch `branch` does where it is not linked: it goes to page + `to`.
#[derive(Clone, Copy)]
pub(super) struct Detour {
    pub(super) branch: usize,
    pub(super) to: i32,
    /// The code there may need flags.
    pub(super) live: bool,
    /// Flags are in `Context::flags`.
    pub(super) flags_saved: bool,
}

/// Where the code pages are that were entered, and the links between them.
#[derive(Default)]
pub(super) struct CrossPageLinks {
    pub(super) branches: Vec<CrossPageBranch>,
    pub(super) pages: Table<u64, CodePage>,
    /// Branches of kernel code that are linked.
    pub(super) kernel: Vec<u32>,
}

/// A guest-physical page with translated code.
pub(super) struct CodePage {
    /// Where it was entered; `None`: at several linear addresses.
    pub(super) at: Option<u64>,
    /// Branches on it that were linked.
    pub(super) linked: Vec<u32>,
}

impl CrossPageLinks {
    pub(super) fn clear(&mut self) {
        self.branches.clear();
        self.pages.clear();
        self.kernel.clear();
    }
}
