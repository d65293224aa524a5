//! The software engine as the contract has it: what it needs of a host, and processors from it.

use crate::soft_vcpu::{CODE_CACHE, SoftVcpu};
use crate::thunk;
use crate::tier::Tier;
use crate::translate::{self, TranslationCache};
use std::sync::Arc;
use vcpu::{Capabilities, Engine, EngineError, EngineVm, Unavailable, Vcpu, VmParts};
use x86::addr::VcpuId;
use x86::cpuid::{CpuModel, Feature};

/// The software engine, with how it is to run guests.
#[derive(Clone, Copy, Debug)]
pub struct SoftEngine {
    /// Who runs guest code.
    pub tier: Tier,
    /// Bytes for translated code, which the processors of a machine share.
    pub code_cache: usize,
    /// Count every instruction, translated ones too, which slows those by some per cent.
    pub count: bool,
}

impl Default for SoftEngine {
    fn default() -> Self {
        Self { tier: Tier::Translate, code_cache: CODE_CACHE, count: false }
    }
}

/// What the processors of one machine share.
struct SoftVm {
    engine: SoftEngine,
    parts: VmParts,
    translations: Arc<TranslationCache>,
}

impl Engine for SoftEngine {
    fn name(&self) -> &'static str {
        "software"
    }

    fn probe(&self) -> Result<Capabilities, Unavailable> {
        match thunk::executable_memory() {
            Ok(()) => Ok(Capabilities { counts_instructions: true, answers_hypercalls: false }),
            Err(error) => Err(Unavailable {
                engine: self.name(),
                reason: format!(
                    "the host denies executable memory: {error}; \
                     allow memfd_create or anonymous executable mappings"
                ),
            }),
        }
    }

    fn create_vm(&self, parts: VmParts) -> Result<Box<dyn EngineVm>, EngineError> {
        // First: without executable memory no sample runs, and every feature would seem to be
        // missing.
        self.probe()?;
        let missing = missing_on_host(&parts.model);
        if !missing.is_empty() {
            let features = missing.iter().map(|feature| feature.name()).collect();
            return Err(EngineError::Model { model: parts.model.name.to_string(), features });
        }
        let translations = translate::code_cache(parts.ram.clone(), self.code_cache)
            .map_err(|source| EngineError::Host { what: "executable memory", source })?;
        Ok(Box::new(SoftVm { engine: *self, parts, translations: Arc::new(translations) }))
    }
}

impl EngineVm for SoftVm {
    fn add_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, EngineError> {
        let (ram, model) =
            (self.parts.ram.clone(), CpuModel { apic_id: id, ..self.parts.model.clone() });
        let SoftEngine { tier, count, .. } = self.engine;
        let made = self
            .translations
            .share()
            .and_then(|translations| SoftVcpu::sharing(translations, ram, model, tier));
        let what = "executable memory, or catching signals";
        let mut vcpu = made.map_err(|source| EngineError::Host { what, source })?;
        if count {
            vcpu.count_instructions();
        }
        if let Some(clock) = &self.parts.clock {
            vcpu.set_clock(Arc::clone(clock));
        }
        Ok(Box::new(vcpu))
    }
}

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
