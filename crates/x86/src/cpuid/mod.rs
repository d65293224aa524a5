//! CPUID: named processor models and the leaves they show (SDM vol. 2A, CPUID).
//!
//! [`CpuModel`] says what the processor is, [`cpuid`] what a guest reads of it. Some outputs follow
//! the state: OSXSAVE and OSPKE mirror CR4, leaf DH's sizes follow XCR0 and IA32_XSS, the SYSCALL
//! bit shows in 64-bit mode only, and IA32_MISC_ENABLE limits the leaves and hides NX. Every
//! processor is a core of its own in one package.

mod cache;
pub mod feature;
pub mod model;

pub use feature::{Feature, FeatureSet};
pub use model::{CpuModel, ModelError, PHYSICAL_BITS};

use crate::msr::{LIMIT_CPUID_MAXVAL, XD_DISABLE};
use crate::regs::Cr4;
use crate::state::{CpuState, Mode};
use crate::xsave::layout;
use feature::Word;

/// Family 6, model 6AH, stepping 6: a recent server core whose documented features are a superset
/// of ours.
const SIGNATURE: u32 = 0x0006_06a6;
/// Highest basic leaf.
pub const MAX_BASIC: u32 = 0x1f;
/// Highest extended leaf.
pub const MAX_EXTENDED: u32 = 0x8000_0008;
/// The leaf that names the hypervisor.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// The leaf that names it where KVM's interface has the first (guests look at every 100H).
const SECOND_HYPERVISOR_LEAF: u32 = 0x4000_0100;

/// EBX, EDX, ECX of leaf 0 in this order.
const VENDOR: &[u8; 12] = b"GenuineIntel";
/// EBX, ECX, EDX of the hypervisor leaf.
const HYPERVISOR: &[u8; 12] = b"gemellogemel";
/// As [`HYPERVISOR`], for KVM's interface.
const KVM: &[u8; 12] = b"KVMKVMKVM\0\0\0";

const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;
const HTT: u32 = 1 << 28;
/// Leaf 7, EBX 6 and 13: FDP only tracks faulting instructions, FCS and FDS read as zero.
const FPU_POINTERS_DEPRECATED: u32 = 1 << 6 | 1 << 13;
/// CLFLUSH line of 64 bytes, in units of 8, as leaf 1 EBX wants it.
const CLFLUSH_LINE: u32 = 8 << 8;

/// EAX, EBX, ECX, EDX of leaf `leaf` (EAX), subleaf `subleaf` (ECX), on the processor `model` in
/// `state`.
///
/// A leaf beyond the highest reads as the highest basic leaf, as the manual has it.
pub fn cpuid(model: &CpuModel, state: &CpuState, leaf: u32, subleaf: u32) -> [u32; 4] {
    let word = |w| model.features.word(w);
    match leaf {
        0 => identity(state),
        1 => version(model, state),
        // FFH: caches are told by leaf 4; F0H: 64-byte prefetch.
        2 => [0x00f0_ff01, 0, 0, 0],
        4 => cache::leaf4(model, subleaf),
        6 => [word(Word::L6Eax), 0, 0, 0],
        7 => structured(model, state, subleaf),
        0xb | 0x1f => topology(model, subleaf),
        0xd => extended_state(model, state, subleaf),
        0x15 => {
            let (denominator, numerator) = model.tsc_ratio();
            [denominator, numerator, model.crystal_hz, 0]
        }
        0x16 => {
            let mhz = (model.tsc_hz / 1_000_000) as u32;
            [mhz, mhz, (model::BUS_HZ / 1_000_000) as u32, 0]
        }
        3..=0x1e => [0; 4],
        HYPERVISOR_LEAF..=0x4fff_ffff if model.has(Feature::Hypervisor) => hypervisor(model, leaf),
        0x8000_0000..=MAX_EXTENDED => extended(model, state, leaf),
        _ => cpuid(model, state, MAX_BASIC, subleaf),
    }
}

/// Who runs the guest: KVM's interface if the model has it, and gemello itself.
fn hypervisor(model: &CpuModel, leaf: u32) -> [u32; 4] {
    let named = |highest, name| [highest, text(name, 0), text(name, 4), text(name, 8)];
    let kvm = model.has(Feature::Kvm);
    match leaf {
        HYPERVISOR_LEAF if kvm => named(HYPERVISOR_LEAF | model.features.word(Word::H0Eax), KVM),
        0x4000_0001 => [model.features.word(Word::H1Eax), 0, 0, 0],
        SECOND_HYPERVISOR_LEAF if kvm => named(leaf, HYPERVISOR),
        HYPERVISOR_LEAF => named(leaf, HYPERVISOR),
        _ => [0; 4],
    }
}

