//! Every CPUID feature bit that gemello knows, under the name /proc/cpuinfo gives it.
//!
//! The table below is the only place that says in which leaf, register and bit a feature shows
//! (SDM vol. 2A, CPUID; for KVM's interface Linux `Documentation/virt/kvm/x86/cpuid.rst`, the names
//! being QEMU's). OSXSAVE and OSPKE mirror CR4 and are not features; see [`super::cpuid`].

use core::fmt;

/// The CPUID output words that hold feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Leaf 1, ECX.
    L1Ecx,
    /// Leaf 1, EDX.
    L1Edx,
    /// Leaf 6, EAX.
    L6Eax,
    /// Leaf 7 subleaf 0, EBX.
    L7Ebx,
    /// Leaf 7 subleaf 0, ECX.
    L7Ecx,
    /// Leaf 7 subleaf 0, EDX.
    L7Edx,
    /// Leaf 7 subleaf 2, EDX.
    L72Edx,
    /// Leaf DH subleaf 1, EAX.
    Ld1Eax,
    /// Leaf 4000_0000H, EAX: bit 0 of the hypervisor's highest leaf, 4000_0001H with KVM's.
    H0Eax,
    /// Leaf 4000_0001H, EAX: what KVM's interface offers.
    H1Eax,
    /// Leaf 8000_0001H, ECX.
    X1Ecx,
    /// Leaf 8000_0001H, EDX.
    X1Edx,
    /// Leaf 8000_0007H, EDX.
    X7Edx,
}

macro_rules! features {
    ($($variant:ident $name:literal $word:ident $bit:literal,)*) => {
        /// One CPUID feature; [`Feature::name`] is its name in /proc/cpuinfo.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // the names are the documentation
        pub enum Feature { $($variant,)* }

        impl Feature {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in /proc/cpuinfo, or Linux's internal one where that file hides the bit.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where CPUID shows it.
            pub const fn place(self) -> (Word, u8) {
                match self { $(Self::$variant => (Word::$word, $bit),)* }
            }
        }
    };
}

features! {
    Fpu "fpu" L1Edx 0,
    Vme "vme" L1Edx 1,
    De "de" L1Edx 2,
    Pse "pse" L1Edx 3,
    Tsc "tsc" L1Edx 4,
    Msr "msr" L1Edx 5,
    Pae "pae" L1Edx 6,
    Mce "mce" L1Edx 7,
    Cx8 "cx8" L1Edx 8,
    Apic "apic" L1Edx 9,
    Sep "sep" L1Edx 11,
    Mtrr "mtrr" L1Edx 12,
    Pge "pge" L1Edx 13,
    Mca "mca" L1Edx 14,
    Cmov "cmov" L1Edx 15,
    Pat "pat" L1Edx 16,
    Pse36 "pse36" L1Edx 17,
    Clflush "clflush" L1Edx 19,
    Mmx "mmx" L1Edx 23,
    Fxsr "fxsr" L1Edx 24,
    Sse "sse" L1Edx 25,
    Sse2 "sse2" L1Edx 26,
    Sse3 "pni" L1Ecx 0,
    Pclmulqdq "pclmulqdq" L1Ecx 1,
    Ssse3 "ssse3" L1Ecx 9,
    Fma "fma" L1Ecx 12,
    Cx16 "cx16" L1Ecx 13,
    Pcid "pcid" L1Ecx 17,
    Sse41 "sse4_1" L1Ecx 19,
    Sse42 "sse4_2" L1Ecx 20,
    X2apic "x2apic" L1Ecx 21,
    Movbe "movbe" L1Ecx 22,
    Popcnt "popcnt" L1Ecx 23,
    TscDeadline "tsc_deadline_timer" L1Ecx 24,
    Aes "aes" L1Ecx 25,
    Xsave "xsave" L1Ecx 26,
    Avx "avx" L1Ecx 28,
    F16c "f16c" L1Ecx 29,
    Rdrand "rdrand" L1Ecx 30,
    Hypervisor "hypervisor" L1Ecx 31,
    Arat "arat" L6Eax 2,
    Fsgsbase "fsgsbase" L7Ebx 0,
    TscAdjust "tsc_adjust" L7Ebx 1,
    Bmi1 "bmi1" L7Ebx 3,
    Avx2 "avx2" L7Ebx 5,
    Smep "smep" L7Ebx 7,
    Bmi2 "bmi2" L7Ebx 8,
    Erms "erms" L7Ebx 9,
    Invpcid "invpcid" L7Ebx 10,
    Rdseed "rdseed" L7Ebx 18,
    Adx "adx" L7Ebx 19,
    Smap "smap" L7Ebx 20,
    Clflushopt "clflushopt" L7Ebx 23,
    Clwb "clwb" L7Ebx 24,
    Sha "sha_ni" L7Ebx 29,
    Umip "umip" L7Ecx 2,
    Pku "pku" L7Ecx 3,
    Rdpid "rdpid" L7Ecx 22,
    Fsrm "fsrm" L7Edx 4,
    SpecCtrl "spec_ctrl" L7Edx 26,
    Stibp "stibp" L7Edx 27,
    FlushL1d "flush_l1d" L7Edx 28,
    ArchCapabilities "arch_capabilities" L7Edx 29,
    Ssbd "ssbd" L7Edx 31,
    BhiCtrl "bhi_ctrl" L72Edx 4,
    Xsaveopt "xsaveopt" Ld1Eax 0,
    Xsavec "xsavec" Ld1Eax 1,
    Xgetbv1 "xgetbv1" Ld1Eax 2,
    Xsaves "xsaves" Ld1Eax 3,
    LahfLm "lahf_lm" X1Ecx 0,
    Abm "abm" X1Ecx 5,
    Prefetchw "3dnowprefetch" X1Ecx 8,
    Syscall "syscall" X1Edx 11,
    Nx "nx" X1Edx 20,
    Pdpe1gb "pdpe1gb" X1Edx 26,
    Rdtscp "rdtscp" X1Edx 27,
    Lm "lm" X1Edx 29,
    ConstantTsc "constant_tsc" X7Edx 8,
    Kvm "kvm" H0Eax 0,
    KvmClockOld "kvmclock_old" H1Eax 0,
    KvmNopIoDelay "kvm_nopiodelay" H1Eax 1,
    KvmClock "kvmclock" H1Eax 3,
    KvmAsyncPf "kvm_asyncpf" H1Eax 4,
    KvmStealTime "kvm_steal_time" H1Eax 5,
    KvmPvUnhalt "kvm_pv_unhalt" H1Eax 7,
    KvmPvTlbFlush "kvm_pv_tlb_flush" H1Eax 9,
    KvmPvIpi "kvm_pv_ipi" H1Eax 11,
    KvmPvSchedYield "kvm_pv_sched_yield" H1Eax 13,
    KvmAsyncPfInt "kvm_asyncpf_int" H1Eax 14,
    KvmClockStable "kvmclock_stable_bit" H1Eax 24,
}

