//! Which engine runs the guest. The only place of the program that knows engines by name.

use crate::cli::{Engine, EngineOptions, Tier};
use engine_soft::SoftEngine;
use machine::BuildError;
use vcpu::EngineError;
use x86::cpuid::CpuModel;

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

/// The engine that was asked for; `count`: it counts every instruction, translated ones too.
pub(crate) fn make(options: EngineOptions, count: bool) -> Box<dyn vcpu::Engine> {
    let tier = match options.tier {
        Tier::Interp => engine_soft::Tier::Interpret,
        Tier::Translate => engine_soft::Tier::Translate,
        Tier::Lockstep => engine_soft::Tier::Lockstep,
    };
    match options.engine {
        Engine::Auto | Engine::Soft => Box::new(SoftEngine {
            tier,
            code_cache: options.code_cache.map_or(engine_soft::CODE_CACHE, |bytes| bytes as usize),
            count,
        }),
    }
}

/// What to do where a machine cannot be built, in the words of the command line.
pub(crate) fn advice(error: &BuildError) -> Option<String> {
    let BuildError::Engine(EngineError::Model { model, features }) = error else { return None };
    Some(format!("try --cpu {model},-{}", features.join(",-")))
}
