//! The MMU: linear addresses to RAM or device, through the TLB, at the speed each case deserves.
//!
//! The hit is inline in [`crate::cpu`]; everything else is here: the miss that asks the page walk of `x86::paging`, accesses across
//! page boundaries, device memory, stores to pages that hold decoded code. Also the processor's own accesses
//! ([`SystemBus`]), which descriptor loads and exception delivery make.
#![allow(unsafe_code)] // host pointers from the TLB; see docs/UNSAFE.md

use crate::block::BlockCache;
use crate::ram;
use crate::tlb::{self, Fill, PAGE_MASK, Tlb};
use crate::translate::lockstep::Log;
use memory::GuestRam;
use std::ptr::NonNull;
use vcpu::CpuIo;
use x86::bus::{Access, AccessKind, PhysicalMemory, Privilege, SystemBus, TlbEffect};
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

/// See the module.
pub(crate) struct Mmu {
    pub(crate) ram: GuestRam,
    pub(crate) tlb: Tlb,
    pub(crate) blocks: BlockCache,
    pub(crate) paging: PagingState,
    /// RFLAGS.AC, which overrides SMAP for explicit supervisor accesses.
    pub(crate) ac: bool,
    /// Code of compatibility mode runs: its linear addresses have 32 bits.
    pub(crate) compatible: bool,
    /// Linear pages under a data breakpoint: never in the TLB, so that every access to them is seen.
    pub(crate) watched: [Option<u64>; 4],
    /// The last #GP came from a non-canonical address: a stack reference makes it #SS.
    pub(crate) noncanonical: bool,
    /// Device writes to memory up to here have been taken note of.
    dma_seen: u64,
    /// The machine, while `run` is under way.
    io: Option<NonNull<dyn CpuIo>>,
    pub(crate) refills: u64,
    pub(crate) mmio: u64,
    /// While the reference runs ahead of translated code: what it reaches, so that it can be undone.
    pub(crate) log: Option<Box<Log>>,
}

// SAFETY: the pointers refer to memory the structure itself keeps alive (RAM, blocks) or are only set inside `run`.
unsafe impl Send for Mmu {}

impl Mmu {
    pub(crate) fn new(ram: GuestRam, blocks: BlockCache, paging: PagingState) -> Self {
        Self {
            dma_seen: ram.dma_generation(),
            ram,
            tlb: Tlb::new(),
            blocks,
            paging,
            ac: false,
            compatible: false,
            watched: [None; 4],
            noncanonical: false,
            io: None,
            refills: 0,
            mmio: 0,
            log: None,
        }
    }

