//! Numbers of model-specific registers under the manual's names (SDM vol. 4, chapter 2).
#![allow(missing_docs)] // each is the manual's MSR of that name

macro_rules! msrs {
    ($($name:ident $number:literal,)*) => {
        $(pub const $name: u32 = $number;)*

        /// The manual's name of `msr`, for traces and error texts.
        pub fn name(msr: u32) -> Option<&'static str> {
            match msr {
                $($number => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

msrs! {
    IA32_P5_MC_ADDR 0x0,
    IA32_P5_MC_TYPE 0x1,
    IA32_TIME_STAMP_COUNTER 0x10,
    IA32_PLATFORM_ID 0x17,
    IA32_APIC_BASE 0x1b,
    IA32_FEATURE_CONTROL 0x3a,
    IA32_TSC_ADJUST 0x3b,
    IA32_SPEC_CTRL 0x48,
    IA32_PRED_CMD 0x49,
    IA32_BIOS_UPDT_TRIG 0x79,
    IA32_BIOS_SIGN_ID 0x8b,
    MSR_PLATFORM_INFO 0xce,
    IA32_MTRRCAP 0xfe,
    IA32_ARCH_CAPABILITIES 0x10a,
    IA32_FLUSH_CMD 0x10b,
    IA32_SYSENTER_CS 0x174,
    IA32_SYSENTER_ESP 0x175,
    IA32_SYSENTER_EIP 0x176,
    IA32_MCG_CAP 0x179,
    IA32_MCG_STATUS 0x17a,
    IA32_PERF_STATUS 0x198,
    IA32_MISC_ENABLE 0x1a0,
    IA32_DEBUGCTL 0x1d9,
    IA32_MTRR_PHYSBASE0 0x200,
    IA32_MTRR_FIX64K_00000 0x250,
    IA32_MTRR_FIX16K_80000 0x258,
    IA32_MTRR_FIX16K_A0000 0x259,
    IA32_MTRR_FIX4K_C0000 0x268,
    IA32_MTRR_FIX4K_C8000 0x269,
    IA32_MTRR_FIX4K_D0000 0x26a,
    IA32_MTRR_FIX4K_D8000 0x26b,
    IA32_MTRR_FIX4K_E0000 0x26c,
    IA32_MTRR_FIX4K_E8000 0x26d,
    IA32_MTRR_FIX4K_F0000 0x26e,
    IA32_MTRR_FIX4K_F8000 0x26f,
    IA32_PAT 0x277,
    IA32_MTRR_DEF_TYPE 0x2ff,
    IA32_TSC_DEADLINE 0x6e0,
    IA32_XSS 0xda0,
    IA32_EFER 0xc000_0080,
    IA32_STAR 0xc000_0081,
    IA32_LSTAR 0xc000_0082,
    IA32_CSTAR 0xc000_0083,
    IA32_FMASK 0xc000_0084,
    IA32_FS_BASE 0xc000_0100,
    IA32_GS_BASE 0xc000_0101,
    IA32_KERNEL_GS_BASE 0xc000_0102,
    IA32_TSC_AUX 0xc000_0103,
}
