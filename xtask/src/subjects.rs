//! The engines that can be held against the processor.

use anyhow::{Context, Result};
use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use oracle::{Subject, VcpuSubject, guest_ram};
use x86::cpuid::CpuModel;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// The software engine's interpreter.
    Soft,
    /// The software engine's translator, every block translated at once.
    Translate,
}

/// Makes the engine with a processor of that model, in the guest that runs cases.
pub(crate) fn make(engine: Engine, model: CpuModel) -> Result<Box<dyn Subject>> {
    let ram = guest_ram()?;
    Ok(match engine {
        Engine::Soft => {
            let vcpu =
                SoftVcpu::new(ram.clone(), model).context("cannot make a software processor")?;
            Box::new(VcpuSubject::new(vcpu, ram))
        }
        Engine::Translate => {
            let mut vcpu = SoftVcpu::with_tier(ram.clone(), model, Tier::Translate, CODE_CACHE)
                .context("cannot make a software processor")?;
            vcpu.translate_at_once();
            Box::new(VcpuSubject::new(vcpu, ram))
        }
    })
}
