//! What performs a virtual processor's instructions: its architectural state, its MMU and the
//! machine, and what ops and the decoder need beside them.
//!
//! An op's handler gets the core and nothing else. What only the dispatcher and the translator need
//! is in [`crate::cpu::Cpu`], around it. The cache of decoded code is here, behind the MMU, which
//! tells it of each store to code ([`crate::observer::CodeCache`]).
//!
//! The inline paths of loads and stores live here: index the current view, compare, add. Whatever
//! misses goes to [`crate::mmu`].
#![allow(unsafe_code)] // the TLB hit; see docs/UNSAFE.md

use crate::block::{self, AVX_ON, BlockCache, SSE_ON, USER};
use crate::bus;
use crate::decode::features::FeatureTable;
use crate::fault::AccessFault;
use crate::interp::thunks::Thunks;
use crate::machine::Machine;
use crate::mmu;
use crate::op::{self, Fallible, Fault, width};
use crate::ram;
use crate::tlb::{self, Entry, FetchEntry, PAGE_MASK, Tlb};
use crate::translate::lockstep::Log;
use crate::word::Word;
use iced_x86::Instruction;
use memory::GuestRam;
use std::sync::Arc;
use vcpu::{Exit, InstructionClock, Signal, Signals, Statistics};
use x86::addr::{La, Port, PortWidth, Vector};
use x86::bus::{AccessKind, Privilege};
use x86::cpuid::CpuModel;
use x86::debug::{self, DataAccess};
use x86::exception::Exception;
use x86::regs::{Cr0, Cr4, Rflags};
use x86::segment::{self, Operand};
use x86::state::{CpuState, Mode, Seg, Segment, gpr};

/// Addresses of 64-bit mode without segment base.
pub(crate) const FLAT: u8 = 0;
/// Addresses of 64-bit mode with FS or GS base.
pub(crate) const BASED: u8 = 1;
/// Everything else: 16- and 32-bit addresses, segment bases and limits.
pub(crate) const LEGACY: u8 = 2;

/// An op of this processor.
pub(crate) type Op = op::Op<Core>;
/// What performs one of its ops.
pub(crate) type Handler = op::Handler<Core>;
/// Its MMU, with the code that it has decoded, and the log of what lockstep will undo.
pub(crate) type Mmu = mmu::Mmu<BlockCache<Core>, Option<Box<Log>>>;
/// The linear memory that its operations access.
pub(crate) type Bus<'a> = bus::Bus<'a, BlockCache<Core>, Option<Box<Log>>>;
/// A block of its code.
pub(crate) type Block = block::Block<Core>;

/// What the processor and its decoder call of the modules above them.
#[derive(Clone, Copy)]
pub(crate) struct Above {
    /// Leaves a block at its op's start. It replaces the handlers of a block whose code has
    /// changed.
    pub(crate) stale: Handler,
    /// Whether an instruction is to stand alone in its block, because the translator does not
    /// perform it.
    pub(crate) alone: fn(&Core, &Instruction) -> bool,
}

/// Time in instructions.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Arc<InstructionClock>,
    /// What the clock showed when this processor had completed no instruction.
    base: u64,
}

impl Time {
    pub(crate) fn new(clock: Arc<InstructionClock>) -> Self {
        Self { clock, base: 0 }
    }
}