    /// Lends the machine for the duration of `body`'s caller; see [`Mmu::release`].
    pub(crate) fn lend(&mut self, io: &mut dyn CpuIo) {
        // SAFETY: only the lifetime is erased; `run` releases the pointer before its borrow of `io` ends.
        let io: NonNull<dyn CpuIo + 'static> =
            unsafe { std::mem::transmute::<NonNull<dyn CpuIo + '_>, _>(NonNull::from(io)) };
        self.io = Some(io);
    }

    pub(crate) fn release(&mut self) {
        self.io = None;
    }

    /// The machine. Absent (outside `run`) nothing answers.
    pub(crate) fn io(&mut self) -> Option<&mut dyn CpuIo> {
        // SAFETY: set by `lend` from an exclusive borrow that outlives `run`; one reference at a time, bound to `self`.
        self.io.map(|mut io| unsafe { io.as_mut() as &mut dyn CpuIo })
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

    /// Translates `la`, which must not be followed beyond its page, and enters the result into the TLB.
    pub(crate) fn translate(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Target, Exception> {
        self.canonical(la)?;
        self.refills += 1;
        if let Some(log) = &mut self.log {
            log.walked(la);
        }
        let access = Access { kind, privilege };
        let t = paging::translate(&self.paging, self.ac, &self.ram, la, access);
        if let Some(log) = &mut self.log {
            log.marked(&self.ram, self.paging.cr3, la);
        }
        let t = t?;
        let page = la & !PAGE_MASK;
        let gpa_page = t.gpa & !PAGE_MASK;
        let Some(host) = self.ram.host_address(gpa_page, PAGE_MASK + 1) else {
            return Ok(Target::Device { gpa: t.gpa });
        };
        let view = self.view(privilege);
        if kind == AccessKind::Execute {
            self.tlb.fill_fetch(view, page, gpa_page, t.global, t.page_size);
        } else if !self.watched.contains(&Some(page)) {
            self.tlb.fill(
                view,
                Fill {
                    page,
                    gpa: gpa_page,
                    host: host as u64,
                    read: true,
                    write: t.writable_now && !self.blocks.is_code_page(gpa_page),
                    global: t.global,
                    size: t.page_size,
                },
            );
        }
        // SAFETY: within the page that `host_address` vouched for.
        let host = unsafe { host.add((t.gpa & PAGE_MASK) as usize) };
        Ok(Target::Ram { host, gpa: t.gpa })
    }

    /// #GP(0) for an address that IA-32e mode does not have (a stack reference makes it #SS: see `noncanonical`).
    fn canonical(&mut self, la: u64) -> Result<(), Exception> {
        self.noncanonical = self.paging.efer.contains(Efer::LMA) && !paging::is_canonical(la);
        if self.noncanonical { Err(Exception::gp(0)) } else { Ok(()) }
    }

    /// As [`Mmu::canonical`] for all of an access: the judgement that goes before those of alignment and paging.
    pub(crate) fn canonical_span(&mut self, la: u64, len: u64) -> Result<(), Exception> {
        self.canonical(la)?;
        self.canonical(la.wrapping_add(len.saturating_sub(1)))
    }

    /// Looks `la` up in the TLB, then in the tables.
    fn reach(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Target, Exception> {
        let mut target = self.find(la, kind, privilege)?;
        let view = self.view(privilege);
        if let (Some(log), Target::Ram { gpa, .. }) = (&mut self.log, &mut target) {
            if *gpa == u64::MAX {
                *gpa = self.tlb.view(view).pages[tlb::index(la)].gpa() | la & PAGE_MASK;
            }
            log.reached(&self.ram, la, *gpa, kind);
        }
        Ok(target)
    }

    fn find(
        &mut self,
        la: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Target, Exception> {
        let entry = &self.tlb.view(self.view(privilege)).data[tlb::index(la)];
        let tag = if kind == AccessKind::Write { entry.wtag } else { entry.rtag };
        if tag == la & !PAGE_MASK {
            // The guest-physical address only matters for code pages, which have no write tag.
            return Ok(Target::Ram { host: entry.at(la) as *mut u8, gpa: u64::MAX });
        }
        self.translate(la, kind, privilege)
    }

    fn crosses(la: u64, len: u64) -> bool {
        (la & PAGE_MASK) + len > PAGE_MASK + 1
    }

    /// `la`, which lies in an access by `privilege` that begins at `start`: 4 GiB end the address space of all code but that of 64-bit
    /// mode. The processor's own accesses, and stacks of 64-bit handlers, lie above as well.
    fn wrap(&self, start: u64, la: u64, privilege: Privilege) -> u64 {
        let wide = self.paging.efer.contains(Efer::LMA)
            && (!self.compatible || privilege == Privilege::Implicit || start >> 32 != 0);
        if wide { la } else { la & 0xffff_ffff }
    }

    /// One access to `target`, within a page.
    fn read_at(&mut self, target: Target, size: u8) -> u64 {
        match target {
            // SAFETY: `target` came from `reach` for an access that stays within the page.
            Target::Ram { host, .. } => unsafe {
                match size {
                    1 => u64::from(ram::load::<u8>(host)),
                    2 => u64::from(ram::load::<u16>(host)),
                    4 => u64::from(ram::load::<u32>(host)),
                    _ => ram::load::<u64>(host),
                }
            },
            Target::Device { gpa } => {
                if self.refuses() {
                    return 0;
                }
                self.mmio += 1;
                self.io().map_or(u64::MAX, |io| io.mmio_read(gpa, size))
            }
        }
    }

    /// One store to `target`, within a page. Decoded code there dies.
    fn write_at(&mut self, target: Target, size: u8, value: u64) {
        match target {
            Target::Ram { host, gpa } => {
                // SAFETY: as in `read_at`.
                unsafe {
                    match size {
                        1 => ram::store(host, value as u8),
                        2 => ram::store(host, value as u16),
                        4 => ram::store(host, value as u32),
                        _ => ram::store(host, value),
                    }
                }
                self.wrote(gpa, u64::from(size));
            }
            Target::Device { gpa } => {
                if self.refuses() {
                    return;
                }
                self.mmio += 1;
                if let Some(io) = self.io() {
                    io.mmio_write(gpa, size, value);
                }
            }
        }
    }

    /// `len` bytes at `gpa` have changed: decoded code there is stale.
    pub(crate) fn wrote(&mut self, gpa: u64, len: u64) {
        if gpa != u64::MAX && !(self.log.is_some() && self.kept(gpa, len)) {
            self.blocks.written(gpa, len);
        }
    }

    /// Whether the access under way must not happen, because it could not be undone.
    #[cold]
    fn refuses(&mut self) -> bool {
        self.log.as_mut().is_some_and(|log| log.forbid())
    }

    /// While a log is kept a store kills no code: one that would is forbidden.
    #[cold]
    fn kept(&mut self, gpa: u64, len: u64) -> bool {
        if self.blocks.holds(gpa, len) {
            self.refuses();
        }
        true
    }

    /// Whether devices have written to memory since [`Mmu::catch_up`].
    #[inline(always)]
    pub(crate) fn behind(&self) -> bool {
        self.ram.dma_generation() != self.dma_seen
    }

    /// Drops decoded code that devices have overwritten.
    #[cold]
    pub(crate) fn catch_up(&mut self) {
        let Self { ram, blocks, dma_seen, .. } = self;
        let result = ram.dma_writes_since(dma_seen, |write| {
            let end = write.gpa.saturating_add(write.len);
            let mut gpa = write.gpa;
            while gpa < end {
                let page_end = (gpa | PAGE_MASK).saturating_add(1).min(end);
                blocks.written(gpa, page_end - gpa);
                gpa = page_end;
            }
        });
        if result.is_err() {
            blocks.flush();
        }
    }

    fn read_split(&mut self, la: u64, size: u8, privilege: Privilege) -> Result<u64, Exception> {
        // Segmentation judges the whole operand before paging sees its first byte.
        self.canonical_span(la, u64::from(size))?;
        let mut value = 0;
        for i in 0..size {
            let target = self.reach(
                self.wrap(la, la.wrapping_add(u64::from(i)), privilege),
                AccessKind::Read,
                privilege,
            )?;
            value |= self.read_at(target, 1) << (8 * i);
        }
        Ok(value)
    }

    fn write_split(
        &mut self,
        la: u64,
        size: u8,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), Exception> {
        self.probe_write(la, u64::from(size), privilege)?;
        for i in 0..size {
            let target = self.reach(
                self.wrap(la, la.wrapping_add(u64::from(i)), privilege),
                AccessKind::Write,
                privilege,
            )?;
            self.write_at(target, 1, value >> (8 * i) & 0xff);
        }
        Ok(())
    }

    /// The host address of `len` bytes at `la` for an access of `kind`, if they are RAM on one page; `None`: they are not, though
    /// the access is permitted. For writes the caller calls [`Mmu::wrote`] with the second value afterwards.
    pub(crate) fn pin(
        &mut self,
        la: u64,
        len: u64,
        kind: AccessKind,
        privilege: Privilege,
    ) -> Result<Option<(*mut u8, u64)>, Exception> {
        if Self::crosses(la, len) {
            if kind == AccessKind::Write {
                self.probe_write(la, len, privilege)?;
            } else {
                self.canonical_span(la, len)?;
                self.reach(la, kind, privilege)?;
                let next = self.wrap(la, (la | PAGE_MASK).wrapping_add(1), privilege);
                self.reach(next, kind, privilege)?;
            }
            return Ok(None);
        }
        Ok(match self.reach(la, kind, privilege)? {
            Target::Ram { host, gpa } => Some((host, gpa)),
            Target::Device { .. } => None,
        })
    }

    /// Where the code at `la` lies.
    pub(crate) fn fetch_target(
        &mut self,
        la: u64,
        privilege: Privilege,
    ) -> Result<Target, Exception> {
        self.translate(la, AccessKind::Execute, privilege)
    }

    /// Reads `into.len()` bytes at `la`, byte by byte where pages end.
    pub(crate) fn read_bytes(
        &mut self,
        la: u64,
        into: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Exception> {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte =
                self.read(self.wrap(la, la.wrapping_add(i as u64), privilege), 1, privilege)? as u8;
        }
        Ok(())
    }

    /// Writes bytes at `la`; all or nothing.
    pub(crate) fn write_bytes(
        &mut self,
        la: u64,
        from: &[u8],
        privilege: Privilege,
    ) -> Result<(), Exception> {
        self.probe_write(la, from.len() as u64, privilege)?;
        for (i, &byte) in from.iter().enumerate() {
            self.write(
                self.wrap(la, la.wrapping_add(i as u64), privilege),
                1,
                u64::from(byte),
                privilege,
            )?;
        }
        Ok(())
    }

    /// A new value in CR3: chooses or flushes the PCID's translations.
    fn switch(&mut self, keep: bool) {
        let pcid = if self.paging.cr4.contains(Cr4::PCIDE) { self.paging.cr3 & 0xfff } else { 0 };
        self.tlb.switch(pcid as u16, keep);
    }
}

impl SystemBus for Mmu {
    fn read(&mut self, la: u64, size: u8, privilege: Privilege) -> Result<u64, Exception> {
        if Self::crosses(la, u64::from(size)) {
            return self.read_split(la, size, privilege);
        }
        let target = self.reach(la, AccessKind::Read, privilege)?;
        Ok(self.read_at(target, size))
    }

    fn write(
        &mut self,
        la: u64,
        size: u8,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), Exception> {
        if Self::crosses(la, u64::from(size)) {
            return self.write_split(la, size, value, privilege);
        }
        let target = self.reach(la, AccessKind::Write, privilege)?;
        self.write_at(target, size, value);
        Ok(())
    }

    fn probe_write(&mut self, la: u64, len: u64, privilege: Privilege) -> Result<(), Exception> {
        if len == 0 {
            return Ok(());
        }
        if Self::crosses(la, len) {
            self.canonical_span(la, len)?;
        }
        self.reach(self.wrap(la, la, privilege), AccessKind::Write, privilege)?;
        let pages = ((la & PAGE_MASK) + len - 1) >> 12;
        for n in 1..=pages {
            let next = self.wrap(la, (la & !PAGE_MASK).wrapping_add(n << 12), privilege);
            self.reach(next, AccessKind::Write, privilege)?;
        }
        Ok(())
    }

    fn fetch_or_u8(&mut self, la: u64, bits: u8) -> Result<u8, Exception> {
        match self.reach(la, AccessKind::Write, Privilege::Implicit)? {
            Target::Ram { host, gpa } => {
                // SAFETY: one byte of RAM; guest memory is only accessed by volatile or atomic operations.
                let cell = unsafe { std::sync::atomic::AtomicU8::from_ptr(host) };
                let old = cell.fetch_or(bits, std::sync::atomic::Ordering::SeqCst);
                self.wrote(gpa, 1);
                Ok(old)
            }
            target @ Target::Device { .. } => {
                let old = self.read_at(target, 1) as u8;
                self.write_at(target, 1, u64::from(old | bits));
                Ok(old)
            }
        }
    }

    fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect) {
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
            self.tlb.flush_all();
        }
        match effect {
            TlbEffect::None => {}
            TlbEffect::FlushCurrent => self.tlb.flush_current(),
            TlbEffect::FlushNonGlobal => self.tlb.flush_non_global(),
            TlbEffect::FlushAll => self.tlb.flush_all(),
            TlbEffect::SwitchKeep => self.switch(true),
            TlbEffect::SwitchFlush => self.switch(false),
            TlbEffect::Page(la) => self.tlb.flush_page(la),
            TlbEffect::PageOfPcid(pcid, la) => self.tlb.flush_page_of(pcid, la),
            TlbEffect::Pcid(pcid) => self.tlb.flush_pcid(pcid),
        }
    }

    fn read_pdptes(&mut self, gpa: u64) -> [u64; 4] {
        std::array::from_fn(|i| self.ram.read_u64(gpa + 8 * i as u64))
    }
}
