//! Named processor models and the `--cpu` argument.
//!
//! A model is what the guest is told and what the engines check against: the same on every host
//! that can carry it, so that a saved machine resumes elsewhere.

use super::feature::{Feature, FeatureSet};
use crate::addr::VcpuId;
use core::fmt;

/// Width of a physical address (MAXPHYADDR), bits.
pub const PHYSICAL_BITS: u32 = crate::paging::MAXPHYADDR;
/// Width of a linear address, bits: four-level paging.
pub const LINEAR_BITS: u32 = 48;
/// Revision that IA32_BIOS_SIGN_ID tells.
pub const MICROCODE_REVISION: u32 = 1;

/// The base clock behind the ratios of leaf 16H and MSR_PLATFORM_INFO, hertz.
pub const BUS_HZ: u64 = 100_000_000;
/// The default core crystal clock, hertz: what client and server parts of the family have.
const DEFAULT_CRYSTAL_HZ: u32 = 25_000_000;

/// What both models have: x86-64-v2, and the system features that need no vector state.
const V2: FeatureSet = FeatureSet::ALL
    .difference(V3_ADDS)
    // Selectable, not default: each access would have to be judged with them.
    .without(Feature::Smap)
    .without(Feature::Pku);

/// What every 64-bit kernel or program uses without asking, as all processors with long mode have
/// it: without one of these a guest dies early and says nothing.
const ESSENTIAL: FeatureSet = FeatureSet::of(&[
    Feature::Fpu,
    Feature::Tsc,
    Feature::Msr,
    Feature::Pae,
    Feature::Cx8,
    Feature::Pge,
    Feature::Cmov,
    Feature::Mmx,
    Feature::Fxsr,
    Feature::Sse,
    Feature::Sse2,
    Feature::Syscall,
    Feature::Lm,
]);

const V3_ADDS: FeatureSet =
    FeatureSet::of(&[Feature::Avx, Feature::Avx2, Feature::Fma, Feature::F16c]);

/// A processor that gemello can present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    /// Its name as `--cpu` takes it, additions and removals aside.
    pub name: &'static str,
    /// What it can do.
    pub features: FeatureSet,
    /// TSC frequency, hertz.
    pub tsc_hz: u64,
    /// Core crystal clock, hertz: the local APIC timer counts it.
    pub crystal_hz: u32,
    /// This processor's initial APIC ID.
    pub apic_id: VcpuId,
    /// How many processors the machine has, at least 1.
    pub cpus: u32,
}

/// As [`CpuModel::parse`] takes it: the name, then what was added to it and removed.
impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = CpuModel::parse(self.name).map_or(FeatureSet::EMPTY, |model| model.features);
        f.write_str(self.name)?;
        self.features
            .difference(base)
            .iter()
            .try_for_each(|more| write!(f, ",+{}", more.name()))?;
        base.difference(self.features).iter().try_for_each(|less| write!(f, ",-{}", less.name()))
    }
}

/// How many similar names an error lists at the most.
const NEAR: usize = 3;

/// What somebody typed, cut to 32 bytes: this crate does without a heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Typed {
    bytes: [u8; 32],
    len: usize,
}