/// See the module.
pub(crate) struct Core {
    pub(crate) state: CpuState,
    /// The data entries of the current view.
    pub(crate) view: *const Entry,
    /// The instruction entries of the current view.
    fetch: *const FetchEntry,
    /// The view that they belong to.
    pub(crate) fetch_view: usize,
    pub(crate) mmu: Mmu,
    pub(crate) machine: Machine,
    /// What the last `Fault` means.
    pub(crate) fault: AccessFault,
    /// Mode bits of block keys.
    pub(crate) mode_key: u8,
    pub(crate) mode: Mode,
    /// Something must be looked at before the next instruction: shadow, single step, breakpoints,
    /// halt.
    pub(crate) attention: bool,
    /// [`Core::refresh`] has been called since this was cleared.
    pub(crate) refreshed: bool,
    /// Data breakpoints hit by the instruction under way, as DR6 bits.
    pub(crate) data_hits: u64,
    /// A string instruction was interrupted between two iterations.
    pub(crate) mid_repeat: bool,
    pub(crate) instructions: u64,
    /// PAUSEs before the machine is asked whether others wait; translated code counts, too.
    pub(crate) pauses: i32,
    pub(crate) exit: Option<Exit>,
    /// The machine's time, if it is counted in instructions.
    pub(crate) time: Option<Time>,
    /// `--trace cpu` is on: single-step everything.
    pub(crate) trace: bool,
    pub(crate) model: CpuModel,
    pub(crate) features: FeatureTable,
    pub(crate) thunks: Thunks,
    pub(crate) signals: Arc<Signals>,
    pub(crate) above: Above,
    pub(crate) stats: Statistics,
}

// SAFETY: `view` and `fetch` point into the boxed tables of `mmu.tlb`, and `mmu.blocks` to blocks
// that it owns. They move with the core.
unsafe impl Send for Core {}

impl Core {
    /// That of a processor after reset.
    ///
    /// # Errors
    /// The host denies executable memory.
    pub(crate) fn new(ram: GuestRam, model: CpuModel, above: Above) -> std::io::Result<Self> {
        let state = CpuState::reset();
        let signals = Arc::new(Signals::default());
        let (blocks, woken) = (BlockCache::new(above.stale)?, signals.clone());
        let notify = Box::new(move || woken.raise(Signal::Changes));
        let mmu = Mmu::new(ram, Tlb::new()?, blocks, state.paging, notify);
        let mut core = Self {
            view: mmu.tlb.view(tlb::EMPTY).data.as_ptr(),
            fetch: mmu.tlb.view(tlb::EMPTY).fetch.as_ptr(),
            fetch_view: tlb::EMPTY,
            state,
            mmu,
            machine: Machine::default(),
            fault: Exception::ud().into(),
            mode_key: 0,
            mode: Mode::Real,
            attention: false,
            refreshed: true,
            data_hits: 0,
            mid_repeat: false,
            instructions: 0,
            pauses: 0,
            exit: None,
            time: None,
            trace: false,
            features: FeatureTable::new(&model),
            model,
            thunks: Thunks::new()?,
            signals,
            above,
            stats: Statistics::default(),
        };
        core.refresh();
        Ok(core)
    }

    /// Derives what follows from mode, privilege, CR0.AM, RFLAGS and debug registers. To be called
    /// after any of them may have changed.
    pub(crate) fn refresh(&mut self) {
        self.refreshed = true;
        let state = &self.state;
        self.mode = state.mode();
        let units = units(state);
        if units != self.mode_key & (SSE_ON | AVX_ON) {
            // Targets were entered for blocks of other keys.
            self.mmu.tlb.forget_targets();
        }
        let level = if state.cpl == 0 { 0 } else { USER };
        self.mode_key = self.mode as u8 | units | level;
        self.mmu.ac = state.flags.system & Rflags::AC.bits() != 0;
        self.mmu.compatible = state.long_mode() && self.mode != Mode::Long64;
        let aligned = self.mmu.ac && state.cpl == 3 && state.paging.cr0.contains(Cr0::AM);
        let view = if aligned { tlb::EMPTY } else { self.mmu.view(Privilege::at(state.cpl)) };
        self.view = self.mmu.tlb.view(view).data.as_ptr();
        let fetch = self.mmu.view(Privilege::at(state.cpl));
        self.fetch = self.fetch_of(fetch);
        // Targets are entered for CPL 0 and 3: the rings between share supervisor's pages but not
        // its rights.
        self.fetch_view = if matches!(state.cpl, 1 | 2) { tlb::EMPTY } else { fetch };
        self.attention = self.trace
            || state.flags.system & (Rflags::TF | Rflags::RF).bits() != 0
            || state.blocking.sti
            || state.blocking.mov_ss
            || debug::enabled_mask(state) != 0
            || state.activity != x86::state::Activity::Running;
    }

