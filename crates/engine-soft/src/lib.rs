//! The software engine: a complete x86-64 processor without hardware virtualization.
//!
//! T0, the interpreter, is the reference: [`decode`] turns guest code into blocks of ops,
//! [`interp`] runs them. Integer arithmetic runs on the host's ALU ([`alu`]), everything vectorial
//! or exotic on the host's own units ([`thunk`]). T1, the translator ([`translate`]), runs hot
//! 64-bit code on the host's registers. Addresses go through the software TLB ([`tlb`], [`mmu`]).
//! The rules of the system level are `x86`'s. See ARCHITECTURE.md and `docs/adr`.

mod alu;
mod block;
mod cpu;
mod decode;
mod engine;
mod interp;
mod locked;
mod mmu;
mod op;
mod ram;
pub mod thunk;
mod tlb;
mod trace;
mod translate;
mod word;

pub use engine::SoftEngine;
#[doc(hidden)]
pub use translate::lockstep::{Sabotage, differences};

use cpu::Cpu;
use memory::GuestRam;
use std::sync::Arc;
use vcpu::{CpuIo, Elements, Exit, Signals, Slice, StateError, Statistics, Vcpu};
use x86::bus::{SystemBus, TlbEffect};
use x86::cpuid::{CpuModel, Feature};
use x86::state::CpuState;

/// What `model` promises its guest and this host cannot execute.
pub fn missing_on_host(model: &CpuModel) -> Vec<Feature> {
    use thunk::Feature as Host;
    const NEEDS: [(Feature, Host); 20] = [
        (Feature::Sse3, Host::Sse3),
        (Feature::Ssse3, Host::Ssse3),
        (Feature::Sse41, Host::Sse41),
        (Feature::Sse42, Host::Sse42),
        (Feature::Popcnt, Host::Popcnt),
        (Feature::Abm, Host::Lzcnt),
        (Feature::Bmi1, Host::Bmi1),
        (Feature::Bmi2, Host::Bmi2),
        (Feature::Adx, Host::Adx),
        (Feature::Movbe, Host::Movbe),
        (Feature::Cx16, Host::Cx16),
        (Feature::Aes, Host::Aes),
        (Feature::Pclmulqdq, Host::Pclmulqdq),
        (Feature::Sha, Host::Sha),
        (Feature::Avx, Host::Avx),
        (Feature::Avx2, Host::Avx2),
        (Feature::F16c, Host::F16c),
        (Feature::Fma, Host::Fma),
        (Feature::Rdrand, Host::Rdrand),
        (Feature::Rdseed, Host::Rdseed),
    ];
    let host = thunk::HostFeatures::probe();
    let lacks = |&&(feature, needed): &&(Feature, Host)| model.has(feature) && !host.has(needed);
    NEEDS.iter().filter(lacks).map(|&(feature, _)| feature).collect()
}

/// Bytes of translated code kept by default.
pub const CODE_CACHE: usize = 64 << 20;

/// Who runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// T0: the interpreter alone, the reference.
    #[default]
    Interpret,
    /// T1: hot code of 64-bit mode is translated, the interpreter does the rest.
    Translate,
    /// T1 held against T0 at every entry into translated code; the first difference ends the run.
    Lockstep,
}

impl Tier {
    /// Each tier.
    pub const ALL: [Self; 3] = [Self::Interpret, Self::Translate, Self::Lockstep];

    /// Its short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpret => "interp",
            Self::Translate => "translate",
            Self::Lockstep => "lockstep",
        }
    }

    /// What it is, in a line for a user who is to choose.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Interpret => "The interpreter alone: the reference",
            Self::Translate => "Hot code as host code, the interpreter for the rest",
            Self::Lockstep => {
                "Translated code held against the interpreter: the first difference ends the run"
            }
        }
    }
}

/// A virtual processor of the software engine.
pub struct SoftVcpu {
    cpu: Box<Cpu>,
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
        Ok(Self { cpu: Box::new(Cpu::new(ram, model, tier, code_cache)?) })
    }

    /// Makes the next comparison under [`Tier::Lockstep`] meet a wrong result: for tests.
    #[doc(hidden)]
    pub fn sabotage(&mut self, how: Sabotage) {
        if let Some(lockstep) = &mut self.cpu.lockstep {
            lockstep.sabotage = Some(how);
        }
    }

    /// Counts instructions in translated code, too, which slows it by some per cent. Without, and
    /// without a limit, those count as none.
    pub fn count_instructions(&mut self) {
        translate::count(&mut self.cpu);
    }

    /// Translates every block at its first run rather than when it is hot: for tests.
    pub fn translate_at_once(&mut self) {
        self.cpu.hot = 0;
    }

    /// The architectural state, without a copy.
    pub fn state_now(&self) -> &CpuState {
        &self.cpu.state
    }

    fn assign(&mut self, elements: Elements, state: &CpuState) {
        let cpu = &mut *self.cpu;
        cpu.state.assign(elements, state);
        if elements.contains(Elements::CONTROL) {
            cpu.mmu.paging_changed(&state.paging, TlbEffect::FlushAll);
            cpu.mmu.paging_changed(&state.paging, TlbEffect::SwitchFlush);
        }
        // The engine's own: what is under way between two instructions.
        cpu.data_hits = 0;
        cpu.exit = None;
        cpu.update_watchpoints();
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, io: &mut dyn CpuIo, slice: Slice) -> Exit {
        self.cpu.mmu.lend(io);
        let running = translate::interrupt::Running::begin(&mut self.cpu);
        let exit = interp::run(&mut self.cpu, slice);
        drop(running);
        self.cpu.mmu.release();
        exit
    }

    fn get(&mut self, elements: Elements, state: &mut CpuState) -> Result<(), StateError> {
        state.assign(elements, &self.cpu.state);
        Ok(())
    }

    fn set(&mut self, elements: Elements, state: &CpuState) -> Result<(), StateError> {
        self.assign(elements, state);
        Ok(())
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.cpu.state.tsc_offset = offset;
    }

    fn signals(&self) -> Arc<Signals> {
        self.cpu.signals.clone()
    }

    fn statistics(&self) -> Statistics {
        let cpu = &*self.cpu;
        Statistics {
            instructions: cpu.instructions,
            blocks_decoded: cpu.mmu.blocks.decoded,
            blocks_invalidated: cpu.mmu.blocks.invalidated,
            tlb_refills: cpu.mmu.refills,
            tlb_flushes: cpu.mmu.tlb.flushes,
            mmio: cpu.mmu.mmio,
            translated_exits: cpu.translator.exits,
            translated_faults: cpu.translator.faults,
            translated_blocks: cpu.translator.blocks,
            translated_links: cpu.translator.links,
            translator: (cpu.hot != u32::MAX).then(|| cpu.translator.statistics(&cpu.jit)),
            lockstep: cpu.lockstep.as_ref().map(|l| l.counters.clone()),
            ..cpu.stats.clone()
        }
    }
}
