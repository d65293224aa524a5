//! Which engine runs the guest. The only place of the program that knows engines by name.

use engine_soft::{SoftEngine, Tier};
use machine::BuildError;
use vcpu::EngineError;
use x86::cpuid::CpuModel;

/// What runs guest instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The best that works here.
    #[default]
    Auto,
    /// gemello's own processor, in software.
    Soft,
}

impl Choice {
    pub(crate) const ALL: [Self; 2] = [Self::Auto, Self::Soft];

    /// As the user says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Soft => "soft",
        }
    }

    /// For the help.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::Auto => "The best that works here",
            Self::Soft => "gemello's own processor, in software",
        }
    }
}

/// An engine, and how it is to run guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) choice: Choice,
    pub(crate) tier: Tier,
    /// Bytes for translated code.
    pub(crate) code_cache: usize,
    /// Count every instruction, translated ones too.
    pub(crate) count: bool,
}

/// How the software engine runs guest code unless told otherwise.
pub(crate) const TIER: Tier = Tier::Translate;

/// The processor that guests see unless told otherwise: the largest model that this host can carry.
pub(crate) fn default_model() -> CpuModel {
    let v3 = CpuModel::gemello_v3();
    if engine_soft::missing_on_host(&v3).is_empty() { v3 } else { CpuModel::gemello_v2() }
}

/// What can run guests on this host.
pub(crate) fn available() -> String {
    match vcpu::Engine::probe(&SoftEngine::default()) {
        Ok(_) => "soft (used by --engine auto)".into(),
        Err(error) => format!("none: {error}"),
    }
}

/// The engine that was asked for.
pub(crate) fn make(options: Options) -> Box<dyn vcpu::Engine> {
    let Options { choice, tier, code_cache, count } = options;
    match choice {
        Choice::Auto | Choice::Soft => Box::new(SoftEngine { tier, code_cache, count }),
    }
}

/// What to do where a machine cannot be built.
pub(crate) fn advice(error: &BuildError) -> Option<String> {
    let BuildError::Engine(EngineError::Model { model, features }) = error else { return None };
    Some(format!("try `cpu` {model},-{}", features.join(",-")))
}
