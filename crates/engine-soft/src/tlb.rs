//! The software TLB, laid out for an inline check: one compare and one add.
//!
//! A *view* is the set of translations usable at one privilege in one address space: one per PCID slot for user accesses, one
//! shared by all address spaces for supervisor accesses (its non-global entries leave at every switch), one for
//! supervisor accesses with SMAP overridden, and one that stays empty, which sends every access to the slow path
//! (alignment checks). A processor that changes privilege changes a pointer, nothing else. See ADR 0003.
//!
//! An entry is tagged with its page's linear address for each kind of access it allows. The index comes from an
//! access's first byte and the compare from its last, so that an access across a page boundary never hits.

/// Entries of a view; a power of two.
pub(crate) const ENTRIES: usize = 2048;
/// Entries of a view's instruction part.
pub(crate) const FETCH_ENTRIES: usize = 512;
/// PCIDs whose translations are kept at the same time.
pub(crate) const SLOTS: usize = 8;
/// View of supervisor accesses.
pub(crate) const SUPERVISOR: usize = SLOTS;
/// View of supervisor accesses that may touch user pages although SMAP is on.
pub(crate) const SUPERVISOR_AC: usize = SLOTS + 1;
/// The view that never holds anything.
pub(crate) const EMPTY: usize = SLOTS + 2;
const VIEWS: usize = SLOTS + 3;

/// Offset within a page.
pub(crate) const PAGE_MASK: u64 = 0xfff;
/// Never equals a page's address.
const NO_PAGE: u64 = u64::MAX;
/// Beyond this many remembered fills, a flush clears the whole view.
const REMEMBERED: usize = 512;

/// One data translation.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    /// The page's linear address if reads may proceed.
    pub(crate) rtag: u64,
    /// The page's linear address if writes may proceed.
    pub(crate) wtag: u64,
    /// Host address minus linear address, wrapping.
    pub(crate) addend: u64,
    /// The page's guest-physical address; bit 0: global.
    gpa: u64,
}

impl Entry {
    /// The page's guest-physical address.
    pub(crate) const fn gpa(&self) -> u64 {
        self.gpa & !PAGE_MASK
    }
}

/// One instruction-page translation.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct FetchEntry {
    /// The page's linear address.
    pub(crate) tag: u64,
    /// The page's guest-physical address.
    pub(crate) gpa: u64,
    global: bool,
}

const NO_ENTRY: Entry = Entry { rtag: NO_PAGE, wtag: NO_PAGE, addend: 0, gpa: 0 };
const NO_FETCH: FetchEntry = FetchEntry { tag: NO_PAGE, gpa: 0, global: false };

/// Index of the data entry for linear address `la`.
#[inline(always)]
pub(crate) const fn index(la: u64) -> usize {
    (la >> 12) as usize & (ENTRIES - 1)
}

/// Index of the instruction entry for linear address `la`.
#[inline(always)]
pub(crate) const fn fetch_index(la: u64) -> usize {
    (la >> 12) as usize & (FETCH_ENTRIES - 1)
}

/// Indices filled, by kind; full lists have forgotten some.
struct Filled {
    local: Vec<u16>,
    global: Vec<u16>,
}

impl Filled {
    fn new() -> Self {
        Self { local: Vec::with_capacity(REMEMBERED), global: Vec::with_capacity(REMEMBERED) }
    }

    fn note(&mut self, index: usize, global: bool) {
        let list = if global { &mut self.global } else { &mut self.local };
        if list.len() < REMEMBERED {
            list.push(index as u16);
        }
    }

    /// Whether every fill is remembered.
    fn complete(&self) -> bool {
        self.local.len() < REMEMBERED && self.global.len() < REMEMBERED
    }

    fn clear(&mut self) {
        self.local.clear();
        self.global.clear();
    }

    fn all(&self) -> impl Iterator<Item = usize> {
        self.local.iter().chain(&self.global).map(|&i| usize::from(i))
    }
}

