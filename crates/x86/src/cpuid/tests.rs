//! Expectations worked out by hand from SDM vol. 2A, CPUID.

use super::*;
use crate::addr::VcpuId;
use std::string::String;
use std::vec::Vec;

fn ask(leaf: u32, subleaf: u32) -> [u32; 4] {
    cpuid(&CpuModel::gemello_v3(), &CpuState::reset(), leaf, subleaf)
}

fn string(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    String::from_utf8(bytes).unwrap().trim_end_matches('\0').into()
}

#[test]
fn names() {
    let [max, b, c, d] = ask(0, 0);
    assert_eq!((max, string(&[b, d, c]).as_str()), (0x1f, "GenuineIntel"));
    let [max, b, c, d] = ask(0x4000_0000, 0);
    assert_eq!((max, string(&[b, c, d]).as_str()), (0x4000_0001, "KVMKVMKVM"));
    let [max, b, c, d] = ask(0x4000_0100, 0);
    assert_eq!((max, string(&[b, c, d]).as_str()), (0x4000_0100, "gemellogemel"));
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(|l| ask(l, 0)).collect();
    assert_eq!(string(&brand), "gemello-v3 virtual processor");
}

#[test]
fn signature_and_features_of_leaf_1() {
    let [eax, ebx, ecx, edx] = ask(1, 0);
    let model = (eax >> 4 & 0xf) | (eax >> 16 & 0xf) << 4;
    assert_eq!((eax >> 8 & 0xf, model, eax & 0xf), (6, 0x6a, 6));
    assert_eq!(ebx, 0x0000_0800);
    // Bits 0–9, 11–17, 19, 23–26.
    assert_eq!(edx, 0x078b_fbff);
    // pni pclmul ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt deadline aes xsave avx f16c
    // rdrand hypervisor.
    assert_eq!(ecx, 0xf7fa_3203);
}

#[test]
fn v2_hides_the_vector_extensions() {
    let v2 = CpuModel::gemello_v2();
    let state = CpuState::reset();
    assert_eq!(cpuid(&v2, &state, 1, 0)[2], 0xf7fa_3203 & !(1 << 28 | 1 << 29 | 1 << 12));
    assert_eq!(cpuid(&v2, &state, 7, 0)[1] & 1 << 5, 0);
    assert_eq!(cpuid(&v2, &state, 0xd, 0), [3, 576, 576, 0]);
    assert_eq!(cpuid(&v2, &state, 0xd, 2), [0; 4]);
}

#[test]
fn leaf_7() {
    let [eax, ebx, ecx, edx] = ask(7, 0);
    assert_eq!(eax, 2);
    // fsgsbase tsc_adjust bmi1 avx2 (6) smep bmi2 erms invpcid (13) rdseed adx clflushopt clwb sha.
    assert_eq!(ebx, 1 | 2 | 8 | 0x20 | 0x40 | 0x780 | 0x2000 | 0xc_0000 | 0x0180_0000 | 1 << 29);
    assert_eq!(ecx, 1 << 2 | 1 << 22);
    assert_eq!(edx, 1 << 4 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31);
    assert_eq!((ask(7, 1), ask(7, 3)), ([0; 4], [0; 4]));
    // bhi_ctrl, alone in subleaf 2.
    assert_eq!(ask(7, 2), [0, 0, 0, 1 << 4]);
    let without = CpuModel::parse("gemello-v3,-bhi_ctrl").unwrap();
    assert_eq!(cpuid(&without, &CpuState::reset(), 7, 0)[0], 0);
}

#[test]
fn caches_are_told_by_leaf_4() {
    // SDM vol. 2A, table 3-12: FFH refers to leaf 4, F0H is a prefetch of 64 bytes, 01H in AL means
    // one round.
    assert_eq!(ask(2, 0), [0x00f0_ff01, 0, 0, 0]);
    assert_eq!(ask(4, 0)[0] & 31, 1, "a data cache");
}