impl From<&str> for Typed {
    fn from(text: &str) -> Self {
        let mut bytes = [0; 32];
        let mut len = text.len().min(bytes.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self { bytes, len }
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?"))
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What is wrong with a `--cpu` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// No model of that name.
    UnknownModel(Typed),
    /// No feature of that name; the second field holds names like it, nearest first.
    UnknownFeature(Typed, [Option<&'static str>; NEAR]),
    /// A feature without `+` or `-` before it.
    NoSign(Typed),
    /// Both `+f` and `-f`, or a removal that takes an addition with it.
    Contradiction(&'static str),
    /// Removed, though 64-bit code cannot do without it.
    Essential(&'static str),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel(name) => {
                write!(f, "no CPU model is named '{name}'; choose one of")?;
                CpuModel::NAMES.iter().try_for_each(|n| write!(f, " {n}"))
            }
            Self::UnknownFeature(name, [None, ..]) => write!(
                f,
                "no CPU feature is named '{name}'; the names are those of /proc/cpuinfo, such as \
                 smap or avx2"
            ),
            Self::UnknownFeature(name, near) => {
                write!(f, "no CPU feature is named '{name}'; did you mean")?;
                near.iter().flatten().try_for_each(|n| write!(f, " {n}"))?;
                f.write_str("?")
            }
            Self::NoSign(name) => write!(
                f,
                "CPU feature '{name}' needs a sign: write '+{name}' to add it or '-{name}' to \
                 remove it"
            ),
            Self::Contradiction(name) => write!(
                f,
                "CPU feature '{name}' is both asked for and removed (or a feature that it needs is \
                 removed); drop one of the two"
            ),
            Self::Essential(name) => write!(
                f,
                "CPU feature '{name}' cannot be removed: 64-bit kernels and programs use it \
                 without asking; leave it in"
            ),
        }
    }
}

impl core::error::Error for ModelError {}

impl CpuModel {
    /// The names that [`CpuModel::parse`] knows.
    pub const NAMES: [&'static str; 2] = ["gemello-v2", "gemello-v3"];

    /// `gemello-v2`: x86-64-v2 with the system features of a current processor.
    pub fn gemello_v2() -> Self {
        Self {
            name: Self::NAMES[0],
            features: V2,
            tsc_hz: 2_000_000_000,
            crystal_hz: DEFAULT_CRYSTAL_HZ,
            apic_id: VcpuId::BOOT,
            cpus: 1,
        }
    }

    /// `gemello-v3`: `gemello-v2` with AVX, AVX2, FMA and F16C.
    pub fn gemello_v3() -> Self {
        Self { name: Self::NAMES[1], features: V2.union(V3_ADDS), ..Self::gemello_v2() }
    }

    /// Parses `MODEL[,+feature|,-feature]…`. An addition brings what it needs, a removal takes what
    /// needs it.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut model = match name {
            "gemello-v2" => Self::gemello_v2(),
            "gemello-v3" => Self::gemello_v3(),
            _ => return Err(ModelError::UnknownModel(name.into())),
        };
        let (mut added, mut removed) = (FeatureSet::EMPTY, FeatureSet::EMPTY);
        for part in parts {
            if let Some(name) = part.strip_prefix('+') {
                let feature = find(name)?;
                added = added.with(feature);
                model.features = model.features.enable(feature);
            } else if let Some(name) = part.strip_prefix('-') {
                let feature = find(name)?;
                removed = removed.with(feature);
                model.features = model.features.disable(feature);
            } else {
                return Err(ModelError::NoSign(part.into()));
            }
        }
        if let Some(feature) = ESSENTIAL.intersection(removed).iter().next() {
            return Err(ModelError::Essential(feature.name()));
        }
        let lost = added.difference(model.features);
        let regained = removed.intersection(model.features);
        match lost.union(regained).iter().next() {
            Some(feature) => Err(ModelError::Contradiction(feature.name())),
            None => Ok(model),
        }
    }

    /// Whether the model has `feature`.
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.contains(feature)
    }

    /// Drops what is not in `host` (the features an engine can carry there) and what depends on it.
    /// Returns what was lost.
    pub fn restrict_to(&mut self, host: FeatureSet) -> FeatureSet {
        let before = self.features;
        let missing = before.difference(host);
        self.features = missing.iter().fold(before, FeatureSet::disable);
        before.difference(self.features)
    }

    /// Leaf 15H's EAX and EBX: the TSC runs at `crystal_hz` · EBX / EAX.
    ///
    /// Linux computes crystal kHz · EBX / EAX in 32 bits and rounds down; the fraction chosen keeps
    /// that product below 2^32, is never below the true ratio, and misses it by less than 1 in
    /// 10^7.
    pub fn tsc_ratio(&self) -> (u32, u32) {
        let crystal = u64::from(self.crystal_hz).max(1);
        let limit = u64::from(u32::MAX) / (crystal / 1000).max(1);
        let mut best = (1, (self.tsc_hz.div_ceil(crystal)).min(limit));
        let mut best_error = u128::MAX;
        for denominator in 1..=u64::from(u32::MAX) {
            let product = u128::from(self.tsc_hz) * u128::from(denominator);
            let numerator = product.div_ceil(u128::from(crystal)) as u64;
            if numerator > limit {
                break;
            }
            let over = u128::from(numerator) * u128::from(crystal) - product;
            // Error of the frequency in units of 2^-32 Hz.
            let error = (over << 32) / u128::from(denominator);
            if error < best_error {
                (best, best_error) = ((denominator, numerator), error);
            }
            if error == 0 {
                break;
            }
        }
        (best.0 as u32, best.1 as u32)
    }
}

fn find(name: &str) -> Result<Feature, ModelError> {
    Feature::from_name(name)
        .ok_or_else(|| ModelError::UnknownFeature(name.into(), near_names(name)))
}

/// The feature names within a third of their length of `name`, nearest first.
fn near_names(name: &str) -> [Option<&'static str>; NEAR] {
    let mut best = [(usize::MAX, None); NEAR];
    for candidate in Feature::ALL.iter().map(|f| f.name()) {
        let d = distance(name, candidate);
        let place = best.iter().position(|&(b, _)| d < b);
        if let Some(place) = place.filter(|_| d <= 1 + candidate.len() / 3) {
            best[place..].rotate_right(1);
            best[place] = (d, Some(candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein distance, bytewise, of `a` from the feature name `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row = [0; 32];
    row.iter_mut().enumerate().for_each(|(i, cell)| *cell = i);
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate().take(row.len() - 1) {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len().min(row.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_model_is_written_as_it_is_read() {
        for text in
            ["gemello-v2", "gemello-v3,+smap", "gemello-v3,+smap,+pku,-pcid", "gemello-v3,-avx"]
        {
            let model = CpuModel::parse(text).expect("a known model");
            assert_eq!(CpuModel::parse(&model.to_string()), Ok(model.clone()), "{text}: {model}");
        }
        assert_eq!(CpuModel::gemello_v3().to_string(), "gemello-v3");
    }

    #[test]
    fn models_differ_by_the_vector_extensions_only() {
        let (v2, v3) = (CpuModel::gemello_v2(), CpuModel::gemello_v3());
        assert_eq!(v3.features.difference(v2.features), V3_ADDS);
        assert!(v2.features.difference(v3.features).is_empty());
        for absent in [Feature::Smap, Feature::Pku] {
            assert!(!v2.has(absent) && !v3.has(absent));
        }
        for present in [Feature::Bmi1, Feature::Bmi2, Feature::Abm, Feature::Invpcid] {
            assert!(v2.has(present));
        }
    }

    #[test]
    fn an_argument_adds_and_removes() {
        let model = CpuModel::parse("gemello-v3,+smap,-pcid").unwrap();
        assert!(model.has(Feature::Smap) && model.has(Feature::Avx2));
        // INVPCID needs PCID.
        assert!(!model.has(Feature::Pcid) && !model.has(Feature::Invpcid));
        assert_eq!(CpuModel::parse("gemello-v2").unwrap(), CpuModel::gemello_v2());
        assert!(CpuModel::parse("gemello-v2,+avx2").unwrap().has(Feature::Avx));
    }

    #[test]
    fn bad_arguments_say_what_to_do() {
        let message = |text| CpuModel::parse(text).unwrap_err().to_string();
        assert!(message("haswell").contains("gemello-v2 gemello-v3"));
        assert!(message("gemello-v2,+smaq").contains("did you mean smap"));
        assert!(message("gemello-v2,+zzzzzzzzzzzz").contains("/proc/cpuinfo"));
        assert!(message("gemello-v2,smap").contains("'+smap'"));
        assert!(message("gemello-v3,+avx2,-avx").contains("'avx2' is both"));
        assert!(message("").contains("''"));
    }

    /// Nor does the removal of anything else take one of them with it.
    #[test]
    fn what_64_bit_code_takes_for_granted_stays() {
        for &feature in Feature::ALL {
            let mut text = std::string::String::from("gemello-v3,-");
            text.push_str(feature.name());
            match CpuModel::parse(&text) {
                Ok(model) => assert!(ESSENTIAL.difference(model.features).is_empty(), "{text}"),
                Err(error) => {
                    assert_eq!(error, ModelError::Essential(feature.name()));
                    assert!(
                        ESSENTIAL.contains(feature) && error.to_string().contains("leave it in")
                    );
                }
            }
        }
        assert!(!CpuModel::parse("gemello-v2,-nx").unwrap().has(Feature::Nx));
    }

    #[test]
    fn a_poorer_host_takes_features_and_their_dependents() {
        let mut model = CpuModel::gemello_v3();
        let lost = model.restrict_to(FeatureSet::ALL.without(Feature::Avx));
        assert_eq!(lost, V3_ADDS);
        assert_eq!(model.features, CpuModel::gemello_v2().features);
        assert!(model.restrict_to(FeatureSet::ALL).is_empty());
    }

    #[test]
    fn the_tsc_ratio_survives_32_bit_arithmetic() {
        for tsc_hz in [1_000_000_000, 2_100_000_000, 2_693_671_000, 2_999_999_999, 5_123_457_891] {
            let model = CpuModel { tsc_hz, ..CpuModel::gemello_v2() };
            let (denominator, numerator) = model.tsc_ratio();
            let khz = u64::from(model.crystal_hz / 1000) * u64::from(numerator);
            assert!(u32::try_from(khz).is_ok());
            let hz = u128::from(model.crystal_hz) * u128::from(numerator) / u128::from(denominator);
            let error = hz as i128 - i128::from(tsc_hz);
            assert!((0..300).contains(&error), "{tsc_hz}: off by {error} Hz");
        }
        let exact = CpuModel { tsc_hz: 2_100_000_000, ..CpuModel::gemello_v2() };
        assert_eq!(exact.tsc_ratio(), (1, 84));
    }
}
