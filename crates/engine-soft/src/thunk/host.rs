//! The features that the host executes, found by executing a sample of each.
//!
//! CPUID is not enough: a hypervisor may mask what works, and a kernel may keep a state component
//! off. Each feature's sample instruction therefore runs once under the fault guard. The feature is
//! present if there is no #UD and the result is as expected.
#![allow(unsafe_code)] // Reason: runs the samples through the thunk entry.

use std::sync::OnceLock;

use x86::state::CpuState;

use super::area::CodeArea;
use super::enter::enter_light;

/// Instruction set extensions beyond the x86-64 baseline that thunks may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // each is the manual's CPUID feature of that name
pub enum Feature {
    Sse3,
    Ssse3,
    Sse41,
    Sse42,
    Popcnt,
    Lzcnt,
    Bmi1,
    Bmi2,
    Adx,
    Movbe,
    Cx16,
    Aes,
    Pclmulqdq,
    Sha,
    Gfni,
    Avx,
    Avx2,
    F16c,
    Fma,
    Vaes,
    Vpclmulqdq,
    AvxVnni,
    Rdrand,
    Rdseed,
}

impl Feature {
    /// Every feature that is probed.
    pub const ALL: [Self; 24] = [
        Self::Sse3,
        Self::Ssse3,
        Self::Sse41,
        Self::Sse42,
        Self::Popcnt,
        Self::Lzcnt,
        Self::Bmi1,
        Self::Bmi2,
        Self::Adx,
        Self::Movbe,
        Self::Cx16,
        Self::Aes,
        Self::Pclmulqdq,
        Self::Sha,
        Self::Gfni,
        Self::Avx,
        Self::Avx2,
        Self::F16c,
        Self::Fma,
        Self::Vaes,
        Self::Vpclmulqdq,
        Self::AvxVnni,
        Self::Rdrand,
        Self::Rdseed,
    ];

    /// Sample code on caller-saved registers, RSI pointing at 32 zero bytes aligned to 32, that
    /// leaves zero in EAX exactly if the feature is there and does what its older reading (BSR for
    /// LZCNT) would not.
    const fn sample(self) -> &'static [u8] {
        match self {
            // haddps xmm0, xmm0
            Self::Sse3 => &[0xf2, 0x0f, 0x7c, 0xc0],
            // pshufb xmm0, xmm0
            Self::Ssse3 => &[0x66, 0x0f, 0x38, 0x00, 0xc0],
            // pminsb xmm0, xmm0
            Self::Sse41 => &[0x66, 0x0f, 0x38, 0x38, 0xc0],
            // pcmpgtq xmm0, xmm0; crc32 ecx, ecx
            Self::Sse42 => &[0x66, 0x0f, 0x38, 0x37, 0xc0, 0xf2, 0x0f, 0x38, 0xf1, 0xc9],
            // popcnt ecx, ecx
            Self::Popcnt => &[0xf3, 0x0f, 0xb8, 0xc9],
            // mov ecx, 1; lzcnt ecx, ecx; cmp ecx, 31; setne al
            Self::Lzcnt => {
                &[0xb9, 1, 0, 0, 0, 0xf3, 0x0f, 0xbd, 0xc9, 0x83, 0xf9, 31, 0x0f, 0x95, 0xc0]
            }
            // xor ecx, ecx; tzcnt ecx, ecx; cmp ecx, 32; setne al; andn ecx, ecx, ecx
            Self::Bmi1 => &[
                0x31, 0xc9, 0xf3, 0x0f, 0xbc, 0xc9, 0x83, 0xf9, 32, 0x0f, 0x95, 0xc0, 0xc4, 0xe2,
                0x70, 0xf2, 0xc9,
            ],
            // pdep ecx, ecx, ecx
            Self::Bmi2 => &[0xc4, 0xe2, 0x73, 0xf5, 0xc9],
            // adcx ecx, ecx
            Self::Adx => &[0x66, 0x0f, 0x38, 0xf6, 0xc9],
            // movbe ecx, [rsi]
            Self::Movbe => &[0x0f, 0x38, 0xf0, 0x0e],
            // xor edx, edx; cmpxchg16b [rsi] (compares zero with zero and stores RCX:RBX, or fails:
            // either way it executes)
            Self::Cx16 => &[0x31, 0xc0, 0x31, 0xd2, 0x48, 0x0f, 0xc7, 0x0e, 0x31, 0xc0],
            // aesenc xmm0, xmm0
            Self::Aes => &[0x66, 0x0f, 0x38, 0xdc, 0xc0],
            // pclmulqdq xmm0, xmm0, 0
            Self::Pclmulqdq => &[0x66, 0x0f, 0x3a, 0x44, 0xc0, 0],
            // sha1nexte xmm0, xmm0
            Self::Sha => &[0x0f, 0x38, 0xc8, 0xc0],
            // gf2p8mulb xmm0, xmm0
            Self::Gfni => &[0x66, 0x0f, 0x38, 0xcf, 0xc0],
            // vaddps ymm0, ymm0, ymm0
            Self::Avx => &[0xc5, 0xfc, 0x57, 0xc0, 0xc5, 0xfc, 0x58, 0xc0, 0xc5, 0xf8, 0x77],
            // vpaddb ymm0, ymm0, ymm0
            Self::Avx2 => &[0xc5, 0xfd, 0xfc, 0xc0, 0xc5, 0xf8, 0x77],
            // vxorps ymm0; vcvtph2ps ymm0, xmm0
            Self::F16c => &[0xc5, 0xfc, 0x57, 0xc0, 0xc4, 0xe2, 0x7d, 0x13, 0xc0, 0xc5, 0xf8, 0x77],
            // vxorps ymm0; vfmadd132ps ymm0, ymm0, ymm0
            Self::Fma => &[0xc5, 0xfc, 0x57, 0xc0, 0xc4, 0xe2, 0x7d, 0x98, 0xc0, 0xc5, 0xf8, 0x77],
            // vaesenc ymm0, ymm0, ymm0
            Self::Vaes => &[0xc4, 0xe2, 0x7d, 0xdc, 0xc0, 0xc5, 0xf8, 0x77],
            // vpclmulqdq ymm0, ymm0, ymm0, 0
            Self::Vpclmulqdq => &[0xc4, 0xe3, 0x7d, 0x44, 0xc0, 0, 0xc5, 0xf8, 0x77],
            // {vex} vpdpbusd ymm0, ymm0, ymm0
            Self::AvxVnni => &[0xc4, 0xe2, 0x7d, 0x50, 0xc0, 0xc5, 0xf8, 0x77],
            // rdrand ecx
            Self::Rdrand => &[0x0f, 0xc7, 0xf1],
            // rdseed ecx
            Self::Rdseed => &[0x0f, 0xc7, 0xf9],
        }
    }
}