#[test]
fn what_follows_the_state() {
    let model = CpuModel::parse("gemello-v3,+pku").unwrap();
    let mut state = CpuState::reset();
    assert_eq!(cpuid(&model, &state, 1, 0)[2] & OSXSAVE, 0);
    assert_eq!(cpuid(&model, &state, 7, 0)[2] & OSPKE, 0);
    state.paging.cr4 = Cr4::OSXSAVE | Cr4::PKE;
    assert_ne!(cpuid(&model, &state, 1, 0)[2] & OSXSAVE, 0);
    assert_ne!(cpuid(&model, &state, 7, 0)[2] & OSPKE, 0);
    // x87, SSE, AVX, PKRU: 512 + 64 + 256 bytes, and PKRU's 8 at 2688.
    assert_eq!(cpuid(&model, &state, 0xd, 0), [0x207, 576, 2696, 0]);
    state.xcr0 = 7;
    assert_eq!(cpuid(&model, &state, 0xd, 0)[1], 832);
    state.xcr0 = 0x203;
    assert_eq!(cpuid(&model, &state, 0xd, 0)[1], 2696);
    // Compacted: PKRU follows the header at once.
    assert_eq!(cpuid(&model, &state, 0xd, 1), [0xf, 584, 0, 0]);
    assert_eq!(cpuid(&model, &state, 0xd, 2), [256, 576, 0, 0]);
    assert_eq!(cpuid(&model, &state, 0xd, 9), [8, 2688, 0, 0]);
    state.msr.misc_enable |= 1 << 22;
    assert_eq!(cpuid(&model, &state, 0, 0)[0], 3);
}

#[test]
fn syscall_shows_in_64_bit_mode_only() {
    let model = CpuModel::gemello_v2();
    let mut state = CpuState::reset();
    assert_eq!(cpuid(&model, &state, 0x8000_0001, 0), [0, 0, 0x121, 0x2c10_0000]);
    state.paging.cr0 |= crate::regs::Cr0::PE;
    state.paging.efer |= crate::regs::Efer::LMA;
    state.seg[crate::state::Seg::Cs as usize].access |= crate::state::Segment::L;
    assert_eq!(cpuid(&model, &state, 0x8000_0001, 0)[3], 0x2c10_0800);
}

#[test]
fn addresses_and_tsc() {
    assert_eq!(ask(0x8000_0000, 0)[0], 0x8000_0008);
    assert_eq!(ask(0x8000_0007, 0), [0, 0, 0, 0x100]);
    assert_eq!(ask(0x8000_0008, 0)[0], 0x302e);
    assert_eq!(ask(0x15, 0), [1, 80, 25_000_000, 0]);
    assert_eq!(ask(0x16, 0), [2000, 2000, 100, 0]);
    assert_eq!(ask(6, 0), [4, 0, 0, 0]);
}

#[test]
fn topology_of_several_processors() {
    let model = CpuModel { cpus: 6, apic_id: VcpuId(5), ..CpuModel::gemello_v2() };
    let ask = |leaf, subleaf| cpuid(&model, &CpuState::reset(), leaf, subleaf);
    assert_eq!(ask(1, 0)[1], 0x0508_0800);
    assert_ne!(ask(1, 0)[3] & 1 << 28, 0);
    assert_eq!(ask(0xb, 0), [0, 1, 0x100, 5]);
    assert_eq!(ask(0xb, 1), [3, 6, 0x201, 5]);
    assert_eq!(ask(0xb, 2), [0, 0, 2, 5]);
    assert_eq!(ask(0x1f, 1), ask(0xb, 1));
    // L1 data: private, 8 core IDs, 48 KiB = 64 * 12 * 64.
    assert_eq!(ask(4, 0), [1 | 1 << 5 | 1 << 8 | 7 << 26, 63 | 11 << 22, 63, 0]);
    // L3: shared by 8 IDs.
    assert_eq!(ask(4, 3)[0], 3 | 3 << 5 | 1 << 8 | 7 << 14 | 7 << 26);
    assert_eq!(ask(4, 4), [0; 4]);
    assert_eq!(ask(0x8000_0006, 0)[2], 0x0400_8040);
}

