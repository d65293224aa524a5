//! The encodings that user level can execute, from iced-x86's tables.

use super::filter;
use crate::case::Case;
use crate::outcome::Event;
use crate::subject::Subject;
use iced_x86::{Code, CpuidFeature, EncodingKind};
use std::sync::OnceLock;

/// A set of processor features, and whether to keep to what Intel and AMD agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    present: Vec<CpuidFeature>,
    /// The host is AMD's: what AMD decodes differently from the Intel processor that the guest sees
    /// is left out.
    pub amd: bool,
    /// The host runs 16-bit code by local descriptors.
    pub sixteen: bool,
}

/// What every x86-64 processor has, with its SSE2.
const BASE: [CpuidFeature; 24] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::FXSR,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::CLFSH,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::CET_IBT,
    CpuidFeature::MSR,
    CpuidFeature::PREFETCHW,
    CpuidFeature::FSGSBASE,
    CpuidFeature::CLFLUSHOPT,
];

/// x86-64-v2 and what the gemello-v2 model adds, each with an instruction that shows whether it is
/// there.
const V2: [(CpuidFeature, &[u8]); 16] = [
    (CpuidFeature::SSE3, &[0xf2, 0x0f, 0x7c, 0xc0]),
    (CpuidFeature::SSSE3, &[0x66, 0x0f, 0x38, 0x01, 0xc0]),
    (CpuidFeature::SSE4_1, &[0x66, 0x0f, 0x38, 0x17, 0xc0]),
    (CpuidFeature::SSE4_2, &[0x66, 0x0f, 0x38, 0x37, 0xc0]),
    (CpuidFeature::POPCNT, &[0xf3, 0x0f, 0xb8, 0xc0]),
    (CpuidFeature::CMPXCHG16B, &[0x0f, 0xc7, 0x0c, 0x24]),
    (CpuidFeature::AES, &[0x66, 0x0f, 0x38, 0xdb, 0xc0]),
    (CpuidFeature::PCLMULQDQ, &[0x66, 0x0f, 0x3a, 0x44, 0xc0, 0x00]),
    (CpuidFeature::CLWB, &[0x66, 0x0f, 0xae, 0x34, 0x24]),
    (CpuidFeature::MOVBE, &[0x0f, 0x38, 0xf0, 0x04, 0x24]),
    (CpuidFeature::SHA, &[0x0f, 0x38, 0xc8, 0xc0]),
    (CpuidFeature::BMI1, &[0xc4, 0xe2, 0x78, 0xf2, 0xc0]),
    (CpuidFeature::BMI2, &[0xc4, 0xe2, 0x78, 0xf5, 0xc0]),
    (CpuidFeature::ADX, &[0x66, 0x0f, 0x38, 0xf6, 0xc0]),
    (CpuidFeature::LZCNT, &[0xf3, 0x0f, 0xbd, 0xc0]),
    // Of no component, since RAX and RDX are 0.
    (CpuidFeature::XSAVE, &[0x0f, 0xae, 0x24, 0x24]),
];

/// What gemello-v3 adds.
const V3: [(CpuidFeature, &[u8]); 4] = [
    (CpuidFeature::AVX, &[0xc5, 0xf8, 0x58, 0xc0]),
    (CpuidFeature::AVX2, &[0xc4, 0xe2, 0x7d, 0x1c, 0xc0]),
    (CpuidFeature::FMA, &[0xc4, 0xe2, 0x79, 0x98, 0xc0]),
    (CpuidFeature::F16C, &[0xc4, 0xe2, 0x79, 0x13, 0xc0]),
];

impl Features {
    /// What the gemello-v2 model has: x86-64-v2 with AES, PCLMULQDQ, SHA, MOVBE, CLWB, BMI1, BMI2,
    /// ADX and LZCNT.
    pub fn v2() -> Self {
        let present = BASE.into_iter().chain(V2.map(|(f, _)| f)).collect();
        Self { present, amd: is_amd(), sixteen: false }
    }

    /// The above with AVX, AVX2, FMA and F16C.
    pub fn v3() -> Self {
        let mut this = Self::v2();
        this.present.extend(V3.map(|(f, _)| f));
        this
    }

    /// Keeps the features that `subject` really executes: CPUID may hide what works.
    #[must_use]
    pub fn probed(mut self, subject: &mut dyn Subject) -> Self {
        for (feature, code) in V2.iter().chain(&V3) {
            let event = subject.run(&Case::with_code(code)).event;
            if event.vector == 6 || event.vector >= Event::TIMEOUT {
                self.present.retain(|f| f != feature);
            }
        }
        let mut case = Case::with_code(&[0x90]);
        case.make_compatible(16);
        self.sixteen = subject.run(&case).event.vector == 3;
        self
    }

    /// Whether all of `code`'s features are in the set.
    pub fn cover(&self, code: Code) -> bool {
        code.cpuid_features().iter().all(|f| self.present.contains(f))
    }
}

/// Whether the host is AMD's (or Hygon's, which descends from it).
pub(crate) fn is_amd() -> bool {
    // CPUID leaves for the hypervisor that the host may run under: ask once.
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| {
        let leaf = std::arch::x86_64::__cpuid(0);
        // "Auth" of AuthenticAMD, "Hygo" of HygonGenuine.
        leaf.ebx == 0x6874_7541 || leaf.ebx == 0x6f67_7948
    })
}

/// The encodings of 64-bit mode, or of compatibility mode with 16 or 32 `bits`, that `features`
/// cover and that can be judged.
pub fn catalog(features: &Features, bits: u32) -> Vec<Code> {
    let wanted = |code: &Code| {
        let op = code.op_code();
        op.is_instruction()
            && match bits {
                16 => features.sixteen && op.mode16(),
                32 => op.mode32(),
                _ => op.mode64(),
            }
            && matches!(op.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
            && features.cover(*code)
            && filter::excluded(*code, bits, features.amd).is_none()
    };
    Code::values().filter(wanted).collect()
}
