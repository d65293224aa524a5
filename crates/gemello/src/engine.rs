//! Which engine runs the guest. The only place of the program that knows engines by name.

use crate::cli::{Engine, Tier};
use engine_soft::SoftVcpu;
use machine::BuildError;
use memory::GuestRam;
use vcpu::Vcpu;
use x86::cpuid::CpuModel;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) engine: Engine,
    pub(crate) tier: Tier,
    /// Bytes for translated code.
    pub(crate) code_cache: u64,
    /// Count every instruction, translated ones too.
    pub(crate) count: bool,
}

/// The processor that guests see unless told otherwise: the largest model that this host can carry.
pub(crate) fn default_model() -> CpuModel {
    let v3 = CpuModel::gemello_v3();
    if engine_soft::missing_on_host(&v3).is_empty() { v3 } else { CpuModel::gemello_v2() }
}

/// Makes a processor with the engine that was asked for.
///
/// # Errors
/// The engine cannot run on this host, or the host's processor cannot carry the model.
pub(crate) fn new_vcpu(
    choice: Choice,
    ram: GuestRam,
    model: CpuModel,
) -> Result<Box<dyn Vcpu>, BuildError> {
    match choice.engine {
        Engine::Auto | Engine::Soft => soft(choice, ram, model),
    }
}

fn soft(choice: Choice, ram: GuestRam, model: CpuModel) -> Result<Box<dyn Vcpu>, BuildError> {
    let missing = engine_soft::missing_on_host(&model);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|feature| feature.name()).collect();
        return Err(BuildError::Engine(format!(
            "this host's processor has no {}, which the guest's model {} needs; try --cpu {},-{}",
            names.join(", "),
            model.name,
            model.name,
            names.join(",-"),
        )));
    }
    let tier = match choice.tier {
        Tier::Interp => engine_soft::Tier::Interpret,
        Tier::Translate => engine_soft::Tier::Translate,
        Tier::Lockstep => engine_soft::Tier::Lockstep,
    };
    match SoftVcpu::with_tier(ram, model, tier, choice.code_cache as usize) {
        Ok(mut vcpu) => {
            if choice.count {
                vcpu.count_instructions();
            }
            Ok(Box::new(vcpu))
        }
        Err(error) => Err(BuildError::Engine(format!(
            "the host denies the software engine what it needs (executable memory, signals): {error}"
        ))),
    }
}
