//! The code cache of one virtual processor: translations, what is recorded of them, and the stubs
//! that they share.

use super::context::Context;
use super::figures::Figures;
use super::links::CrossPageLinks;
use super::recipe::Recipe;
use super::site::{ExitSite, FaultMapEntry};
use crate::block::{Entries, Key};
use crate::thunk;
use crate::thunk::area::CodeArea;
use crate::thunk::guard::TranslatedRegistration;
use iced_x86::InstructionInfoFactory;
use std::collections::HashMap;
use std::io;

/// Runs of a block in the interpreter before it is translated.
pub(crate) const HOT: u32 = 24;

/// The code cache of one virtual processor.
pub(crate) struct Translator {
    /// Dropped before the area: as soon as that is unmapped another thread may have code there.
    pub(super) registration: Option<TranslatedRegistration>,
    pub(super) area: CodeArea,
    pub(super) stubs: Option<Stubs>,
    /// The stubs of regions, by the registers they spill.
    pub(super) region_stubs: HashMap<u16, RegionStubs>,
    pub(super) regions: Vec<RegionRecord>,
    pub(super) sites: Vec<ExitSite>,
    /// What a fault means from each offset in the area on, ascending.
    pub(super) fault_map: Vec<FaultMapEntry>,
    pub(super) factory: InstructionInfoFactory,
    pub(super) avx: bool,
    pub(super) bmi2: bool,
    pub(super) cross_page: CrossPageLinks,
    /// Translations of dead blocks, which others may still jump to.
    pub(super) retired: HashMap<Key, Vec<Entries>>,
    /// Count instructions in translated code.
    pub(crate) counting: bool,
    /// Stop where the count comes to its end.
    pub(crate) bounded: bool,
    /// Keep status flags exact even where the guest replaces them before it reads them: the frame
    /// of an interrupt in between shows them, and they must be the same on each run.
    pub(crate) exact_flags: bool,
    /// Translated code polls.
    pub(crate) polls: bool,
    /// Where each translation lies, ascending: offset and length.
    pub(super) extents: Vec<(u32, u32)>,
    /// The interpreter runs the same code for comparison: both must read the same time.
    pub(crate) compared: bool,
    pub(super) figures: Figures,
    /// The status flags with which a per-access translation was entered, unless they were lost.
    pub(super) noted: Option<u16>,
    /// The last exit recovered flags that a check had overwritten.
    pub(crate) recovered: bool,
    /// Counters for `--stats`.
    pub(crate) instructions: u64,
    pub(crate) blocks: u64,
    pub(crate) links: u64,
    pub(crate) exits: u64,
    pub(crate) faults: u64,
}

impl Translator {
    /// A cache of `capacity` bytes of host code.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let host = thunk::HostFeatures::probe();
        Ok(Self {
            area: CodeArea::new_translated(capacity)?,
            stubs: None,
            region_stubs: HashMap::new(),
            regions: Vec::new(),
            sites: Vec::new(),
            fault_map: Vec::new(),
            factory: InstructionInfoFactory::new(),
            avx: host.has(thunk::Feature::Avx),
            bmi2: host.has(thunk::Feature::Bmi2),
            cross_page: CrossPageLinks::default(),
            retired: HashMap::new(),
            counting: false,
            bounded: false,
            exact_flags: false,
            polls: false,
            registration: None,
            extents: Vec::new(),
            compared: false,
            figures: Figures::default(),
            noted: None,
            recovered: false,
            instructions: 0,
            blocks: 0,
            links: 0,
            exits: 0,
            faults: 0,
        })
    }

    /// Whether the translation with number `region` is still good.
    pub(super) fn alive(&self, region: u32) -> bool {
        self.regions.get(region as usize).is_some_and(|region| !region.dead)
    }

    /// The figures for `--stats`.
    pub(crate) fn statistics(&self, counted: &Context) -> vcpu::Translator {
        let (start, end) = self.area.range();
        vcpu::Translator {
            looked_up: counted.looked_up,
            entered: counted.entered,
            code_used: self.area.used() as u64,
            code_capacity: (end - start) as u64,
            ..self.figures.statistics()
        }
    }

    /// Whether a guest instruction begins at `offset`, so that its state is whole there.
    pub(super) fn begins_instruction(&self, offset: u32) -> bool {
        let last = self.fault_map.partition_point(|s| s.offset <= offset).checked_sub(1);
        last.is_some_and(|n| self.fault_map[n].offset == offset && self.fault_map[n].boundary)
    }

    /// Offset and length of the translation that `offset` lies in.
    pub(super) fn extent(&self, offset: u32) -> Option<(u32, u32)> {
        let last = self.extents.partition_point(|e| e.0 <= offset).checked_sub(1)?;
        self.extents.get(last).copied().filter(|e| offset < e.0 + e.1)
    }

    /// Forgets every translation. No block may refer to one any more.
    pub(crate) fn reset(&mut self) {
        self.area.clear();
        self.stubs = None;
        self.region_stubs.clear();
        self.regions.clear();
        self.sites.clear();
        self.fault_map.clear();
        self.registration = None;
        self.cross_page.clear();
        self.retired.clear();
        self.extents.clear();
        self.figures.dropped();
    }
}

/// A region that was translated.
pub(crate) struct RegionRecord {
    pub(super) entries: Vec<(Key, Entries)>,
    pub(super) dead: bool,
}

/// There is no room: [`forget`] everything.
pub(crate) struct Full;

/// Resolves the rel32 at `place` of the code area to `to`.
pub(super) fn patch_rel32(translator: &mut Translator, place: u32, to: u32) {
    let rel = i64::from(to) - (i64::from(place) + 4);
    translator.area.patch(place as usize, &(rel as i32).to_le_bytes());
}

/// Resolves the rel32 at `place` of code that will stand at `base` to `target`, both offsets in the
/// area.
pub(super) fn patch(code: &mut [u8], place: usize, base: usize, target: usize) {
    let rel = target as i64 - (base + place + 4) as i64;
    code[place..place + 4].copy_from_slice(&(rel as i32).to_le_bytes());
}

/// Offsets in the code area.
#[derive(Clone, Copy)]
pub(super) struct Stubs {
    /// To be called with the target in RDI; goes there with RIP in ADDRESS, and returns with all
    /// registers changed but RSP.
    pub(super) enter: usize,
    /// Where faults go: all registers to `Context::raw`, then out.
    pub(super) fault: usize,
    /// Loads the vector registers and MXCSR and jumps to ADDRESS.
    pub(super) load_vectors: usize,
    /// At a region's boundary.
    pub(super) boundary: RegionStubs,
}

/// What depends on the registers spilled.
#[derive(Clone, Copy)]
pub(super) struct RegionStubs {
    /// Where every exit goes: stores the guest's registers and returns from `enter`.
    pub(super) leave: usize,
    /// Calls [`fill`], and goes on where it says or leaves: by the register that the site's number
    /// is in, 0 for those not spilled.
    pub(super) fill: [usize; 16],
}

/// What an exit to the interpreter led to when it was taken before.
#[derive(Debug)]
pub(crate) struct CachedExit<B> {
    pub(super) block: *const B,
    /// The block cache's, in which `block` is alive.
    pub(super) epoch: u64,
    pub(super) delta: i32,
    pub(super) undone: u16,
    pub(super) recipe: Option<Recipe>,
}

impl<B> CachedExit<B> {
    pub(super) const NONE: Self =
        Self { block: std::ptr::null(), epoch: u64::MAX, delta: 0, undone: 0, recipe: None };
}