/// The set of [`Feature`]s that the host executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFeatures(u32);

impl HostFeatures {
    /// The features of this host, probed on the first call, then cached. The baseline alone if no
    /// code can be mapped.
    pub fn probe() -> &'static Self {
        static HOST: OnceLock<HostFeatures> = OnceLock::new();
        HOST.get_or_init(probe_all)
    }

    /// None beyond the baseline.
    pub const fn baseline() -> Self {
        Self(0)
    }

    /// Whether `feature` works.
    pub const fn has(&self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// The same with `feature`.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u32)
    }

    /// What both have: the features a guest may use are those that the host executes and its CPUID
    /// shows.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The same without `feature`.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u32))
    }
}

#[repr(C, align(32))]
struct Scratch([u8; 32]);

fn probe_all() -> HostFeatures {
    let Ok(area) = CodeArea::new(4096) else { return HostFeatures::baseline() };
    let mut found = 0;
    for feature in Feature::ALL {
        let mut code = vec![0x31, 0xc0]; // xor eax, eax
        code.extend_from_slice(feature.sample());
        code.push(0xc3);
        let Some(entry) = area.push(&code) else { continue };
        let mut state = CpuState::reset();
        let mut scratch = Scratch([0; 32]);
        // SAFETY: the sample uses caller-saved registers and at most 32 bytes at RSI, keeps RSP,
        // and returns; a fault in it is caught, since `area` is registered.
        let outcome =
            unsafe { enter_light(&raw mut state, scratch.0.as_mut_ptr(), entry.as_ptr()) };
        found |= u32::from(outcome.code == 0) << feature as u32;
    }
    HostFeatures(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_at_least_what_cpuid_shows() {
        let host = HostFeatures::probe();
        assert!(!std::arch::is_x86_feature_detected!("avx2") || host.has(Feature::Avx2));
        assert!(!std::arch::is_x86_feature_detected!("sha") || host.has(Feature::Sha));
        assert!(!std::arch::is_x86_feature_detected!("lzcnt") || host.has(Feature::Lzcnt));
        assert!(!std::arch::is_x86_feature_detected!("bmi1") || host.has(Feature::Bmi1));
        assert!(!std::arch::is_x86_feature_detected!("sse4.2") || host.has(Feature::Sse42));
        assert!(!std::arch::is_x86_feature_detected!("movbe") || host.has(Feature::Movbe));
        assert!(!host.without(Feature::Sse3).has(Feature::Sse3));
    }

    #[test]
    fn an_undefined_opcode_is_absent() {
        let area = CodeArea::new(4096).expect("code area");
        let entry = area.push(&[0x0f, 0x0b]).expect("room");
        let mut state = CpuState::reset();
        // SAFETY: UD2 faults, and the registered area's guard returns from it.
        let outcome = unsafe { enter_light(&raw mut state, std::ptr::null_mut(), entry.as_ptr()) };
        assert_eq!(outcome.code & 0xff, 6);
    }
}