/// What an operating system works out from each leaf: one package, one thread to a core.
#[test]
fn every_leaf_tells_of_the_same_processors() {
    for cpus in 1..=64 {
        for apic_id in 0..cpus {
            let model = CpuModel { cpus, apic_id: VcpuId(apic_id), ..CpuModel::gemello_v3() };
            let ask = |leaf, subleaf| cpuid(&model, &CpuState::reset(), leaf, subleaf);
            let [_, ebx, _, edx] = ask(1, 0);
            assert_eq!(ebx >> 24, apic_id);
            assert_eq!(edx & HTT != 0, cpus > 1, "{cpus}");
            // Without HTT, no count: software takes it for one.
            let addressable = (ebx >> 16 & 0xff).max(1);
            assert!(addressable >= cpus);
            for leaf in [0xb, 0x1f] {
                let [thread_shift, threads, level, id] = ask(leaf, 0);
                assert_eq!((thread_shift, threads, level, id), (0, 1, 1 << 8, apic_id));
                let [package_shift, cores, level, id] = ask(leaf, 1);
                assert_eq!((cores, level, id), (cpus, 2 << 8 | 1, apic_id));
                assert_eq!((1 << package_shift, id >> package_shift), (addressable, 0));
                assert_eq!(ask(leaf, 2), [0, 0, 2, apic_id]);
            }
            for subleaf in 0..4 {
                let [eax, ..] = ask(4, subleaf);
                assert_eq!((eax >> 26) + 1, addressable, "core ids of a package");
                let shared = if subleaf == 3 { addressable } else { 1 };
                assert_eq!((eax >> 14 & 0xfff) + 1, shared, "ids that share cache {subleaf}");
            }
            // Intel reserves ECX, and AMD's leaves of topology are beyond the last.
            assert_eq!(ask(0x8000_0008, 0)[2], 0);
            assert_eq!(ask(0x8000_001e, 0), ask(0x1f, 0));
        }
    }
}

#[test]
fn kvms_interface_can_be_hidden_and_one_of_its_features() {
    let ask = |text, leaf| cpuid(&CpuModel::parse(text).unwrap(), &CpuState::reset(), leaf, 0);
    // CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, ASYNC_PF, STEAL_TIME, PV_UNHALT, PV_TLB_FLUSH,
    // PV_SEND_IPI, PV_SCHED_YIELD, ASYNC_PF_INT, CLOCKSOURCE_STABLE_BIT.
    let usual = [0, 1, 3, 4, 5, 7, 9, 11, 13, 14, 24].iter().map(|bit| 1 << bit).sum::<u32>();
    assert_eq!(ask("gemello-v2", 0x4000_0001), [usual, 0, 0, 0]);
    assert_eq!(ask("gemello-v2,-kvmclock", 0x4000_0001)[0], usual & !(1 << 3 | 1 << 24));
    // PV_TLB_FLUSH and PV_SCHED_YIELD need STEAL_TIME.
    let less = ask("gemello-v2,-kvm_steal_time", 0x4000_0001)[0];
    assert_eq!(less, usual & !(1 << 5 | 1 << 9 | 1 << 13));
    let [max, b, c, d] = ask("gemello-v2,-kvm", 0x4000_0000);
    assert_eq!((max, string(&[b, c, d]).as_str()), (0x4000_0000, "gemellogemel"));
    // No features, whatever the next leaf is taken for.
    assert_eq!(ask("gemello-v2,-kvm", 0x4000_0001), [0; 4]);
    assert_eq!(ask("gemello-v2,-kvm", 0x4000_0100), [0; 4]);
    assert_ne!(ask("gemello-v2,-kvm", 1)[2] & 1 << 31, 0);
}

#[test]
fn beyond_the_highest_leaf() {
    assert_eq!(ask(0x20, 1), ask(0x1f, 1));
    assert_eq!(ask(0x8000_0009, 0), ask(0x1f, 0));
    assert_eq!(ask(u32::MAX, 0), ask(0x1f, 0));
    let bare = CpuModel::parse("gemello-v2,-hypervisor").unwrap();
    assert_eq!(cpuid(&bare, &CpuState::reset(), 0x4000_0000, 0), [0, 1, 0x100, 0]);
}