/// Four bytes of `text` at `at` as a register holds them.
fn text(text: &[u8], at: usize) -> u32 {
    let byte = |i| u32::from(text.get(at + i).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

fn identity(state: &CpuState) -> [u32; 4] {
    let limited = state.msr.misc_enable & LIMIT_CPUID_MAXVAL != 0;
    let max = if limited { 3 } else { MAX_BASIC };
    [max, text(VENDOR, 0), text(VENDOR, 8), text(VENDOR, 4)]
}

fn version(model: &CpuModel, state: &CpuState) -> [u32; 4] {
    let mut ebx = CLFLUSH_LINE | (model.apic_id.0 & 0xff) << 24;
    let mut edx = model.features.word(Word::L1Edx);
    if model.cpus > 1 {
        ebx |= (model.cpus.next_power_of_two() & 0xff) << 16;
        edx |= HTT;
    }
    let mut ecx = model.features.word(Word::L1Ecx);
    if state.paging.cr4.contains(Cr4::OSXSAVE) {
        ecx |= OSXSAVE;
    }
    [SIGNATURE, ebx, ecx, edx]
}

/// Leaf 7; EAX of subleaf 0 is the highest subleaf.
fn structured(model: &CpuModel, state: &CpuState, subleaf: u32) -> [u32; 4] {
    let word = |w| model.features.word(w);
    let controls = word(Word::L72Edx);
    match subleaf {
        0 => {}
        2 => return [0, 0, 0, controls],
        _ => return [0; 4],
    }
    let highest = if controls == 0 { 0 } else { 2 };
    let mut ecx = word(Word::L7Ecx);
    if state.paging.cr4.contains(Cr4::PKE) {
        ecx |= OSPKE;
    }
    [highest, word(Word::L7Ebx) | FPU_POINTERS_DEPRECATED, ecx, word(Word::L7Edx)]
}

/// Leaves BH and 1FH: no threads (level type 1), every processor a core (type 2).
fn topology(model: &CpuModel, subleaf: u32) -> [u32; 4] {
    let core_bits = model.cpus.max(1).next_power_of_two().trailing_zeros();
    match subleaf {
        0 => [0, 1, 1 << 8, model.apic_id.0],
        1 => [core_bits, model.cpus & 0xffff, 2 << 8 | 1, model.apic_id.0],
        n => [0, 0, n & 0xff, model.apic_id.0],
    }
}

fn extended_state(model: &CpuModel, state: &CpuState, subleaf: u32) -> [u32; 4] {
    if !model.has(Feature::Xsave) {
        return [0; 4];
    }
    let xcr0 = layout::supported_xcr0(model);
    let xss = layout::supported_xss(model);
    match subleaf {
        0 => [xcr0 as u32, layout::standard_size(state.xcr0), layout::standard_size(xcr0), 0],
        1 => {
            let features = model.features.word(Word::Ld1Eax);
            let in_use = state.xcr0 | state.msr.xss;
            let compacted = model.has(Feature::Xsavec) || model.has(Feature::Xsaves);
            let size = if compacted { layout::compacted_size(in_use) } else { 0 };
            [features, size, xss as u32, 0]
        }
        n if n < 63 && (xcr0 >> n) & 1 != 0 => {
            layout::component(n).map_or([0; 4], |c| [c.size, c.offset, 0, 0])
        }
        _ => [0; 4],
    }
}

fn extended(model: &CpuModel, state: &CpuState, leaf: u32) -> [u32; 4] {
    match leaf {
        0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
        0x8000_0001 => {
            let mut features = model.features;
            if state.mode() != Mode::Long64 {
                features = features.without(Feature::Syscall);
            }
            if state.msr.misc_enable & XD_DISABLE != 0 {
                features = features.without(Feature::Nx);
            }
            [0, 0, features.word(Word::X1Ecx), features.word(Word::X1Edx)]
        }
        0x8000_0002..=0x8000_0004 => brand(model, (leaf - 0x8000_0002) as usize * 16),
        0x8000_0006 => cache::leaf8000_0006(),
        0x8000_0007 => [0, 0, 0, model.features.word(Word::X7Edx)],
        0x8000_0008 => [model::LINEAR_BITS << 8 | PHYSICAL_BITS, 0, 0, 0],
        _ => [0; 4],
    }
}

/// 16 bytes of the brand string from `at`.
fn brand(model: &CpuModel, at: usize) -> [u32; 4] {
    let mut string = [0u8; 48];
    let words = [model.name, " virtual processor"].into_iter().flat_map(str::bytes);
    for (place, byte) in string[..47].iter_mut().zip(words) {
        *place = byte;
    }
    [0, 4, 8, 12].map(|i| text(&string, at + i))
}

#[cfg(test)]
mod tests;