/// Where a guest code address is in host code.
#[derive(Clone, Copy)]
#[repr(C)]
struct TargetEntry {
    /// Minus the guest address: the sum with an address is zero exactly if they match.
    negated: u64,
    /// Host address of the far entry.
    host: u64,
}

/// Entries of a table of targets: translated code indexes it by the low 16 bits of the address.
const TARGET_ENTRIES: usize = 1 << 16;
/// No target: the negation of an address that belongs to another slot, since a program may branch to any.
const NO_TARGET: TargetEntry = TargetEntry { negated: 1, host: 0 };
/// No target in the last slot, where [`NO_TARGET`] would match the address FFFF_FFFF_FFFF_FFFFH.
const NO_LAST_TARGET: TargetEntry = TargetEntry { negated: 0, host: 0 };

fn no_targets(table: &mut [TargetEntry]) {
    table.fill(NO_TARGET);
    table.last_mut().into_iter().for_each(|last| *last = NO_LAST_TARGET);
}

/// Targets of indirect and cross-page branches, for translated code.
struct Targets {
    table: Box<[TargetEntry]>,
    filled: Vec<u16>,
    /// Bit n: a target on a page whose number is n modulo 4096.
    pages: [u64; 64],
    /// Some target's page is not global.
    local: bool,
}

impl Targets {
    fn new() -> Self {
        Self { table: Box::default(), filled: Vec::new(), pages: [0; 64], local: false }
    }

    fn clear(&mut self) {
        if self.filled.len() < 8192 {
            for &i in &self.filled {
                let last = i == u16::MAX;
                self.table[usize::from(i)] = if last { NO_LAST_TARGET } else { NO_TARGET };
            }
        } else {
            no_targets(&mut self.table);
        }
        self.filled.clear();
        self.pages = [0; 64];
        self.local = false;
    }

    fn page_bit(la: u64) -> (usize, u64) {
        let n = la >> 12 & 4095;
        ((n >> 6) as usize, 1 << (n & 63))
    }

    fn fill(&mut self, la: u64, host: u64, global: bool) {
        let slot = (la & 0xffff) as usize;
        let entry = &mut self.table[slot];
        if entry.negated == la.wrapping_neg() && entry.host == host {
            return;
        }
        *entry = TargetEntry { negated: la.wrapping_neg(), host };
        self.filled.push(slot as u16);
        let (word, bit) = Self::page_bit(la);
        self.pages[word] |= bit;
        self.local |= !global;
    }

    fn clear_page(&mut self, la: u64) {
        let (word, bit) = Self::page_bit(la);
        if self.pages[word] & bit != 0 {
            self.clear();
        }
    }
}

/// See the module.
pub(crate) struct View {
    pub(crate) data: Box<[Entry; ENTRIES]>,
    pub(crate) fetch: Box<[FetchEntry; FETCH_ENTRIES]>,
    /// Indices filled since they were last flushed, so that a flush need not touch the whole view.
    filled: Filled,
    fetch_filled: Filled,
    targets: Targets,
    /// Which gigabytes (modulo 64) hold translations from pages larger than 4 KiB: INVLPG there clears the view.
    large: u64,
}

impl View {
    fn new() -> Self {
        Self {
            data: Box::new([NO_ENTRY; ENTRIES]),
            fetch: Box::new([NO_FETCH; FETCH_ENTRIES]),
            filled: Filled::new(),
            fetch_filled: Filled::new(),
            targets: Targets::new(),
            large: 0,
        }
    }

    fn flush(&mut self) {
        self.targets.clear();
        if self.filled.complete() {
            self.filled.all().for_each(|i| self.data[i] = NO_ENTRY);
        } else {
            self.data.fill(NO_ENTRY);
        }
        if self.fetch_filled.complete() {
            self.fetch_filled.all().for_each(|i| self.fetch[i] = NO_FETCH);
        } else {
            self.fetch.fill(NO_FETCH);
        }
        self.filled.clear();
        self.fetch_filled.clear();
        self.large = 0;
    }

