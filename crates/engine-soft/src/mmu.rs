//! The MMU: linear addresses to RAM or device, through the TLB, at the speed each case deserves.
//!
//! The hit is inline in [`crate::core`]; here are the miss that asks the page walk of
//! `x86::paging`, stores to pages that hold decoded code, and what others do to memory. Accesses
//! that the hit does not serve are made by [`crate::bus`], which knows the machine.
#![allow(unsafe_code)] // host pointers from the TLB; see docs/UNSAFE.md

use crate::fault::AccessFault;
use crate::observer::{CodeCache, Recorder, TlbObserver};
use crate::page_tables::Tables;
use crate::tlb::{self, FetchEntry, Fill, PAGE_MASK, Tlb};
use memory::{ABSENT, CODE, Change, GuestRam, Notify, Reader, SplitLock, TRACK_DIRTY};
use std::cell::Cell;
use x86::addr::{Gpa, La, Vector};
use x86::bus::{Access, AccessKind, PhysicalMemory, Privilege, Smap, TlbEffect};
use x86::exception::Exception;
use x86::paging;
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::PagingState;

/// Where an access ends.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// RAM: its host and its guest-physical address.
    Ram { host: *mut u8, gpa: u64 },
    /// No RAM: the machine's business.
    Device { gpa: u64 },
}

/// Where an access is made.
#[derive(Clone, Copy)]
pub(crate) enum Reached {
    /// RAM: its host address, and its guest-physical one if the page tables were walked. A write
    /// that hits the TLB is to a page that holds no code, and has none.
    Ram { host: *mut u8, gpa: Option<u64> },
    /// No RAM: the machine's business.
    Device { gpa: u64 },
}

impl From<Target> for Reached {
    fn from(target: Target) -> Self {
        match target {
            Target::Ram { host, gpa } => Self::Ram { host, gpa: Some(gpa) },
            Target::Device { gpa } => Self::Device { gpa },
        }
    }
}

/// Where a page walk ends.
enum Walked {
    To(Target),
    /// At this guest-physical address, whose page is absent.
    Absent(u64),
}

/// What becomes of an access to an absent page that takes time to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnAbsent {
    /// It fails by [`AccessFault::Absent`]: nothing of the instruction is done yet.
    Leave,
    /// It waits, on this thread.
    Wait,
}

/// Drops what `change` concerns.
fn apply(
    change: Change,
    ram: &GuestRam,
    blocks: &mut impl CodeCache,
    tlb: &mut Tlb,
    observer: &mut impl TlbObserver,
) {
    match change {
        Change::Wrote { gpa, len } => blocks.written_pages(gpa.0, len),
        Change::Code { page } => tlb.forbid_writes(page.0, observer),
        Change::Revoke { gpa, len } => {
            let first = gpa.0 & !PAGE_MASK;
            let end = (gpa.saturating_add(len).saturating_add(PAGE_MASK)).0 & !PAGE_MASK;
            tlb.drop_frames(|gpa| (first..end).contains(&gpa), observer);
            blocks.written_pages(first, end - first);
        }
        Change::Absent => tlb.drop_frames(|gpa| ram.is_absent(Gpa(gpa)), observer),
        Change::TrackDirty => tlb.forbid_all_writes(observer),
        Change::Everything => {
            blocks.flush();
            tlb.flush_all(observer);
        }
    }
}

/// See the module.
pub(crate) struct Mmu<B: CodeCache, R: Recorder> {
    pub(crate) ram: GuestRam,
    pub(crate) tlb: Tlb,
    /// Decoded code.
    pub(crate) blocks: B,
    pub(crate) paging: PagingState,
    /// RFLAGS.AC, which overrides SMAP for explicit supervisor accesses.
    pub(crate) ac: bool,
    /// Code of compatibility mode runs: its linear addresses have 32 bits.
    pub(crate) compatible: bool,
    /// Linear pages under a data breakpoint: never in the TLB, so that every access to them is
    /// seen.
    pub(crate) watched: [Option<u64>; 4],
    /// What others do to memory.
    pub(crate) reader: Reader,
    /// How instructions begin.
    pub(crate) patience: OnAbsent,
    /// What the instruction under way is at now. It waits once it relies on a probe, or has
    /// accessed a device: it cannot be begun anew then.
    on_absent: OnAbsent,
    /// Device writes when [`Mmu::watch_devices`] was called.
    device_writes: u64,
    pub(crate) refills: u64,
    /// While the reference runs ahead of translated code: what it reaches, so that it can be
    /// undone.
    pub(crate) log: R,
}