/// Spellings that people use besides /proc/cpuinfo's, dashes and dots already turned to
/// underscores.
const ALIASES: &[(&str, Feature)] = &[
    ("sse3", Feature::Sse3),
    ("pclmul", Feature::Pclmulqdq),
    ("sha", Feature::Sha),
    ("lzcnt", Feature::Abm),
    ("lahf", Feature::LahfLm),
    ("tsc_deadline", Feature::TscDeadline),
    ("invtsc", Feature::ConstantTsc),
    ("nonstop_tsc", Feature::ConstantTsc),
    ("prefetchw", Feature::Prefetchw),
    ("ibrs", Feature::SpecCtrl),
    ("ibpb", Feature::SpecCtrl),
];

/// What a feature cannot be without (SDM vol. 1, 13.1 and 14.3; vol. 2, INVPCID, XSAVE family).
const REQUIRES: &[(Feature, Feature)] = &[
    (Feature::Sse, Feature::Fxsr),
    (Feature::Sse2, Feature::Sse),
    (Feature::Sse3, Feature::Sse2),
    (Feature::Ssse3, Feature::Sse3),
    (Feature::Sse41, Feature::Ssse3),
    (Feature::Sse42, Feature::Sse41),
    (Feature::Aes, Feature::Sse2),
    (Feature::Pclmulqdq, Feature::Sse2),
    (Feature::Sha, Feature::Ssse3),
    (Feature::BhiCtrl, Feature::SpecCtrl),
    (Feature::Xsave, Feature::Fxsr),
    (Feature::Xsaveopt, Feature::Xsave),
    (Feature::Xsavec, Feature::Xsave),
    (Feature::Xgetbv1, Feature::Xsave),
    (Feature::Xsaves, Feature::Xsavec),
    (Feature::Pku, Feature::Xsave),
    (Feature::Avx, Feature::Xsave),
    (Feature::Avx, Feature::Sse42),
    (Feature::Avx2, Feature::Avx),
    (Feature::Fma, Feature::Avx),
    (Feature::F16c, Feature::Avx),
    (Feature::Invpcid, Feature::Pcid),
    (Feature::Pcid, Feature::Lm),
    (Feature::X2apic, Feature::Apic),
    (Feature::TscDeadline, Feature::Apic),
    (Feature::TscDeadline, Feature::Tsc),
    (Feature::Mca, Feature::Mce),
    (Feature::Lm, Feature::Pae),
    (Feature::Syscall, Feature::Lm),
    (Feature::Pdpe1gb, Feature::Lm),
    (Feature::Fsgsbase, Feature::Lm),
    (Feature::TscAdjust, Feature::Tsc),
    (Feature::Rdtscp, Feature::Tsc),
    (Feature::ConstantTsc, Feature::Tsc),
    (Feature::Kvm, Feature::Hypervisor),
    (Feature::KvmClockOld, Feature::Kvm),
    (Feature::KvmClockOld, Feature::Tsc),
    (Feature::KvmNopIoDelay, Feature::Kvm),
    (Feature::KvmClock, Feature::Kvm),
    (Feature::KvmClock, Feature::Tsc),
    (Feature::KvmClockStable, Feature::KvmClock),
    (Feature::KvmAsyncPf, Feature::Kvm),
    (Feature::KvmAsyncPfInt, Feature::KvmAsyncPf),
    (Feature::KvmStealTime, Feature::Kvm),
    (Feature::KvmPvUnhalt, Feature::Kvm),
    (Feature::KvmPvTlbFlush, Feature::KvmStealTime),
    (Feature::KvmPvIpi, Feature::Kvm),
    (Feature::KvmPvSchedYield, Feature::KvmStealTime),
];

