//! Expectations from SDM vol. 4, table 2-2, and the sections the registers' own comments name.

use super::*;
use std::vec::Vec;

fn setup() -> (CpuModel, CpuState) {
    (CpuModel::gemello_v2(), CpuState::reset())
}

fn wr(state: &mut CpuState, msr: u32, value: u64) -> Result<TlbEffect, Exception> {
    let before = state.clone();
    let result = write(&CpuModel::gemello_v2(), state, msr, value, 1000);
    if result.is_err() {
        assert_eq!(*state, before, "{msr:#x}: a fault must change nothing");
        assert_eq!(result, Err(GP));
    }
    result
}

fn rd(state: &CpuState, msr: u32) -> Result<u64, Exception> {
    read(&CpuModel::gemello_v2(), state, msr, 1000)
}

const NON_CANONICAL: u64 = 0x0000_8000_0000_0000;

#[test]
fn what_is_written_is_read() {
    let (_, mut state) = setup();
    let kernel = 0xffff_8000_0000_1234;
    let cases = [
        (IA32_STAR, 0x0023_0010_dead_beef),
        (IA32_LSTAR, kernel),
        (IA32_CSTAR, kernel),
        (IA32_FMASK, 0x4_7700),
        (IA32_FS_BASE, kernel),
        (IA32_GS_BASE, kernel + 8),
        (IA32_KERNEL_GS_BASE, 0x7fff_ffff_ffff),
        (IA32_SYSENTER_CS, 0x10),
        (IA32_SYSENTER_ESP, kernel),
        (IA32_SYSENTER_EIP, kernel),
        (IA32_PAT, 0x0007_0106_0007_0406),
        (IA32_MTRR_DEF_TYPE, 0xc06),
        (IA32_MTRR_FIX64K_00000, 0x0606_0606_0606_0606),
        (IA32_MTRR_FIX16K_A0000, 0),
        (IA32_MTRR_FIX4K_F8000, 0x0505_0505_0505_0505),
        (0x20e, 0x3fff_ffff_f006),
        (0x20f, 0x3fff_ffff_f800),
        (IA32_TSC_AUX, 0xffff_ffff),
        (IA32_SPEC_CTRL, 7),
        (IA32_MCG_STATUS, 0),
        (IA32_XSS, 0),
    ];
    for (msr, value) in cases {
        assert_eq!(wr(&mut state, msr, value), Ok(TlbEffect::None), "{msr:#x}");
        assert_eq!(rd(&state, msr), Ok(value), "{msr:#x}");
    }
    // Distinct fixed-range registers are distinct.
    assert_eq!(rd(&state, IA32_MTRR_FIX16K_80000), Ok(0));
    assert_eq!(rd(&state, IA32_MTRR_FIX4K_F0000), Ok(0));
}

/// SDM vol. 3, 12.4.4 and 12.12.1.
#[test]
fn the_apics_base_is_an_address_that_the_processor_has() {
    let with = CpuModel::gemello_v2();
    let without = CpuModel::parse("gemello-v2,-x2apic").expect("a known model");
    assert_eq!(check_apic_base(&with, 0xfee0_0900), Ok(()));
    assert_eq!(check_apic_base(&with, 0xfee0_0d00), Ok(()));
    assert_eq!(check_apic_base(&without, 0xfee0_0d00), Err(GP));
    let beyond = 1 << crate::cpuid::PHYSICAL_BITS;
    assert_eq!(check_apic_base(&with, beyond >> 1 | 0x900), Ok(()));
    assert_eq!(check_apic_base(&with, beyond | 0x900), Err(GP));
    assert_eq!(check_apic_base(&with, 0xfee0_0901), Err(GP));
}