impl<B: CodeCache, R: Recorder + Default> Mmu<B, R> {
    /// `notify` makes the processor look whether it is [`Mmu::behind`].
    pub(crate) fn new(
        ram: GuestRam,
        tlb: Tlb,
        blocks: B,
        paging: PagingState,
        notify: Notify,
    ) -> Self {
        Self {
            reader: ram.reader(notify),
            patience: OnAbsent::Wait,
            on_absent: OnAbsent::Wait,
            device_writes: 0,
            ram,
            tlb,
            blocks,
            paging,
            ac: false,
            compatible: false,
            watched: [None; 4],
            refills: 0,
            log: R::default(),
        }
    }

    /// The processor takes note of what others do to memory from now on.
    pub(crate) fn activate(&mut self) {
        self.reader.activate();
        if self.behind() {
            self.catch_up();
        }
    }

    /// Others need not wait for the processor any more.
    pub(crate) fn deactivate(&mut self) {
        self.reader.deactivate();
    }

    /// The view for explicit accesses at `privilege`.
    pub(crate) fn view(&self, privilege: Privilege) -> usize {
        match privilege {
            Privilege::User => self.tlb.slot,
            Privilege::Supervisor if self.ac && self.paging.cr4.contains(Cr4::SMAP) => {
                tlb::SUPERVISOR_AC
            }
            Privilege::Supervisor | Privilege::Implicit => tlb::SUPERVISOR,
        }
    }

    /// What SMAP says to explicit supervisor accesses now.
    fn smap(&self) -> Smap {
        if self.ac { Smap::Overridden } else { Smap::Enforced }
    }