    /// Sends every access through the MMU, until [`Core::refresh`].
    pub(crate) fn bypass_tlb(&mut self) {
        self.view = self.mmu.tlb.view(tlb::EMPTY).data.as_ptr();
    }

    /// The instruction entries of view `n`.
    pub(crate) fn fetch_of(&self, n: usize) -> *const FetchEntry {
        self.mmu.tlb.view(n).fetch.as_ptr()
    }

    /// Where [`Core::view`] lies.
    pub(crate) const VIEW_OFFSET: usize = std::mem::offset_of!(Self, view);

    /// Where [`Core::pauses`] lies.
    pub(crate) const PAUSES_OFFSET: usize = std::mem::offset_of!(Self, pauses);

    /// Where [`Core::fetch`] lies.
    pub(crate) const FETCH_OFFSET: usize = std::mem::offset_of!(Self, fetch);

    /// Recomputes which pages are watched by data breakpoints.
    pub(crate) fn update_watchpoints(&mut self) {
        let mask = debug::data_mask(&self.state);
        for n in 0..4 {
            let address = self.state.dr.address[n] & !PAGE_MASK;
            self.mmu.watched[n] = (mask >> n & 1 != 0).then_some(address);
        }
        self.mmu.flush_tlb();
        self.refresh();
    }

