//! The software engine: a complete x86-64 processor without hardware virtualization.
//!
//! Today one tier, T0, the interpreter: [`decode`] turns guest code into blocks of ops, [`interp`] runs them; integer arithmetic runs on the
//! host's ALU ([`alu`]) and everything vectorial or exotic on the host's own units ([`thunk`]). Addresses go through the software TLB
//! ([`tlb`], [`mmu`]). The rules of the system level are `x86`'s. See ARCHITECTURE.md and `docs/adr`.

mod alu;
mod block;
mod cpu;
mod decode;
mod interp;
mod locked;
mod mmu;
mod op;
mod ram;
pub mod thunk;
mod thunked;
mod tlb;
mod trace;
mod word;

use cpu::Cpu;
use memory::GuestRam;
use std::sync::Arc;
use vcpu::{Budget, CpuIo, Exit, Signals, Statistics, Vcpu};
use x86::bus::{SystemBus, TlbEffect};
use x86::cpuid::CpuModel;
use x86::state::CpuState;

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
        Ok(Self { cpu: Box::new(Cpu::new(ram, model)?) })
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, io: &mut dyn CpuIo, budget: Budget) -> Exit {
        self.cpu.mmu.lend(io);
        let exit = interp::run(&mut self.cpu, budget);
        self.cpu.mmu.release();
        exit
    }

    fn state(&self) -> &CpuState {
        &self.cpu.state
    }

    fn set_state(&mut self, state: &CpuState) {
        let cpu = &mut *self.cpu;
        cpu.state.clone_from(state);
        cpu.mmu.paging_changed(&state.paging, TlbEffect::FlushAll);
        cpu.mmu.paging_changed(&state.paging, TlbEffect::SwitchFlush);
        cpu.mmu.blocks.flush();
        cpu.data_hits = 0;
        cpu.exit = None;
        cpu.rewatch();
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
            ..cpu.stats.clone()
        }
    }
}
