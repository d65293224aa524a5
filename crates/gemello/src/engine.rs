//! Which engine runs the guest. The only place of the program that knows engines by name.

use crate::cli::Engine;
use machine::BuildError;
use memory::GuestRam;
use vcpu::Vcpu;
use x86::cpuid::CpuModel;

/// Makes a processor with the engine that was asked for.
///
/// # Errors
/// The engine cannot run on this host.
pub(crate) fn new_vcpu(
    engine: Engine,
    ram: GuestRam,
    model: CpuModel,
) -> Result<Box<dyn Vcpu>, BuildError> {
    match engine {
        Engine::Auto | Engine::Soft => soft(ram, model),
    }
}

fn soft(ram: GuestRam, model: CpuModel) -> Result<Box<dyn Vcpu>, BuildError> {
    match engine_soft::SoftVcpu::new(ram, model) {
        Ok(vcpu) => Ok(Box::new(vcpu)),
        Err(error) => Err(BuildError::Engine(format!(
            "the host denies the software engine what it needs (executable memory, signals): {error}"
        ))),
    }
}
