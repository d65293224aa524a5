//! What CPUID shows is what the processor does: every bit that a model shows, in any leaf, has a
//! test of the behaviour that it promises.
//!
//! A bit without a row fails, and so does a row whose bit no model shows or whose test is not
//! there.
#![forbid(unsafe_code)]

use iced_x86::CpuidFeature as I;
use oracle::{Features, Generator, Options};
use std::collections::BTreeSet;
use std::path::Path;
use x86::addr::VcpuId;
use x86::cpuid::feature::Word;
use x86::cpuid::{self, CpuModel, Feature as F};
use x86::regs::{Cr0, Cr4, Efer};
use x86::state::{CpuState, Seg, Segment};

/// Where a promise is tested.
enum Proof {
    /// A case of the conformance suite.
    Case(&'static str),
    /// All encodings of the feature are held against the host by the oracle.
    Host(I),
    /// `path::function`.
    Test(&'static str),
}
use Proof::{Case, Host, Test};

/// Every feature.
const FEATURES: &[(F, &[Proof])] = &[
    (F::Fpu, &[Host(I::FPU), Case("privilege/x87-with-em")]),
    (
        F::Vme,
        &[
            Case("features/vme-lets-virtual-8086-code-clear-its-own-flag"),
            Case("features/pvi-lets-user-code-clear-its-own-flag"),
        ],
    ),
    (F::De, &[Case("debug/io-breakpoint"), Case("debug/dr4-is-undefined-with-de")]),
    (F::Pse, &[Case("paging/32-bit-4m-page")]),
    (F::Tsc, &[Case("features/rdtsc-counts"), Case("privilege/rdtsc-with-tsd")]),
    (F::Msr, &[Case("segments/fs-base-msr"), Case("privilege/unknown-msr-read")]),
    (F::Pae, &[Case("paging/pae-4k-page")]),
    (F::Mce, &[Case("features/mce-can-be-enabled")]),
    (F::Cx8, &[Host(I::CX8)]),
    (
        F::Apic,
        &[
            Test("crates/devices/src/irqchip/lapic/tests.rs::timer_interrupts_come_at_its_period"),
            Test("crates/engine-soft/tests/apic_base.rs::cpuid_shows_the_apic_while_it_is_enabled"),
        ],
    ),
    (F::Sep, &[Case("syscalls/sysenter-64"), Case("syscalls/sysexit-32")]),
    (
        F::Mtrr,
        &[
            Case("features/mtrr-pairs-are-as-many-as-mtrrcap-tells"),
            Case("features/mtrr-beyond-the-last-pair"),
        ],
    ),
    (F::Pge, &[Case("tlb/pge-change-drops-global-pages"), Case("tlb/cr3-load")]),
    (F::Mca, &[Case("features/mca-has-no-banks")]),
    (F::Cmov, &[Host(I::CMOV)]),
    (
        F::Pat,
        &[Case("features/pat-keeps-memory-types"), Case("privilege/reserved-memory-type-in-pat")],
    ),
    (F::Pse36, &[Case("features/pse-36-addresses-lie-beyond-4-gib")]),
    (F::Clflush, &[Host(I::CLFSH)]),
    (F::Mmx, &[Host(I::MMX)]),
    (F::Fxsr, &[Host(I::FXSR)]),
    (F::Sse, &[Host(I::SSE), Case("privilege/simd-exception")]),
    (F::Sse2, &[Host(I::SSE2)]),
    (F::Sse3, &[Host(I::SSE3)]),
    (F::Pclmulqdq, &[Host(I::PCLMULQDQ)]),
    (F::Ssse3, &[Host(I::SSSE3)]),
    (F::Fma, &[Host(I::FMA)]),
    (F::Cx16, &[Host(I::CMPXCHG16B)]),
    (F::Pcid, &[Case("tlb/each-pcid-has-its-own-translations")]),
    (F::Sse41, &[Host(I::SSE4_1)]),
    (F::Sse42, &[Host(I::SSE4_2)]),
    (F::X2apic, &[Test("crates/devices/src/irqchip/lapic/tests.rs::x2apic_registers_and_faults")]),
    (F::Movbe, &[Host(I::MOVBE)]),
    (F::Popcnt, &[Host(I::POPCNT)]),
    (
        F::TscDeadline,
        &[Test("crates/devices/src/irqchip/lapic/tests.rs::one_shot_masks_and_tsc_deadline")],
    ),
    (F::Aes, &[Host(I::AES)]),
    (F::Xsave, &[Host(I::XSAVE), Case("privilege/xsetbv")]),
    (F::Avx, &[Host(I::AVX)]),
    (F::F16c, &[Host(I::F16C)]),
    (F::Rdrand, &[Case("features/rdrand-gives-numbers")]),
    (F::Hypervisor, &[Case("features/hypervisor-leaf-names-one")]),
    (
        F::Arat,
        &[Test(
            "crates/machine/tests/run_loop.rs::a_timer_wakes_a_halted_processor_with_its_vector",
        )],
    ),
    (F::Fsgsbase, &[Host(I::FSGSBASE), Case("privilege/rdfsbase-disabled")]),
    (F::TscAdjust, &[Case("features/tsc-adjust-moves-the-tsc")]),
    (F::Bmi1, &[Host(I::BMI1)]),
    (F::Avx2, &[Host(I::AVX2)]),
    (F::Smep, &[Case("paging/smep")]),
    (F::Bmi2, &[Host(I::BMI2)]),
    // That strings are fast is no behaviour; that they are right where they are made fast is.
    (F::Erms, &[Case("features/erms-and-fsrm-move-across-pages")]),
    (F::Invpcid, &[Case("tlb/invpcid-address"), Case("tlb/invpcid-all-with-globals")]),
    (F::Rdseed, &[Case("features/rdseed-gives-numbers")]),
    (F::Adx, &[Host(I::ADX)]),
    (F::Smap, &[Case("paging/smap-forbids-user-data"), Case("paging/smap-is-lifted-by-ac")]),
    (F::Clflushopt, &[Host(I::CLFLUSHOPT)]),
    (F::Clwb, &[Host(I::CLWB)]),
    (F::Sha, &[Host(I::SHA)]),
    (F::Umip, &[Case("privilege/umip-sgdt"), Case("privilege/umip-smsw")]),
    (
        F::Pku,
        &[Case("paging/protection-key-access-disable"), Case("caches/wrpkru-takes-effect-at-once")],
    ),
    (F::Rdpid, &[Case("features/rdtscp-and-rdpid-read-tsc-aux")]),
    (F::Fsrm, &[Case("features/erms-and-fsrm-move-across-pages")]),
    (F::SpecCtrl, &[Case("features/spec-ctrl-has-ibrs"), Case("features/pred-cmd-takes-ibpb")]),
    (F::Stibp, &[Case("features/spec-ctrl-has-stibp")]),
    (F::FlushL1d, &[Case("features/flush-cmd-takes-l1d-flush")]),
    (F::ArchCapabilities, &[Case("features/arch-capabilities-tell-what-need-not-be-mitigated")]),
    (F::Ssbd, &[Case("features/spec-ctrl-has-ssbd")]),
    (F::BhiCtrl, &[Case("features/spec-ctrl-has-bhi-dis-s")]),
    (F::Xsaveopt, &[Case("features/xsaveopt-leaves-what-is-initial")]),
    (F::Xsavec, &[Case("features/xsavec-compacts")]),
    (F::Xgetbv1, &[Case("features/xgetbv-1-tells-what-is-in-use")]),
    (
        F::Xsaves,
        &[
            Case("features/xsaves-and-xrstors-come-back"),
            Case("features/xsaves-is-the-supervisors"),
        ],
    ),
    (F::LahfLm, &[Host(I::X64), Test("xtask/tests/cpuid.rs::lahf_and_sahf_are_in_64_bit_code")]),
    (F::Abm, &[Host(I::LZCNT)]),
    (F::Prefetchw, &[Host(I::PREFETCHW), Case("paging/prefetch-never-faults")]),
    (F::Syscall, &[Case("syscalls/syscall"), Case("syscalls/sysret-64")]),
    (F::Nx, &[Case("paging/no-execute"), Case("features/nx-and-efer-nxe")]),
    (F::Pdpe1gb, &[Case("features/1-gib-pages")]),
    (F::Rdtscp, &[Case("features/rdtscp-and-rdpid-read-tsc-aux")]),
    (F::Lm, &[Case("modes/protected-to-long"), Case("modes/long-to-compatibility-and-back")]),
    (F::ConstantTsc, &[Test("crates/machine/src/clock.rs::deadlines_convert_and_round_up")]),
    (
        F::Kvm,
        &[
            Case("features/hypervisor-leaf-names-one"),
            Case("hypercalls/vmcall-passes-five-registers"),
            Case("hypercalls/vmmcall-is-the-same"),
            Test(
                "crates/engine-soft/src/decode/features.rs::\
                 hypercalls_are_there_with_kvms_interface_and_nothing_else_of_vmx",
            ),
        ],
    ),
    (F::KvmClockOld, &[Test(KVM_RECORD), Test(KVM_ABSENT)]),
    // It promises that chips need no delay by port 80H between accesses: that test leaves none.
    (
        F::KvmNopIoDelay,
        &[Test("crates/machine/tests/saved.rs::a_restored_machine_is_the_saved_one")],
    ),
    (
        F::KvmClock,
        &[
            Test(KVM_RECORD),
            Test(KVM_ABSENT),
            Test("crates/devices/src/paravirt/tests/mod.rs::the_clock_is_true_and_never_fast"),
        ],
    ),
    (
        F::KvmAsyncPf,
        &[
            Test(
                "crates/machine/tests/paging.rs::\
                 a_guest_is_told_of_an_absent_page_and_when_it_has_come",
            ),
            Test(
                "crates/machine/tests/paging.rs::\
                 machines_without_a_pager_or_kvms_interface_do_not_offer_it",
            ),
            Test(
                "crates/devices/src/paravirt/tests/async_pf.rs::\
                 a_guest_is_told_only_where_it_can_switch_to_other_work",
            ),
        ],
    ),
    (
        F::KvmAsyncPfInt,
        &[
            Test(
                "crates/devices/src/paravirt/tests/async_pf.rs::\
                 pages_that_are_ready_are_told_one_after_the_other",
            ),
            Test(
                "crates/devices/src/paravirt/tests/async_pf.rs::\
                 registers_take_what_the_features_allow",
            ),
        ],
    ),
    (
        F::KvmStealTime,
        &[
            Test(
                "crates/devices/src/paravirt/tests/processors.rs::\
                 steal_time_adds_up_and_the_byte_tells_where_the_processor_is",
            ),
            Test(KVM_CALLS),
        ],
    ),
    (
        F::KvmPvUnhalt,
        &[
            Test(
                "crates/machine/tests/paravirt.rs::\
                 a_kick_by_hypercall_ends_the_next_halt_and_one_only",
            ),
            Test("crates/machine/tests/paravirt.rs::a_kick_wakes_a_processor_that_sleeps"),
            Test(KVM_CALLS),
        ],
    ),
    (
        F::KvmPvTlbFlush,
        &[
            Test(
                "crates/machine/tests/paravirt.rs::\
                 a_processor_that_was_away_flushes_its_tlb_before_it_runs_if_asked",
            ),
            Test(
                "crates/devices/src/paravirt/tests/processors.rs::\
                 a_flush_is_heard_or_the_processor_found_running",
            ),
            Test("crates/engine-soft/tests/translations.rs::control_registers_drop_translations"),
        ],
    ),
    (
        F::KvmPvIpi,
        &[
            Test("crates/devices/src/paravirt/tests/processors.rs::one_call_interrupts_many"),
            Test(KVM_CALLS),
        ],
    ),
    (
        F::KvmPvSchedYield,
        &[Test(
            "crates/devices/src/paravirt/tests/processors.rs::\
             a_yield_goes_to_a_processor_that_waits_to_run",
        )],
    ),
    (
        F::KvmClockStable,
        &[Test("crates/devices/src/paravirt/tests/mod.rs::all_processors_have_the_same_time")],
    ),
];

const KVM_RECORD: &str = "crates/devices/src/paravirt/tests/mod.rs::\
                          a_record_is_written_when_it_is_asked_for_and_has_an_even_version";
const KVM_ABSENT: &str =
    "crates/devices/src/paravirt/tests/mod.rs::what_the_model_has_not_is_not_there";

const KVM_CALLS: &str = "crates/devices/src/paravirt/tests/processors.rs::\
                         registers_and_calls_are_those_of_the_features";

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;
/// Every subleaf.
const ANY: u32 = u32::MAX;
const ALL: u32 = u32::MAX;
const NAMES: Proof = Test("crates/x86/src/cpuid/tests.rs::names");
const TOPOLOGY: Proof = Test("crates/x86/src/cpuid/tests.rs::topology_of_several_processors");
const FOLLOWS: Proof = Test("crates/x86/src/cpuid/tests.rs::what_follows_the_state");
const SIZES: Proof = Test("crates/x86/src/cpuid/tests.rs::addresses_and_tsc");

/// What is shown beside features: leaf, subleaf, register, bits.
const FIELDS: &[(u32, u32, usize, u32, Proof)] = &[
    (0, ANY, EAX, ALL, NAMES),
    (0, ANY, EBX, ALL, NAMES),
    (0, ANY, ECX, ALL, NAMES),
    (0, ANY, EDX, ALL, NAMES),
    // Family, model, stepping.
    (1, ANY, EAX, ALL, Test("crates/x86/src/cpuid/tests.rs::signature_and_features_of_leaf_1")),
    // CLFLUSH's line; how many IDs; the initial APIC ID.
    (1, ANY, EBX, 0xff << 8, Host(I::CLFSH)),
    (1, ANY, EBX, 0xffff << 16, TOPOLOGY),
    (1, ANY, EDX, 1 << 28, TOPOLOGY),
    (1, ANY, ECX, 1 << 27, Case("features/osxsave-shows-cr4")),
    // "See leaf 4", 64 bytes prefetched.
    (2, ANY, EAX, ALL, Test("crates/x86/src/cpuid/tests.rs::caches_are_told_by_leaf_4")),
    (4, ANY, EAX, ALL, TOPOLOGY),
    (4, ANY, EBX, ALL, TOPOLOGY),
    (4, ANY, ECX, ALL, TOPOLOGY),
    (7, 0, EAX, ALL, Test("crates/x86/src/cpuid/tests.rs::leaf_7")),
    (
        7,
        0,
        EBX,
        1 << 6,
        Case("features/x87-data-pointer-tells-of-no-instruction-without-exception"),
    ),
    (7, 0, EBX, 1 << 6, Case("features/x87-data-pointer-tells-of-an-unmasked-exception")),
    (7, 0, EBX, 1 << 13, Case("features/x87-selectors-read-as-zero")),
    (7, 0, ECX, 1 << 4, FOLLOWS),
    (0xb, ANY, EAX, ALL, TOPOLOGY),
    (0xb, ANY, EBX, ALL, TOPOLOGY),
    (0xb, ANY, ECX, ALL, TOPOLOGY),
    (0xb, ANY, EDX, ALL, TOPOLOGY),
    (0x1f, ANY, EAX, ALL, TOPOLOGY),
    (0x1f, ANY, EBX, ALL, TOPOLOGY),
    (0x1f, ANY, ECX, ALL, TOPOLOGY),
    (0x1f, ANY, EDX, ALL, TOPOLOGY),
    // XCR0's bits, and sizes.
    (0xd, 0, EAX, 7, Case("privilege/xsetbv")),
    (0xd, 0, EAX, 1 << 9, Case("paging/protection-key-access-disable")),
    (0xd, 0, EBX, ALL, FOLLOWS),
    (0xd, 0, ECX, ALL, FOLLOWS),
    (0xd, 1, EBX, ALL, FOLLOWS),
    (0xd, 2, EAX, ALL, Host(I::XSAVE)),
    (0xd, 2, EBX, ALL, Host(I::XSAVE)),
    (0xd, 9, EAX, ALL, FOLLOWS),
    (0xd, 9, EBX, ALL, FOLLOWS),
    (0x15, ANY, EAX, ALL, SIZES),
    (0x15, ANY, EBX, ALL, SIZES),
    (0x15, ANY, ECX, ALL, SIZES),
    (0x16, ANY, EAX, ALL, SIZES),
    (0x16, ANY, EBX, ALL, SIZES),
    (0x16, ANY, ECX, ALL, SIZES),
    // Bit 0 is a feature's: with KVM's interface there is one leaf more.
    (0x4000_0000, ANY, EAX, ALL & !1, Case("features/hypervisor-leaf-names-one")),
    (0x4000_0000, ANY, EBX, ALL, NAMES),
    (0x4000_0000, ANY, ECX, ALL, NAMES),
    (0x4000_0000, ANY, EDX, ALL, NAMES),
    (0x4000_0100, ANY, EAX, ALL, NAMES),
    (0x4000_0100, ANY, EBX, ALL, NAMES),
    (0x4000_0100, ANY, ECX, ALL, NAMES),
    (0x4000_0100, ANY, EDX, ALL, NAMES),
    (0x8000_0000, ANY, EAX, ALL, SIZES),
    (0x8000_0002, ANY, EAX, ALL, NAMES),
    (0x8000_0002, ANY, EBX, ALL, NAMES),
    (0x8000_0002, ANY, ECX, ALL, NAMES),
    (0x8000_0002, ANY, EDX, ALL, NAMES),
    (0x8000_0003, ANY, EAX, ALL, NAMES),
    (0x8000_0003, ANY, EBX, ALL, NAMES),
    (0x8000_0003, ANY, ECX, ALL, NAMES),
    (0x8000_0006, ANY, ECX, ALL, TOPOLOGY),
    // Widths of addresses.
    (0x8000_0008, ANY, EAX, 0xff, Case("paging/reserved-address-bit")),
    (0x8000_0008, ANY, EAX, 0xff00, Case("paging/non-canonical-data-is-gp")),
];

/// Leaf, subleaf and register of a feature's word.
fn place(word: Word) -> (u32, u32, usize) {
    match word {
        Word::L1Ecx => (1, ANY, ECX),
        Word::L1Edx => (1, ANY, EDX),
        Word::L6Eax => (6, ANY, EAX),
        Word::L7Ebx => (7, 0, EBX),
        Word::L7Ecx => (7, 0, ECX),
        Word::L7Edx => (7, 0, EDX),
        Word::L72Edx => (7, 2, EDX),
        Word::Ld1Eax => (0xd, 1, EAX),
        Word::H0Eax => (0x4000_0000, ANY, EAX),
        Word::H1Eax => (0x4000_0001, ANY, EAX),
        Word::X1Ecx => (0x8000_0001, ANY, ECX),
        Word::X1Edx => (0x8000_0001, ANY, EDX),
        Word::X7Edx => (0x8000_0007, ANY, EDX),
    }
}

/// All rows as leaf, subleaf, register, bits.
fn rows() -> Vec<(u32, u32, usize, u32)> {
    let features = FEATURES.iter().map(|(feature, _)| {
        let (word, bit) = feature.place();
        let (leaf, subleaf, register) = place(word);
        (leaf, subleaf, register, 1 << bit)
    });
    features.chain(FIELDS.iter().map(|f| (f.0, f.1, f.2, f.3))).collect()
}

/// Models and states in which something shows.
fn processors() -> Vec<(CpuModel, CpuState)> {
    let mut long = CpuState::reset();
    long.paging.cr0 |= Cr0::PE;
    long.paging.efer |= Efer::LMA;
    long.paging.cr4 = Cr4::OSXSAVE | Cr4::PKE;
    long.seg[Seg::Cs as usize].access |= Segment::L;
    long.xcr0 = 0x207;
    let models = ["gemello-v2", "gemello-v3", "gemello-v3,+smap,+pku"];
    let mut all = Vec::new();
    for name in models {
        let one = CpuModel::parse(name).expect("a known model");
        let many = CpuModel { cpus: 255, apic_id: VcpuId(254), ..one.clone() };
        for model in [one, many] {
            all.extend([CpuState::reset(), long.clone()].map(|state| (model.clone(), state)));
        }
    }
    all
}

/// Every bit that some processor shows: leaf, subleaf, register, bit.
fn shown() -> BTreeSet<(u32, u32, usize, u32)> {
    let basic = 0..=cpuid::MAX_BASIC;
    let hypervisor = (0x4000_0000..=0x4000_0010).chain(0x4000_0100..=0x4000_0110);
    let leaves: Vec<u32> =
        basic.chain(hypervisor).chain(0x8000_0000..=cpuid::MAX_EXTENDED).collect();
    let mut bits = BTreeSet::new();
    for (model, state) in processors() {
        for &leaf in &leaves {
            let subleaves = if matches!(leaf, 4 | 7 | 0xb | 0xd | 0x1f) { 64 } else { 1 };
            for subleaf in 0..subleaves {
                let registers = cpuid::cpuid(&model, &state, leaf, subleaf);
                for (register, value) in registers.into_iter().enumerate() {
                    let set = (0..32).filter(|bit| value >> bit & 1 != 0);
                    bits.extend(set.map(|bit| (leaf, subleaf, register, bit)));
                }
            }
        }
    }
    bits
}

fn covers(row: &(u32, u32, usize, u32), bit: &(u32, u32, usize, u32)) -> bool {
    row.0 == bit.0 && (row.1 == ANY || row.1 == bit.1) && row.2 == bit.2 && row.3 >> bit.3 & 1 != 0
}

#[test]
fn every_bit_shown_has_a_row() {
    let rows = rows();
    let bare: Vec<_> = shown().into_iter().filter(|b| !rows.iter().any(|r| covers(r, b))).collect();
    assert!(bare.is_empty(), "leaf, subleaf, register, bit without proof: {bare:x?}");
}

#[test]
fn every_row_has_a_bit_that_is_shown() {
    let shown = shown();
    let stale: Vec<_> =
        rows().into_iter().filter(|r| !shown.iter().any(|b| covers(r, b))).collect();
    assert!(stale.is_empty(), "rows that no model shows: {stale:x?}");
    let missing: Vec<_> =
        F::ALL.iter().filter(|f| !FEATURES.iter().any(|(other, _)| other == *f)).collect();
    assert!(missing.is_empty(), "features without a row: {missing:?}");
}

/// What is wrong with a proof, if anything is.
fn broken(proof: &Proof, encodings: &Generator) -> Option<String> {
    match proof {
        Case(name) => (!conformance::cases().iter().any(|c| c.name == *name))
            .then(|| format!("no conformance case {name}")),
        Host(feature) => {
            let named = |code: iced_x86::Code| code.cpuid_features().contains(feature);
            (!encodings.coverage().any(|(_, code, _)| named(code)))
                .then(|| format!("the oracle has no encoding of {feature:?}"))
        }
        Test(reference) => {
            let (path, function) = reference.split_once("::")?;
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            (!text.contains(&format!("fn {function}("))).then(|| format!("no {reference}"))
        }
    }
}

fn encodings() -> Generator {
    Generator::new(1, Options { features: Features::v3(), ..Options::default() })
}

#[test]
fn every_proof_is_there() {
    let encodings = encodings();
    let of_features = FEATURES.iter().flat_map(|(_, proofs)| proofs.iter());
    let all = of_features.chain(FIELDS.iter().map(|field| &field.4));
    let wrong: Vec<_> = all.filter_map(|proof| broken(proof, &encodings)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(FEATURES.iter().all(|(_, proofs)| !proofs.is_empty()));
}

#[test]
fn lahf_and_sahf_are_in_64_bit_code() {
    use iced_x86::Code::{Lahf, Sahf};
    let encodings = encodings();
    for wanted in [Lahf, Sahf] {
        assert!(encodings.coverage().any(|(bits, code, _)| bits == 64 && code == wanted));
    }
}