    /// Translates `la`, which must not be followed beyond its page, and enters the result into the
    /// TLB.
    pub(crate) fn translate(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Target, AccessFault> {
        self.canonical(la)?;
        self.refills += 1;
        loop {
            match self.walk(la, kind, privilege)? {
                Walked::To(target) => return Ok(target),
                Walked::Absent(gpa) => self.bring(gpa)?,
            }
        }
    }

    fn walk(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Walked, AccessFault> {
        let access = Access { kind, privilege };
        let t = if self.ram.has_absent() {
            let tables = Tables { ram: &self.ram, absent: Cell::new(None) };
            let t = paging::translate(&self.paging, self.smap(), &tables, La(la), access);
            if let Some(gpa) = tables.absent.get() {
                return Ok(Walked::Absent(gpa.0));
            }
            t
        } else {
            paging::translate(&self.paging, self.smap(), &self.ram, La(la), access)
        };
        self.log.marked(&self.ram, self.paging.cr3, la);
        let t = t?;
        let page = la & !PAGE_MASK;
        let gpa_page = t.gpa.page().0;
        let Some(ram) = self.ram.page(Gpa(gpa_page)) else {
            return Ok(Walked::To(Target::Device { gpa: t.gpa.0 }));
        };
        if ram.attributes & ABSENT != 0 {
            return Ok(Walked::Absent(gpa_page));
        }
        if kind == AccessKind::Write {
            self.ram.touch(&ram);
        }
        let view = self.view(privilege);
        if kind == AccessKind::Execute {
            let entry =
                FetchEntry { tag: page, gpa: gpa_page, global: t.global, size: t.page_size };
            self.tlb.fill_fetch(view, entry, &mut self.log);
        } else if !self.watched.contains(&Some(page)) {
            // Attributes that come later are posted, and this entry loses its rights.
            let tracked = ram.attributes & TRACK_DIRTY != 0 && kind != AccessKind::Write;
            self.tlb.fill(
                view,
                Fill {
                    page,
                    gpa: gpa_page,
                    host: ram.host as u64,
                    read: true,
                    write: t.writable_now && ram.attributes & CODE == 0 && !tracked,
                    global: t.global,
                    size: t.page_size,
                },
                &mut self.log,
            );
        }
        // SAFETY: within the page that `GuestRam::page` vouched for.
        let host = unsafe { ram.host.add((t.gpa.0 & PAGE_MASK) as usize) };
        Ok(Walked::To(Target::Ram { host, gpa: t.gpa.0 }))
    }

    /// An instruction begins: nothing of it is done.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.on_absent = self.patience;
    }

    /// The instruction under way cannot be begun anew.
    pub(crate) fn commit(&mut self) {
        self.on_absent = OnAbsent::Wait;
    }

    /// Has the absent page of `gpa` come, unless the instruction is to leave instead.
    #[cold]
    fn bring(&mut self, gpa: u64) -> Result<(), AccessFault> {
        if self.ram.bring_at_once(Gpa(gpa)) {
            return Ok(());
        }
        match self.on_absent {
            OnAbsent::Leave if self.ram.has_pager() => Err(AccessFault::Absent(Gpa(gpa))),
            _ => self.await_page(gpa),
        }
    }

    /// Waits until the page of `gpa` is back, and takes note of changes meanwhile: host addresses
    /// from before are not good any more.
    ///
    /// An error means that memory is lost: the machine is about to end, and nothing is delivered.
    #[cold]
    pub(crate) fn await_page(&mut self, gpa: u64) -> Result<(), AccessFault> {
        let Self { ram, reader, blocks, tlb, log, .. } = self;
        reader.await_page(Gpa(gpa), |change| apply(change, ram, blocks, tlb, log));
        self.let_go();
        let lost = self.ram.lost().is_some();
        if lost { Err(Exception::plain(Vector::MC).into()) } else { Ok(()) }
    }

    /// Judges an address that IA-32e mode may not have.
    fn canonical(&self, la: u64) -> Result<(), AccessFault> {
        let none = self.paging.efer.contains(Efer::LMA) && !La(la).is_canonical();
        if none { Err(AccessFault::NonCanonical) } else { Ok(()) }
    }

    /// As [`Mmu::canonical`] for all of an access: the judgement that goes before those of
    /// alignment and paging.
    pub(crate) fn canonical_span(&self, la: u64, len: u64) -> Result<(), AccessFault> {
        self.canonical(la)?;
        self.canonical(la.wrapping_add(len.saturating_sub(1)))
    }

    /// Looks `la` up in the TLB, then in the tables.
    pub(crate) fn reach(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Reached, AccessFault> {
        let reached = self.find(la, kind, privilege)?;
        if self.log.is_recording()
            && let Reached::Ram { gpa, .. } = reached
        {
            let page = self.tlb.view(self.view(privilege)).pages[tlb::index(la)].gpa();
            let gpa = gpa.unwrap_or(page | la & PAGE_MASK);
            self.log.reached(&self.ram, la, gpa, kind);
        }
        Ok(reached)
    }

    fn find(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Reached, AccessFault> {
        let entry = &self.tlb.view(self.view(privilege)).data[tlb::index(la)];
        let tag = if kind == AccessKind::Write { entry.wtag } else { entry.rtag };
        if tag == la & !PAGE_MASK {
            return Ok(Reached::Ram { host: entry.at(la) as *mut u8, gpa: None });
        }
        Ok(self.translate(la, kind, privilege)?.into())
    }

    /// Where `count` quadwords from `la` on lie in RAM, if one access serves all: they are in one
    /// page, no writes to it are of interest to anyone, and no log wants to see each.
    pub(crate) fn run_of(
        &mut self,
        la: u64,
        count: usize,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Option<*mut u8>, AccessFault> {
        if count == 0 || self.log.is_recording() || Self::crosses(la, 8 * count as u64) {
            return Ok(None);
        }
        Ok(match self.find(la, kind, privilege)? {
            Reached::Ram { host, gpa } if gpa.is_none() || kind == AccessKind::Read => Some(host),
            Reached::Ram { .. } | Reached::Device { .. } => None,
        })
    }

    pub(crate) fn crosses(la: u64, len: u64) -> bool {
        (la & PAGE_MASK) + len > PAGE_MASK + 1
    }

    /// `la`, which lies in an access by `privilege` that begins at `start`: 4 GiB end the address
    /// space of all code but that of 64-bit mode. The processor's own accesses, and stacks of
    /// 64-bit handlers, lie above as well.
    pub(crate) fn wrap(&self, start: u64, la: u64, privilege: Privilege) -> u64 {
        let wide = self.paging.efer.contains(Efer::LMA)
            && (!self.compatible || privilege == Privilege::Implicit || start >> 32 != 0);
        if wide { la } else { la & 0xffff_ffff }
    }

    /// `len` bytes at `gpa` have changed: decoded code there is stale, in this processor and in
    /// others. `None`: there is none.
    pub(crate) fn wrote(&mut self, gpa: Option<u64>, len: u64) {
        if let Some(gpa) = gpa
            && !(self.log.is_recording() && self.kept(gpa, len))
        {
            self.blocks.written(gpa, len);
            self.let_go();
            self.reader.wrote(Gpa(gpa), len);
        }
    }

    /// Tells that this processor holds no code any more on the pages where it has just lost the
    /// last.
    #[inline]
    fn let_go(&mut self) {
        let released = self.blocks.released();
        if !released.is_empty() {
            self.reader.release_code(released.drain(..).map(Gpa));
        }
    }

    /// Makes sure that no processor writes to these pages (two at the most) without this one's
    /// being told, and that they are there. To be called before they are read to be decoded: what
    /// is read then and decoded before the next [`Mmu::catch_up`] is good.
    pub(crate) fn hold_code(&mut self, gpa: u64, second: Option<u64>) {
        loop {
            let seen = self.reader.seen();
            for gpa in [Some(gpa), second].into_iter().flatten() {
                self.hold_page(gpa);
                if self.ram.is_absent(Gpa(gpa)) && self.await_page(gpa).is_err() {
                    return;
                }
            }
            if self.reader.seen() == seen {
                return;
            }
        }
    }

    fn hold_page(&mut self, gpa: u64) {
        if self.blocks.is_code_page(gpa) {
            return;
        }
        self.let_go();
        self.blocks.open_page(gpa);
        self.tlb.forbid_writes(gpa & !PAGE_MASK, &mut self.log);
        if let Some(epoch) = self.reader.hold_code(Gpa(gpa)) {
            let Self { ram, reader, blocks, tlb, log, .. } = self;
            reader.wait(epoch, |change| apply(change, ram, blocks, tlb, log));
            self.let_go();
        }
    }

    /// The lock of accesses that cross a page. No device may be accessed while it is held.
    pub(crate) fn split_lock(&mut self) -> SplitLock {
        loop {
            if let Some(lock) = self.ram.try_split_lock() {
                return lock;
            }
            // Who has it may wait for a page, and who brings that for this processor.
            if self.behind() {
                self.catch_up();
            }
            std::thread::yield_now();
        }
    }

    /// Whether the access under way must not happen, because it could not be undone.
    #[cold]
    pub(crate) fn refuses(&mut self) -> bool {
        self.log.forbids()
    }

    /// While a log is kept a store kills no code: one that would is forbidden.
    #[cold]
    fn kept(&mut self, gpa: u64, len: u64) -> bool {
        if self.blocks.holds(gpa, len) {
            self.refuses();
        }
        true
    }

    /// Whether others have done something to memory that [`Mmu::catch_up`] must take note of.
    #[inline(always)]
    pub(crate) fn behind(&self) -> bool {
        self.reader.is_behind()
    }

    /// What changes with every [`Mmu::catch_up`], wherever that happens: host addresses from before
    /// are not good after.
    #[inline(always)]
    pub(crate) fn seen(&self) -> u64 {
        self.reader.seen()
    }

    /// Drops decoded code that others have overwritten, and translations that must not be used any
    /// more.
    #[cold]
    pub(crate) fn catch_up(&mut self) {
        let Self { ram, reader, blocks, tlb, log, .. } = self;
        reader.catch_up(|change| apply(change, ram, blocks, tlb, log));
        self.let_go();
    }

    /// Notes how often devices have written up to now.
    pub(crate) fn watch_devices(&mut self) {
        self.device_writes = self.ram.device_writes();
    }

    /// Whether a device has written to memory since [`Mmu::watch_devices`].
    pub(crate) fn devices_wrote(&self) -> bool {
        self.ram.device_writes() != self.device_writes
    }

    /// The host address of `len` bytes at `la` for an access of `kind`, if they are RAM on one
    /// page; `None`: they are not, though the access is permitted. For writes the caller calls
    /// [`Mmu::wrote`] with the second value afterwards.
    pub(crate) fn pin(
        &mut self,
        la: u64,
        len: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Option<(*mut u8, Option<u64>)>, AccessFault> {
        if Self::crosses(la, len) {
            if kind == AccessKind::Write {
                self.probe_write(La(la), len, privilege)?;
            } else {
                self.canonical_span(la, len)?;
                self.reach(la, kind, privilege)?;
                let next = self.wrap(la, (la | PAGE_MASK).wrapping_add(1), privilege);
                self.reach(next, kind, privilege)?;
            }
            return Ok(None);
        }
        Ok(match self.reach(la, kind, privilege)? {
            Reached::Ram { host, gpa } => Some((host, gpa)),
            Reached::Device { .. } => None,
        })
    }

    /// Where the code at `la` lies.
    pub(crate) fn fetch_target(
        &mut self,
        la: u64,
        privilege: Privilege,
    ) -> Result<Target, AccessFault> {
        self.translate(la, AccessKind::Execute, privilege)
    }

    /// A new value in CR3: chooses or flushes the PCID's translations.
    fn switch(&mut self, keep: bool) {
        let pcid = if self.paging.cr4.contains(Cr4::PCIDE) { self.paging.cr3 & 0xfff } else { 0 };
        self.tlb.switch(pcid as u16, keep, &mut self.log);
    }

    /// As [`x86::bus::SystemBus::probe_write`].
    pub(crate) fn probe_write(
        &mut self,
        la: La,
        len: u64,
        privilege: Privilege,
    ) -> Result<(), AccessFault> {
        if len == 0 {
            return Ok(());
        }
        if Self::crosses(la.0, len) {
            self.canonical_span(la.0, len)?;
        }
        self.reach(self.wrap(la.0, la.0, privilege), AccessKind::Write, privilege)?;
        let pages = ((la.0 & PAGE_MASK) + len - 1) >> 12;
        for n in 1..=pages {
            let next = self.wrap(la.0, (la.0 & !PAGE_MASK).wrapping_add(n << 12), privilege);
            self.reach(next, AccessKind::Write, privilege)?;
        }
        self.commit();
        Ok(())
    }

    /// Drops every translation.
    pub(crate) fn flush_tlb(&mut self) {
        self.tlb.flush_all(&mut self.log);
    }

    /// Makes data accesses to the page of `la` miss; more than that is never needed where the page
    /// tables have not changed.
    pub(crate) fn forget(&mut self, la: u64) {
        self.tlb.forget(la, &mut self.log);
    }

    /// As [`x86::bus::SystemBus::paging_changed`].
    pub(crate) fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect) {
        let rules = |s: &PagingState| {
            let cr0 = s.cr0 & (Cr0::PE | Cr0::WP | Cr0::PG);
            let cr4 = s.cr4
                & (Cr4::PSE | Cr4::PAE | Cr4::PGE | Cr4::PCIDE | Cr4::SMEP | Cr4::SMAP | Cr4::PKE);
            (cr0, cr4, s.efer & (Efer::LMA | Efer::NXE), s.pkru)
        };
        let changed = rules(&self.paging) != rules(state);
        self.paging = *state;
        if changed {
            // Views are judged under the rules in force at the walk: other rules, other views.
            self.flush_tlb();
        }
        let Self { tlb, log, .. } = self;
        match effect {
            TlbEffect::None => {}
            TlbEffect::FlushCurrent => tlb.flush_current(log),
            TlbEffect::FlushNonGlobal => tlb.flush_non_global(log),
            TlbEffect::FlushAll => tlb.flush_all(log),
            TlbEffect::SwitchKeep => self.switch(true),
            TlbEffect::SwitchFlush => self.switch(false),
            TlbEffect::Page(la) => tlb.flush_page(la.0, log),
            TlbEffect::PageOfPcid(pcid, la) => tlb.flush_page_of(pcid, la.0, log),
            TlbEffect::Pcid(pcid) => tlb.flush_pcid(pcid, log),
        }
    }

    /// As [`x86::bus::SystemBus::read_pdptes`].
    pub(crate) fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4] {
        while self.ram.is_absent(gpa) && self.await_page(gpa.0).is_ok() {}
        std::array::from_fn(|i| self.ram.read_u64(Gpa(gpa.0 + 8 * i as u64)))
    }
}

impl<B: CodeCache, R: Recorder> Drop for Mmu<B, R> {
    fn drop(&mut self) {
        self.blocks.flush();
        self.reader.release_code(self.blocks.released().drain(..).map(Gpa));
    }
}

#[cfg(test)]
mod tests;
