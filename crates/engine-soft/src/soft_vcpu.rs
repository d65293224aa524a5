//! A virtual processor of the software engine, as the contract has it.

use crate::core::{Above, Core};
use crate::cpu::Cpu;
use crate::mmu::OnAbsent;
use crate::tier::{self, Tier};
use crate::translate::lockstep::{Lockstep, Sabotage};
use crate::translate::{TranslationCache, Translator};
use crate::{interp, translate};
use iced_x86::Instruction;
use memory::GuestRam;
use std::sync::Arc;
use vcpu::{CpuIo, Elements, Exit, Signals, Slice, StateError, Statistics, Vcpu};
use x86::bus::TlbEffect;
use x86::cpuid::CpuModel;
use x86::state::CpuState;

/// Bytes of translated code kept by default.
pub const CODE_CACHE: usize = 64 << 20;

/// A virtual processor of the software engine.
pub struct SoftVcpu {
    pub(crate) cpu: Box<Cpu>,
    /// Holds translated code against the interpreter ([`Tier::Lockstep`]).
    lockstep: Option<Box<Lockstep>>,
}

impl SoftVcpu {
    /// A processor after reset, on `ram`, that presents itself as `model`.
    ///
    /// # Errors
    /// The host denies executable memory, or its signals cannot be caught.
    pub fn new(ram: GuestRam, model: CpuModel) -> std::io::Result<Self> {
        Self::with_tier(ram, model, Tier::default(), CODE_CACHE)
    }

    /// As [`SoftVcpu::new`], with a choice of tier and `code_cache` bytes for translations.
    ///
    /// # Errors
    /// As [`SoftVcpu::new`].
    pub fn with_tier(
        ram: GuestRam,
        model: CpuModel,
        tier: Tier,
        code_cache: usize,
    ) -> std::io::Result<Self> {
        let cache = Arc::new(translate::code_cache(ram.clone(), code_cache)?);
        Self::sharing(cache, ram, model, tier)
    }

    /// One more processor of the same machine, which has the same translations: for tests.
    ///
    /// # Errors
    /// As [`SoftVcpu::new`].
    #[doc(hidden)]
    pub fn sibling(&self, tier: Tier) -> std::io::Result<Self> {
        let (cache, core) = (self.cpu.translator.cache(), &self.cpu.core);
        Self::sharing(cache.share()?, core.mmu.ram.clone(), core.model.clone(), tier)
    }

    /// As [`SoftVcpu::new`], with a choice of tier, and with the translations in `cache`: those of
    /// the same RAM, by processors of the same model (but for its number) and tier.
    pub(crate) fn sharing(
        cache: Arc<TranslationCache>,
        ram: GuestRam,
        model: CpuModel,
        tier: Tier,
    ) -> std::io::Result<Self> {
        let above = Above { stale: interp::control::stale, alone: alone(tier) };
        let mut core = Core::new(ram, model, above)?;
        core.mmu.tlb.slots = cache.slots();
        let translator = Translator::new(cache, core.signals.clone());
        let mut cpu = Box::new(Cpu::new(core, translator));
        let lockstep = (tier == Tier::Lockstep).then(Box::default);
        cpu.hot = tier.hot();
        if lockstep.is_none() {
            // What was run ahead of, and must be reached, has no place to leave at.
            cpu.core.mmu.patience = OnAbsent::Leave;
        }
        if cpu.hot != u32::MAX {
            translate::interrupt::install()?;
            cpu.core.signals.set_interrupt(Arc::new(translate::interrupt::send));
        }
        cpu.translator.compared = lockstep.is_some();
        if cpu.translator.compared {
            translate::limit(&cpu);
        }
        Ok(Self { cpu, lockstep })
    }

    /// Makes the next comparison under [`Tier::Lockstep`] meet a wrong result: for tests.
    #[doc(hidden)]
    pub fn sabotage(&mut self, how: Sabotage) {
        if let Some(lockstep) = &mut self.lockstep {
            lockstep.sabotage = Some(how);
        }
    }

    /// Counts instructions in translated code, too, which slows it by some per cent. Without, and
    /// without a limit, those count as none.
    pub fn count_instructions(&mut self) {
        translate::count(&self.cpu);
    }

    /// Translates every block at its first run rather than when it is hot: for tests.
    pub fn translate_at_once(&mut self) {
        self.cpu.hot = 0;
    }

    /// The architectural state, without a copy.
    pub fn state_now(&self) -> &CpuState {
        &self.cpu.core.state
    }

    fn assign(&mut self, elements: Elements, state: &CpuState) {
        let core = &mut self.cpu.core;
        core.state.assign(elements, state);
        if elements.contains(Elements::CONTROL) {
            core.mmu.paging_changed(&state.paging, TlbEffect::FlushAll);
            core.mmu.paging_changed(&state.paging, TlbEffect::SwitchFlush);
        }
        // The engine's own: what is under way between two instructions.
        core.data_hits = 0;
        core.exit = None;
        if elements.contains(Elements::DEBUG) {
            core.update_watchpoints();
        } else {
            core.refresh();
        }
    }
}

/// Which instructions stand alone in their block under `tier`.
fn alone(tier: Tier) -> fn(&Core, &Instruction) -> bool {
    match tier {
        Tier::Interpret => |_, _| false,
        Tier::Translate => translate::leaves_alone,
        Tier::Lockstep => translate::leaves_alone_compared,
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, io: &mut dyn CpuIo, slice: Slice) -> Exit {
        self.cpu.core.mmu.activate();
        self.cpu.core.machine.lend(io);
        let running = translate::interrupt::Running::begin(&mut self.cpu);
        let exit = tier::run(&mut self.cpu, self.lockstep.as_deref_mut(), slice);
        drop(running);
        translate::detach(&mut self.cpu);
        self.cpu.core.machine.release();
        self.cpu.core.mmu.deactivate();
        exit
    }

    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        state.assign(elements, &self.cpu.core.state);
        Ok(())
    }

    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.assign(elements, state);
        Ok(())
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.cpu.core.state.tsc_offset = offset;
    }

    fn signals(&self) -> Arc<Signals> {
        self.cpu.core.signals.clone()
    }

    fn statistics(&self) -> Statistics {
        let cpu = &*self.cpu;
        Statistics {
            instructions: cpu.core.instructions,
            blocks_decoded: cpu.core.mmu.blocks.decoded,
            blocks_invalidated: cpu.core.mmu.blocks.invalidated,
            tlb_refills: cpu.core.mmu.refills,
            tlb_flushes: cpu.core.mmu.tlb.flushes,
            mmio: cpu.core.machine.accesses,
            translated: cpu.translator.instructions,
            translated_exits: cpu.translator.exits,
            translated_faults: cpu.translator.faults,
            translated_blocks: cpu.translator.blocks,
            translated_links: cpu.translator.links,
            translator: (cpu.hot != u32::MAX).then(|| cpu.translator.statistics(&cpu.jit)),
            lockstep: self.lockstep.as_ref().map(|l| l.counters.clone()),
            ..cpu.core.stats.clone()
        }
    }
}