    /// Linear memory, for accesses that may reach a device.
    pub(crate) fn bus(&mut self) -> Bus<'_> {
        Bus { mmu: &mut self.mmu, machine: &mut self.machine }
    }

    /// What `x86`'s operations work on: the model, the state and linear memory.
    pub(crate) fn parts(&mut self) -> (&CpuModel, &mut CpuState, Bus<'_>) {
        let Self { model, state, mmu, machine, .. } = self;
        (model, state, Bus { mmu, machine })
    }

    /// What a TSC with offset 0 shows.
    pub(crate) fn ticks(&self) -> u64 {
        self.time.as_ref().map_or_else(vcpu::host_tsc, |time| time.clock.now())
    }

    /// Tells the machine the time, of which `ahead` instructions are not counted yet.
    #[inline(always)]
    pub(crate) fn tell_time(&self, ahead: u64) {
        if let Some(time) = &self.time {
            time.clock.set(time.base.wrapping_add(self.instructions).wrapping_add(ahead));
        }
    }

    /// A run begins: time goes on from where the machine's other processors have left it.
    pub(crate) fn take_time(&mut self) {
        let instructions = self.instructions;
        if let Some(time) = &mut self.time {
            time.base = time.clock.now().wrapping_sub(instructions);
        }
    }

    /// Notes a fault and says so.
    #[cold]
    pub(crate) fn raise<T>(&mut self, fault: impl Into<AccessFault>) -> Fallible<T> {
        self.fault = fault.into();
        Err(Fault)
    }

    /// #GP(0).
    #[cold]
    pub(crate) fn gp<T>(&mut self) -> Fallible<T> {
        self.raise(Exception::gp(0))
    }

    /// #UD.
    #[cold]
    pub(crate) fn ud<T>(&mut self) -> Fallible<T> {
        self.raise(Exception::ud())
    }

    /// Passes on what an access, or one of the architecture's functions, says.
    #[inline]
    pub(crate) fn check<T>(&mut self, result: Result<T, impl Into<AccessFault>>) -> Fallible<T> {
        result.or_else(|e| self.raise(e))
    }

    /// RIP of the op under way.
    #[inline(always)]
    pub(crate) fn ip(&self, op: &Op) -> u64 {
        self.state.gpr[gpr::BLOCK_IP].wrapping_add(u64::from(op.offset))
    }

    /// RIP of the instruction after the op under way, wrapped to the code segment's size.
    #[inline(always)]
    pub(crate) fn next_ip(&self, op: &Op) -> u64 {
        let ip = self.state.gpr[gpr::BLOCK_IP].wrapping_add(op.end());
        if self.mode == Mode::Long64 { ip } else { self.wrap_ip(ip) }
    }

    fn wrap_ip(&self, ip: u64) -> u64 {
        match self.mode {
            Mode::Long64 => ip,
            Mode::Protected32 => ip & 0xffff_ffff,
            // 16-bit code may run beyond 64 KiB only into its segment limit; big real mode code
            // wraps at 32 bits.
            _ => ip & 0xffff_ffff,
        }
    }

    #[inline(always)]
    pub(crate) fn slot(&self, r: u8) -> u64 {
        debug_assert!((r as usize) < gpr::SLOTS);
        // SAFETY: the decoder writes slot numbers below `SLOTS` only.
        unsafe { *self.state.gpr.get_unchecked(r as usize) }
    }

    #[inline(always)]
    pub(crate) fn reg<W: Word>(&self, r: u8) -> W {
        W::get(&self.state.gpr, r)
    }

    #[inline(always)]
    pub(crate) fn set_reg<W: Word>(&mut self, r: u8, value: W) {
        W::set(&mut self.state.gpr, r, value);
    }

    /// The effective address of `op`'s memory operand, before segmentation.
    #[inline(always)]
    pub(crate) fn effective(&self, op: &Op) -> u64 {
        self.slot(op.base)
            .wrapping_add(self.slot(op.index) << op.scale)
            .wrapping_add(i64::from(op.disp) as u64)
    }

    /// The linear address of `op`'s memory operand of `size` bytes.
    #[inline(always)]
    pub(crate) fn linear<const A: u8>(
        &mut self,
        op: &Op,
        size: u64,
        kind: AccessKind,
    ) -> Fallible<u64> {
        match A {
            FLAT => Ok(self.effective(op)),
            BASED => {
                let base = self.state.seg[usize::from(op.seg & 7) % 6].base;
                Ok(self.effective(op).wrapping_add(base))
            }
            _ => self.linear_legacy(op, size, kind),
        }
    }

    /// As [`Core::linear`], outside the flat forms.
    pub(crate) fn linear_legacy(&mut self, op: &Op, size: u64, kind: AccessKind) -> Fallible<u64> {
        let offset = self.offset(op);
        self.segmented(op.seg, offset, size, kind)
    }

    /// The effective address, wrapped to the address size.
    pub(crate) fn offset(&self, op: &Op) -> u64 {
        truncate(self.effective(op), op.address_size)
    }

    /// The linear address of the `size` bytes that begin `at` bytes into `op`'s memory operand,
    /// which is accessed in parts ([`Operand`]).
    pub(crate) fn part(&mut self, op: &Op, at: u64, size: u64, kind: AccessKind) -> Fallible<u64> {
        let offset = self.operand(op).offset_of(at);
        self.segmented(op.seg, offset, size, kind)
    }

    /// Where `op`'s memory operand begins.
    pub(crate) fn operand(&self, op: &Op) -> Operand {
        Operand {
            seg: SEGMENTS[usize::from(op.seg) % 6],
            offset: self.effective(op),
            address_size: width(op.address_size),
        }
    }

    /// Applies segment `seg` to `offset`.
    pub(crate) fn segmented(
        &mut self,
        seg: u8,
        offset: u64,
        size: u64,
        kind: AccessKind,
    ) -> Fallible<u64> {
        let seg = SEGMENTS[usize::from(seg) % 6];
        if self.mode == Mode::Long64 {
            let base =
                if seg as u8 >= Seg::Fs as u8 { self.state.seg[seg as usize].base } else { 0 };
            return Ok(base.wrapping_add(offset));
        }
        if let Some(la) = flat(&self.state.seg[seg as usize], offset, size, kind) {
            return Ok(la);
        }
        let result = segment::check_access(&self.state, seg, offset, size as u32, kind);
        self.check(result.map(|la| la.0))
    }

    /// The instruction entry that may hold `la`'s page.
    #[inline(always)]
    pub(crate) fn fetch_entry(&self, la: u64) -> FetchEntry {
        // SAFETY: `fetch` points to `FETCH_ENTRIES` entries (see `refresh`) and `fetch_index` is
        // below that.
        unsafe { *self.fetch.add(tlb::fetch_index(la)) }
    }

    #[inline(always)]
    fn entry(&self, la: u64) -> &Entry {
        // SAFETY: `view` points to `ENTRIES` entries (see `refresh`) and `index` is below that.
        unsafe { &*self.view.add(tlb::index(la)) }
    }

    /// The read and the write tag that `la` is judged by.
    pub(crate) fn tags(&self, la: u64) -> (u64, u64) {
        let entry = self.entry(la);
        (entry.rtag, entry.wtag)
    }

    /// Loads from linear address `la`.
    #[inline(always)]
    pub(crate) fn load<W: Word>(&mut self, la: u64) -> Fallible<W> {
        let entry = self.entry(la);
        if entry.rtag == la.wrapping_add(u64::from(W::SIZE) - 1) & !PAGE_MASK {
            // SAFETY: the tag matched first byte (by index) and last byte: all in one page of RAM.
            return Ok(unsafe { ram::load(entry.at(la) as *const u8) });
        }
        self.load_slow(la)
    }

    /// Stores to linear address `la`.
    #[inline(always)]
    pub(crate) fn store<W: Word>(&mut self, la: u64, value: W) -> Fallible {
        let entry = self.entry(la);
        if entry.wtag == la.wrapping_add(u64::from(W::SIZE) - 1) & !PAGE_MASK {
            // SAFETY: the tag matched the first byte (by index) and the last: all in one page of
            // RAM that may be written.
            unsafe { ram::store(entry.at(la) as *mut u8, value) };
            return Ok(());
        }
        self.store_slow(la, value)
    }

    /// Reads, changes and writes back the word at `la`. `change` runs once it is certain that the
    /// write will succeed.
    #[inline(always)]
    pub(crate) fn modify<W: Word>(
        &mut self,
        la: u64,
        change: impl FnOnce(&mut CpuState, W) -> W,
    ) -> Fallible {
        let entry = self.entry(la);
        if entry.wtag == la.wrapping_add(u64::from(W::SIZE) - 1) & !PAGE_MASK {
            let p = entry.at(la) as *mut u8;
            // SAFETY: the tag matched the first byte (by index) and the last: all in one page of
            // RAM. A write tag implies the right to read.
            unsafe {
                let old = ram::load(p);
                ram::store(p, change(&mut self.state, old));
            }
            return Ok(());
        }
        self.prepare_modify::<W>(la)?;
        let old = self.load_slow::<W>(la)?;
        let new = change(&mut self.state, old);
        self.store_slow(la, new)
    }

    #[cold]
    fn prepare_modify<W: Word>(&mut self, la: u64) -> Fallible {
        self.align::<W>(la)?;
        let privilege = self.privilege();
        let result = self.mmu.probe_write(La(la), u64::from(W::SIZE), privilege);
        self.check(result)
    }

    #[cold]
    #[inline(never)]
    fn load_slow<W: Word>(&mut self, la: u64) -> Fallible<W> {
        self.align::<W>(la)?;
        let privilege = self.privilege();
        let result = self.bus().load(La(la), W::WIDTH, privilege);
        let value = self.check(result)?;
        self.watch(la, W::SIZE, DataAccess::Read);
        Ok(W::cut(value))
    }

    #[cold]
    #[inline(never)]
    fn store_slow<W: Word>(&mut self, la: u64, value: W) -> Fallible {
        self.align::<W>(la)?;
        let privilege = self.privilege();
        let result = self.bus().store(La(la), W::WIDTH, value.zext(), privilege);
        self.check(result)?;
        self.watch(la, W::SIZE, DataAccess::Write);
        Ok(())
    }

    /// The privilege of the program's own accesses.
    pub(crate) fn privilege(&self) -> Privilege {
        Privilege::at(self.state.cpl)
    }

    /// Whether #AC is armed: CR0.AM, RFLAGS.AC and CPL 3 (SDM vol. 3, 6.15, interrupt 17).
    pub(crate) fn alignment_checked(&self) -> bool {
        self.state.cpl == 3 && self.mmu.ac && self.state.paging.cr0.contains(Cr0::AM)
    }

    fn align<W: Word>(&mut self, la: u64) -> Fallible {
        self.aligned(la, u64::from(W::SIZE), u64::from(W::SIZE))
    }

    /// #AC(0) for an access of `len` bytes at `la` that `alignment` (a power of two) does not
    /// divide, while that is armed. An address that is not canonical goes before it, a page fault
    /// after it.
    pub(crate) fn aligned(&mut self, la: u64, len: u64, alignment: u64) -> Fallible {
        if la & (alignment - 1) == 0 || !self.alignment_checked() {
            return Ok(());
        }
        let canonical = self.mmu.canonical_span(la, len);
        self.check(canonical)?;
        self.raise(Exception::with_code(Vector::AC, 0))
    }

    /// Notes breakpoints hit by an access to `port` just made.
    pub(crate) fn watch_port(&mut self, port: Port, width: PortWidth) {
        if let Some(hits) = debug::port_breakpoint(&self.state, port, width) {
            self.data_hits |= hits;
            self.attention = true;
        }
    }

    /// Notes data breakpoints hit by an access just made.
    pub(crate) fn watch(&mut self, la: u64, len: u8, access: DataAccess) {
        if self.mmu.watched == [None; 4] {
            return;
        }
        if let Some(hits) = debug::data_breakpoint(&self.state, La(la), u64::from(len), access) {
            self.data_hits |= hits;
            self.attention = true;
        }
    }
}