#[test]
fn what_is_refused() {
    let (_, mut state) = setup();
    let cases = [
        (IA32_LSTAR, NON_CANONICAL),
        (IA32_CSTAR, NON_CANONICAL),
        (IA32_FS_BASE, NON_CANONICAL),
        (IA32_GS_BASE, NON_CANONICAL),
        (IA32_KERNEL_GS_BASE, NON_CANONICAL),
        (IA32_SYSENTER_ESP, NON_CANONICAL),
        (IA32_SYSENTER_EIP, NON_CANONICAL),
        (IA32_TSC_AUX, 1 << 32),
        (IA32_FMASK, 1 << 32),
        (IA32_PAT, 2),
        (IA32_PAT, 3 << 56),
        (IA32_PAT, 8),
        (IA32_MTRR_DEF_TYPE, 2),
        (IA32_MTRR_DEF_TYPE, 7),
        (IA32_MTRR_DEF_TYPE, 1 << 12),
        (IA32_MTRR_FIX64K_00000, 7),
        (IA32_MTRR_PHYSBASE0, 1 << 8),
        (IA32_MTRR_PHYSBASE0, 1 << 46),
        (IA32_MTRR_PHYSBASE0 + 1, 6),
        (0x210, 0),
        (IA32_MTRRCAP, 0x508),
        (IA32_SPEC_CTRL, 8),
        (IA32_SPEC_CTRL, 1 << 11),
        (IA32_PRED_CMD, 2),
        (IA32_FLUSH_CMD, 2),
        (IA32_ARCH_CAPABILITIES, 0),
        (MSR_PLATFORM_INFO, 0),
        (IA32_FEATURE_CONTROL, 5),
        (IA32_MISC_ENABLE, 1 << 1),
        (IA32_MISC_ENABLE, 1 << 7),
        (IA32_MISC_ENABLE, 1 << 38),
        (IA32_XSS, 1 << 8),
        (IA32_DEBUGCTL, 1 << 6),
        (IA32_MCG_CAP, 0),
        (IA32_MCG_STATUS, 8),
        (0x400, 0),
        (0x4000_0000, 0),
        (0xc001_0015, 0),
        (u32::MAX, 0),
    ];
    for (msr, value) in cases {
        assert_eq!(wr(&mut state, msr, value), Err(GP), "{msr:#x} {value:#x}");
    }
    for unreadable in [IA32_PRED_CMD, IA32_FLUSH_CMD, IA32_BIOS_UPDT_TRIG, 0x400, IA32_APIC_BASE] {
        assert_eq!(rd(&state, unreadable), Err(GP), "{unreadable:#x}");
    }
}

#[test]
fn efer() {
    let (_, mut state) = setup();
    assert_eq!(wr(&mut state, IA32_EFER, 0x901), Ok(TlbEffect::FlushAll));
    assert_eq!(rd(&state, IA32_EFER), Ok(0x901));
    // Reserved bits: 1, 9, 12 (SVME, of another vendor), 13.
    for bit in [1, 9, 12, 13, 63] {
        assert!(wr(&mut state, IA32_EFER, 0x901 | 1 << bit).is_err());
    }
    // LMA cannot be set by hand.
    assert_eq!(wr(&mut state, IA32_EFER, 0xd01), Ok(TlbEffect::None));
    assert_eq!(rd(&state, IA32_EFER), Ok(0x901));
    // With paging on LME is fixed, SCE and NXE are not, and LMA stays.
    state.paging.cr0 |= Cr0::PG;
    state.paging.efer |= Efer::LMA;
    assert!(wr(&mut state, IA32_EFER, 0x801).is_err());
    assert_eq!(wr(&mut state, IA32_EFER, 0x100), Ok(TlbEffect::FlushAll));
    assert_eq!(rd(&state, IA32_EFER), Ok(0x500));
}

#[test]
fn efer_bits_need_their_features() {
    let mut model = CpuModel::gemello_v2();
    model.features = model.features.disable(Feature::Nx).disable(Feature::Syscall);
    let mut state = CpuState::reset();
    for bits in [0x800, 1] {
        assert_eq!(write(&model, &mut state, IA32_EFER, bits, 0), Err(GP));
    }
    assert_eq!(read(&model, &state, IA32_LSTAR, 0), Err(GP));
}

#[test]
fn time_stamp_counter_and_its_adjustment_move_together() {
    let (_, mut state) = setup();
    state.tsc_offset = 500;
    assert_eq!(rd(&state, IA32_TIME_STAMP_COUNTER), Ok(1500));
    wr(&mut state, IA32_TIME_STAMP_COUNTER, 0).unwrap();
    assert_eq!(rd(&state, IA32_TIME_STAMP_COUNTER), Ok(0));
    assert_eq!(rd(&state, IA32_TSC_ADJUST), Ok(1500u64.wrapping_neg()));
    wr(&mut state, IA32_TSC_ADJUST, 0).unwrap();
    assert_eq!(rd(&state, IA32_TIME_STAMP_COUNTER), Ok(1500));
    assert_eq!(state.tsc_offset, 500);
}