    fn flush_non_global(&mut self) {
        if self.targets.local {
            self.targets.clear();
        }
        if self.filled.local.len() == REMEMBERED || self.fetch_filled.local.len() == REMEMBERED {
            self.flush();
            return;
        }
        for i in self.filled.local.drain(..) {
            let entry = &mut self.data[usize::from(i)];
            if entry.gpa & 1 == 0 {
                *entry = NO_ENTRY;
            }
        }
        for i in self.fetch_filled.local.drain(..) {
            let entry = &mut self.fetch[usize::from(i)];
            if !entry.global {
                *entry = NO_FETCH;
            }
        }
    }

    fn flush_page(&mut self, la: u64) {
        self.targets.clear_page(la);
        if self.large >> (la >> 30 & 63) & 1 != 0 {
            self.flush();
            return;
        }
        let page = la & !PAGE_MASK;
        let entry = &mut self.data[index(la)];
        if entry.rtag == page || entry.wtag == page {
            *entry = NO_ENTRY;
        }
        let entry = &mut self.fetch[fetch_index(la)];
        if entry.tag == page {
            *entry = NO_FETCH;
        }
    }
}

/// What a page walk found, for [`Tlb::fill`].
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    /// Linear address of the page.
    pub(crate) page: u64,
    /// Guest-physical address of the page.
    pub(crate) gpa: u64,
    /// Host address of the page.
    pub(crate) host: u64,
    /// Reads may proceed.
    pub(crate) read: bool,
    /// Writes may proceed: permitted, dirty bit set, no code on the page.
    pub(crate) write: bool,
    /// Valid in every address space.
    pub(crate) global: bool,
    /// From a page larger than 4 KiB.
    pub(crate) large: bool,
}