/// Cuts an address to `size` bytes.
#[inline(always)]
pub(crate) fn truncate(address: u64, size: u8) -> u64 {
    match size {
        2 => address & 0xffff,
        4 => address & 0xffff_ffff,
        _ => address,
    }
}

/// Segment registers by number.
pub(crate) const SEGMENTS: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];

/// Which vector units instructions may use without a check (SDM vol. 3, 2.5 and 13.1).
fn units(state: &CpuState) -> u8 {
    let (cr0, cr4) = (state.paging.cr0, state.paging.cr4);
    if cr0.intersects(Cr0::EM | Cr0::TS) || !cr4.contains(Cr4::OSFXSR) {
        return 0;
    }
    if cr4.contains(Cr4::OSXSAVE) && state.xcr0 & 6 == 6 { SSE_ON | AVX_ON } else { SSE_ON }
}

/// The linear address in a flat writable data segment, which nearly all segments of 32-bit systems
/// are: every access within 4 GiB passes every check (SDM vol. 3, 5.3 and 5.5).
#[inline]
fn flat(segment: &Segment, offset: u64, size: u64, kind: AccessKind) -> Option<u64> {
    /// Present, code or data; data rather than code; upwards; writable.
    const RIGHTS: (u16, u16) = (0x9e, 0x92);
    let plain =
        segment.base == 0 && segment.limit == u32::MAX && segment.access & RIGHTS.0 == RIGHTS.1;
    (plain && kind != AccessKind::Execute && offset + size <= 1 << 32).then_some(offset)
}