impl Feature {
    /// The feature named `name`, in /proc/cpuinfo's spelling or a common other one (`sse4.1`,
    /// `lzcnt`).
    pub fn from_name(name: &str) -> Option<Self> {
        let by_name = Self::ALL.iter().copied().find(|f| same_name(name, f.name()));
        by_name.or_else(|| ALIASES.iter().find(|(a, _)| same_name(name, a)).map(|&(_, f)| f))
    }
}

/// Whether `typed` is `name`, letter case and the choice among `-`, `.` and `_` aside.
fn same_name(typed: &str, name: &str) -> bool {
    let fold = |b: u8| if b == b'-' || b == b'.' { b'_' } else { b.to_ascii_lowercase() };
    typed.bytes().map(fold).eq(name.bytes())
}

/// A set of features.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureSet(u128);

impl FeatureSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Every feature gemello knows.
    pub const ALL: Self = Self::of(Feature::ALL);

    /// The set of `features`.
    pub const fn of(features: &[Feature]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < features.len() {
            bits |= 1 << features[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether `feature` is in the set.
    pub const fn contains(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// This set and `feature`, nothing else.
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// This set but for `feature`, nothing else.
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u8))
    }

    /// What is in either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is here and not in `other`.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |&f| self.contains(f))
    }

    /// Adds `feature` and everything it cannot be without.
    #[must_use]
    pub fn enable(self, feature: Feature) -> Self {
        let needs = REQUIRES.iter().filter(|(who, _)| *who == feature);
        needs.fold(self.with(feature), |set, &(_, what)| set.enable(what))
    }

    /// Removes `feature` and everything that cannot be without it.
    #[must_use]
    pub fn disable(self, feature: Feature) -> Self {
        let dependents = REQUIRES.iter().filter(|(_, what)| *what == feature);
        dependents.fold(self.without(feature), |set, &(who, _)| set.disable(who))
    }

    /// The bits of `word` that the members set.
    pub fn word(self, word: Word) -> u32 {
        self.iter().fold(0, |bits, f| match f.place() {
            (w, bit) if w == word => bits | 1 << bit,
            _ => bits,
        })
    }
}

impl fmt::Display for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, feature) in self.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " " }, feature.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn no_two_features_share_a_bit_and_all_fit_the_set() {
        assert!(Feature::ALL.len() <= 128);
        for (i, a) in Feature::ALL.iter().enumerate() {
            for b in &Feature::ALL[i + 1..] {
                assert_ne!(a.place(), b.place(), "{a:?} {b:?}");
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn names_and_common_spellings_are_found() {
        for f in Feature::ALL {
            assert_eq!(Feature::from_name(f.name()), Some(*f));
        }
        assert_eq!(Feature::from_name("SSE4.1"), Some(Feature::Sse41));
        assert_eq!(Feature::from_name("sse3"), Some(Feature::Sse3));
        assert_eq!(Feature::from_name("tsc-deadline"), Some(Feature::TscDeadline));
        assert_eq!(Feature::from_name("avx3"), None);
    }

    #[test]
    fn dependencies_follow_both_ways() {
        let set = FeatureSet::EMPTY.enable(Feature::Avx2);
        assert!(set.contains(Feature::Avx) && set.contains(Feature::Xsave));
        assert!(set.contains(Feature::Fxsr));
        let rest = FeatureSet::ALL.disable(Feature::Xsave);
        for gone in [Feature::Xsaves, Feature::Avx, Feature::Avx2, Feature::Fma, Feature::Pku] {
            assert!(!rest.contains(gone), "{gone:?}");
        }
        assert!(rest.contains(Feature::Sse42));
    }

    #[test]
    fn a_set_prints_as_cpuinfo_does() {
        assert_eq!(FeatureSet::of(&[Feature::Nx, Feature::Fpu]).to_string(), "fpu nx");
    }
}