/// All views of one virtual processor.
pub(crate) struct Tlb {
    views: Vec<View>,
    pcids: [Option<u16>; SLOTS],
    victim: usize,
    /// The slot of the current PCID.
    pub(crate) slot: usize,
    pub(crate) flushes: u64,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        let mut pcids = [None; SLOTS];
        pcids[0] = Some(0);
        Self {
            views: (0..VIEWS).map(|_| View::new()).collect(),
            pcids,
            victim: 0,
            slot: 0,
            flushes: 0,
        }
    }

    pub(crate) fn view(&self, view: usize) -> &View {
        &self.views[view]
    }

    /// Enters a translation for `view`.
    pub(crate) fn fill(&mut self, view: usize, fill: Fill) {
        if view == EMPTY {
            return;
        }
        let view = &mut self.views[view];
        let i = index(fill.page);
        view.data[i] = Entry {
            rtag: if fill.read { fill.page } else { NO_PAGE },
            wtag: if fill.write { fill.page } else { NO_PAGE },
            addend: fill.host.wrapping_sub(fill.page),
            gpa: fill.gpa | u64::from(fill.global),
        };
        view.filled.note(i, fill.global);
        if fill.large {
            view.large |= 1 << (fill.page >> 30 & 63);
        }
    }

    /// Enters an instruction translation for `view`.
    pub(crate) fn fill_fetch(
        &mut self,
        view: usize,
        page: u64,
        gpa: u64,
        global: bool,
        large: bool,
    ) {
        if view == EMPTY {
            return;
        }
        let view = &mut self.views[view];
        let i = fetch_index(page);
        view.fetch[i] = FetchEntry { tag: page, gpa, global };
        view.fetch_filled.note(i, global);
        if large {
            view.large |= 1 << (page >> 30 & 63);
        }
    }

    /// The table of targets of `view`, made on first use.
    pub(crate) fn targets(&mut self, view: usize) -> u64 {
        let table = &mut self.views[view].targets.table;
        if table.is_empty() {
            *table = vec![NO_TARGET; TARGET_ENTRIES].into_boxed_slice();
            no_targets(table);
        }
        table.as_ptr() as u64
    }

    /// Enters a target for `view`, whose code page must be in the instruction part.
    pub(crate) fn fill_target(&mut self, view: usize, la: u64, host: u64) {
        let view = &mut self.views[view];
        let entry = view.fetch[fetch_index(la)];
        if entry.tag == la & !PAGE_MASK && !view.targets.table.is_empty() {
            view.targets.fill(la, host, entry.global);
        }
    }

    /// Empties all tables of targets.
    pub(crate) fn forget_targets(&mut self) {
        self.views.iter_mut().for_each(|view| view.targets.clear());
    }

    /// Drops the data translations of `la`, and nothing else: more than that is never needed where the tables have not changed.
    pub(crate) fn forget(&mut self, la: u64) {
        self.views.iter_mut().for_each(|view| view.data[index(la)] = NO_ENTRY);
    }

    /// Makes every write to the page at `gpa` take the slow path from now on.
    pub(crate) fn forbid_writes(&mut self, gpa: u64) {
        let forbid = |entry: &mut Entry| {
            if entry.gpa & !PAGE_MASK == gpa {
                entry.wtag = NO_PAGE;
            }
        };
        for view in &mut self.views[..EMPTY] {
            if view.filled.complete() {
                for i in view.filled.all() {
                    forbid(&mut view.data[i]);
                }
            } else {
                view.data.iter_mut().for_each(forbid);
            }
        }
    }

    fn supervisor(&mut self) -> &mut [View] {
        &mut self.views[SUPERVISOR..=SUPERVISOR_AC]
    }

    /// Drops everything.
    pub(crate) fn flush_all(&mut self) {
        self.flushes += 1;
        self.views[..EMPTY].iter_mut().for_each(View::flush);
    }

    /// Drops the current PCID's non-global translations.
    pub(crate) fn flush_current(&mut self) {
        self.flushes += 1;
        let slot = self.slot;
        self.views[slot].flush_non_global();
        self.supervisor().iter_mut().for_each(View::flush_non_global);
    }

    /// Drops the non-global translations of every PCID.
    pub(crate) fn flush_non_global(&mut self) {
        self.flushes += 1;
        self.views[..EMPTY].iter_mut().for_each(View::flush_non_global);
    }

    /// Makes `pcid` current; keeps its translations if `keep`.
    pub(crate) fn switch(&mut self, pcid: u16, keep: bool) {
        self.supervisor().iter_mut().for_each(View::flush_non_global);
        let known = self.pcids.iter().position(|&p| p == Some(pcid));
        self.slot = known.unwrap_or_else(|| self.take_slot(pcid));
        if known.is_some() && !keep {
            self.flushes += 1;
            let slot = self.slot;
            self.views[slot].flush_non_global();
        }
    }

    fn take_slot(&mut self, pcid: u16) -> usize {
        self.victim = (self.victim + 1) % SLOTS;
        if self.victim == self.slot {
            self.victim = (self.victim + 1) % SLOTS;
        }
        let slot = self.victim;
        self.views[slot].flush();
        self.pcids[slot] = Some(pcid);
        slot
    }

    /// INVLPG: the page in the current address space, and global translations of it everywhere. Dropping more is permitted.
    pub(crate) fn flush_page(&mut self, la: u64) {
        self.flushes += 1;
        self.views[..EMPTY].iter_mut().for_each(|view| view.flush_page(la));
    }

    /// Drops the non-global translations of `pcid`.
    pub(crate) fn flush_pcid(&mut self, pcid: u16) {
        self.flushes += 1;
        if let Some(slot) = self.pcids.iter().position(|&p| p == Some(pcid)) {
            self.views[slot].flush_non_global();
            if slot == self.slot {
                self.supervisor().iter_mut().for_each(View::flush_non_global);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_knows_no_address() {
        let mut tlb = Tlb::new();
        tlb.targets(SUPERVISOR);
        let targets = &mut tlb.views[SUPERVISOR].targets;
        for clear in [false, true] {
            if clear {
                targets.fill(u64::MAX, 1, true);
                targets.clear();
            }
            for (slot, entry) in targets.table.iter().enumerate() {
                let address = entry.negated.wrapping_neg();
                assert_ne!(address & 0xffff, slot as u64, "slot {slot:#x} matches {address:#x}");
            }
        }
    }
}
