//! Named processor models.
use super::{Feature, FeatureSet};

/// A processor that gemello can present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    /// Its name as `--cpu` takes it.
    pub name: &'static str,
    /// What it can do.
    pub features: FeatureSet,
    /// TSC frequency in hertz.
    pub tsc_hz: u64,
    /// Core crystal (and local APIC timer) frequency in hertz.
    pub crystal_hz: u32,
    /// This processor's initial APIC ID.
    pub apic_id: u32,
    /// How many processors the machine has.
    pub cpus: u32,
}

/// What is wrong with a `--cpu` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// placeholder
    UnknownModel,
}

impl CpuModel {
    /// `gemello-v2`: x86-64-v2 and system features.
    pub fn gemello_v2() -> Self {
        Self {
            name: "gemello-v2",
            features: FeatureSet::default(),
            tsc_hz: 2_000_000_000,
            crystal_hz: 25_000_000,
            apic_id: 0,
            cpus: 1,
        }
    }
    /// `gemello-v3`: with AVX, AVX2, FMA, F16C.
    pub fn gemello_v3() -> Self {
        Self { name: "gemello-v3", ..Self::gemello_v2() }
    }
    /// Parses `gemello-v3,+smap,-pcid`.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let _ = text;
        Err(ModelError::UnknownModel)
    }
    /// Whether the model has `feature`.
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.contains(feature)
    }
    /// Drops what `host` cannot carry; returns what was lost.
    pub fn restrict_to(&mut self, host: FeatureSet) -> FeatureSet {
        let _ = host;
        FeatureSet::default()
    }
}
