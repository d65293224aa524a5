//! The instructions that the guest's processor has: iced-x86's feature names, mapped to the CPU
//! model's.

use iced_x86::{CpuidFeature, DecoderOptions, Instruction, Mnemonic};
use x86::cpuid::{CpuModel, Feature};

/// One bit per [`CpuidFeature`]: present.
pub(crate) struct FeatureTable {
    present: Vec<bool>,
    /// VMCALL and VMMCALL reach the machine. The rest of VMX and SVM is undefined.
    hypercalls: bool,
    /// Options for iced-x86's decoder that follow from absent features.
    pub(crate) decoder_options: u32,
}

/// The CPU feature that each instruction-set extension needs. An extension that is neither here nor
/// in [`always`] raises #UD.
const NEEDS: &[(CpuidFeature, Feature)] = &[
    (CpuidFeature::ADX, Feature::Adx),
    (CpuidFeature::AES, Feature::Aes),
    (CpuidFeature::AVX, Feature::Avx),
    (CpuidFeature::AVX2, Feature::Avx2),
    (CpuidFeature::BMI1, Feature::Bmi1),
    (CpuidFeature::BMI2, Feature::Bmi2),
    (CpuidFeature::CLFLUSHOPT, Feature::Clflushopt),
    (CpuidFeature::CLFSH, Feature::Clflush),
    (CpuidFeature::CLWB, Feature::Clwb),
    (CpuidFeature::CMOV, Feature::Cmov),
    (CpuidFeature::CMPXCHG16B, Feature::Cx16),
    (CpuidFeature::CX8, Feature::Cx8),
    (CpuidFeature::F16C, Feature::F16c),
    (CpuidFeature::FMA, Feature::Fma),
    (CpuidFeature::FSGSBASE, Feature::Fsgsbase),
    (CpuidFeature::FXSR, Feature::Fxsr),
    (CpuidFeature::INVPCID, Feature::Invpcid),
    (CpuidFeature::LZCNT, Feature::Abm),
    (CpuidFeature::MMX, Feature::Mmx),
    (CpuidFeature::MOVBE, Feature::Movbe),
    (CpuidFeature::MSR, Feature::Msr),
    (CpuidFeature::PCLMULQDQ, Feature::Pclmulqdq),
    (CpuidFeature::PKU, Feature::Pku),
    (CpuidFeature::POPCNT, Feature::Popcnt),
    (CpuidFeature::RDPID, Feature::Rdpid),
    (CpuidFeature::RDRAND, Feature::Rdrand),
    (CpuidFeature::RDSEED, Feature::Rdseed),
    (CpuidFeature::RDTSCP, Feature::Rdtscp),
    (CpuidFeature::SEP, Feature::Sep),
    (CpuidFeature::SHA, Feature::Sha),
    (CpuidFeature::SMAP, Feature::Smap),
    (CpuidFeature::SSE, Feature::Sse),
    (CpuidFeature::SSE2, Feature::Sse2),
    (CpuidFeature::SSE3, Feature::Sse3),
    (CpuidFeature::SSE4_1, Feature::Sse41),
    (CpuidFeature::SSE4_2, Feature::Sse42),
    (CpuidFeature::SSSE3, Feature::Ssse3),
    (CpuidFeature::SYSCALL, Feature::Syscall),
    (CpuidFeature::TSC, Feature::Tsc),
    (CpuidFeature::X64, Feature::Lm),
    (CpuidFeature::XSAVE, Feature::Xsave),
    (CpuidFeature::XSAVEC, Feature::Xsavec),
    (CpuidFeature::XSAVEOPT, Feature::Xsaveopt),
    (CpuidFeature::XSAVES, Feature::Xsaves),
];

/// The base architecture, and hints that are NOPs where their extension is absent.
const ALWAYS: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::CPUID,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::PREFETCHW,
    CpuidFeature::PREFETCHWT1,
    CpuidFeature::PREFETCHITI,
    CpuidFeature::CET_IBT,
    CpuidFeature::CLDEMOTE,
    CpuidFeature::HLE,
    CpuidFeature::HLE_or_RTM,
    CpuidFeature::RDPMC,
];

impl FeatureTable {
    pub(crate) fn new(model: &CpuModel) -> Self {
        let size = CpuidFeature::values().len();
        let mut present = vec![false; size];
        for &feature in ALWAYS {
            present[feature as usize] = true;
        }
        for &(feature, needed) in NEEDS {
            present[feature as usize] = model.has(needed);
        }
        let mut decoder_options = DecoderOptions::NONE;
        if !model.has(Feature::Bmi1) {
            decoder_options |= DecoderOptions::NO_MPFX_0FBC;
        }
        if !model.has(Feature::Abm) {
            decoder_options |= DecoderOptions::NO_MPFX_0FBD;
        }
        if !model.has(Feature::LahfLm) {
            decoder_options |= DecoderOptions::NO_LAHF_SAHF_64;
        }
        Self { present, hypercalls: model.has(Feature::Kvm), decoder_options }
    }

    /// Whether the guest's processor executes `instruction`.
    pub(crate) fn allows(&self, instruction: &Instruction) -> bool {
        // Without shadow stacks RDSSP is a NOP, all else of CET is undefined (SDM vol. 1, 17.2).
        if matches!(instruction.mnemonic(), Mnemonic::Rdsspd | Mnemonic::Rdsspq) {
            return true;
        }
        if matches!(instruction.mnemonic(), Mnemonic::Vmcall | Mnemonic::Vmmcall) {
            return self.hypercalls;
        }
        instruction.cpuid_features().iter().all(|&f| self.present[f as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Code;

    #[test]
    fn hypercalls_are_there_with_kvms_interface_and_nothing_else_of_vmx() {
        let allowed = |model: &str, code| {
            let model = CpuModel::parse(model).expect("a known model");
            FeatureTable::new(&model).allows(&Instruction::with(code))
        };
        for call in [Code::Vmcall, Code::Vmmcall] {
            assert!(allowed("gemello-v2", call));
            assert!(!allowed("gemello-v2,-kvm", call), "{call:?} is undefined");
        }
        for other in [Code::Vmlaunch, Code::Vmresume, Code::Vmxoff, Code::Stgi] {
            assert!(!allowed("gemello-v2", other), "{other:?}");
        }
    }
}