#[test]
fn what_linux_reads_without_a_safety_net() {
    let (_, mut state) = setup();
    // Family 6: IA32_BIOS_SIGN_ID is cleared, CPUID executed, and read back.
    wr(&mut state, IA32_BIOS_SIGN_ID, 0).unwrap();
    assert_eq!(rd(&state, IA32_BIOS_SIGN_ID), Ok(1 << 32));
    assert_eq!(rd(&state, IA32_MISC_ENABLE).unwrap() & FAST_STRING, 1);
    assert_eq!(rd(&state, IA32_MCG_CAP), Ok(0));
    assert_eq!(rd(&state, IA32_MTRRCAP), Ok(0x508));
    assert_eq!(rd(&state, IA32_FEATURE_CONTROL), Ok(1));
    // 2 GHz: ratio 20 in bits 15:8 and 47:40.
    assert_eq!(rd(&state, MSR_PLATFORM_INFO), Ok(0x1400_0000_1400));
    assert_eq!(rd(&state, IA32_PLATFORM_ID), Ok(0));
    let readable: Vec<u32> = (0..0x2000).filter(|&m| rd(&state, m).is_ok()).collect();
    for msr in [IA32_PAT, IA32_DEBUGCTL, IA32_SPEC_CTRL, IA32_XSS] {
        assert!(readable.contains(&msr));
    }
}

#[test]
fn debugctl_keeps_branch_stepping_only() {
    let (_, mut state) = setup();
    wr(&mut state, IA32_DEBUGCTL, 3).unwrap();
    assert_eq!(rd(&state, IA32_DEBUGCTL), Ok(2));
}

#[test]
fn misc_enable_can_be_written_back_as_read() {
    let (_, mut state) = setup();
    let value = rd(&state, IA32_MISC_ENABLE).unwrap();
    assert_eq!(value, 0x1801);
    wr(&mut state, IA32_MISC_ENABLE, value | LIMIT_CPUID_MAXVAL).unwrap();
    assert_eq!(rd(&state, IA32_MISC_ENABLE), Ok(value | LIMIT_CPUID_MAXVAL));
}

#[test]
fn misc_enable_has_the_bits_of_the_model() {
    let (mut model, mut state) = setup();
    // What kvm-unit-tests write: all bits that table 2-2 has for such a processor, the read-only
    // ones as they read.
    let all = 0x4_00c5_1809;
    wr(&mut state, IA32_MISC_ENABLE, all).unwrap();
    assert_eq!(rd(&state, IA32_MISC_ENABLE), Ok(all));
    for (feature, bit) in [(Feature::Sse3, MONITOR_FSM), (Feature::Nx, XD_DISABLE)] {
        model.features = model.features.disable(feature);
        assert_eq!(write(&model, &mut state, IA32_MISC_ENABLE, bit, 0), Err(GP), "{feature:?}");
    }
}

#[test]
fn misc_enable_takes_execute_disable_away() {
    let (model, mut state) = setup();
    let nx = |state: &CpuState| crate::cpuid::cpuid(&model, state, 0x8000_0001, 0)[3] >> 20 & 1;
    assert_eq!(nx(&state), 1);
    wr(&mut state, IA32_MISC_ENABLE, XD_DISABLE).unwrap();
    assert_eq!(nx(&state), 0);
    assert_eq!(wr(&mut state, IA32_EFER, Efer::NXE.bits()), Err(GP));
    wr(&mut state, IA32_MISC_ENABLE, 0).unwrap();
    assert_eq!(nx(&state), 1);
    wr(&mut state, IA32_EFER, Efer::NXE.bits()).unwrap();
}

#[test]
fn capabilities_spare_the_guest_its_mitigations() {
    let (mut model, state) = setup();
    let value = rd(&state, IA32_ARCH_CAPABILITIES).unwrap();
    // Bits 0, 1, 3–6, 8, 13–15, 20, 24, 26, 27, 62; neither RSBA (2) nor RRSBA (19).
    assert_eq!(value, 0x4000_0000_0d10_e17b);
    // IBRS_ALL without IBRS would promise what cannot be switched on.
    model.features = model.features.disable(Feature::SpecCtrl);
    assert_eq!(speculation::capabilities(&model), value & !2);
    model.features = model.features.disable(Feature::Stibp).disable(Feature::Ssbd);
    assert_eq!(read(&model, &state, IA32_SPEC_CTRL, 0), Err(GP));
}

#[test]
fn only_level_0() {
    let (_, mut state) = setup();
    assert_eq!(permitted(&state), Ok(()));
    state.cpl = 3;
    assert_eq!(permitted(&state), Err(GP));
}
