//! Shifts and rotates by an immediate leave OF where the manual does not define it: as the host's
//! own instruction does, on both tiers.
#![allow(unsafe_code)] // runs the host's own shifts; see docs/UNSAFE.md

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::GuestRam;
use std::arch::asm;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::gpr;

const CODE: u64 = 0x1000;
const STACK: u64 = 0x8000;
const TABLES: u64 = 0x10_000;
const VALUES: [u64; 4] = [0x4000_0001_4000_4041, 0xc000_0001_c001_c0c1, 0x0f00_0010_0f00_f01f, 0];
const OF: u64 = 1 << 11;

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Each shift in each width: its text, the guest's code, and RFLAGS after the host's own with the
/// same operand and RFLAGS.
macro_rules! shifts {
    ($($insn:ident $register:ident $text:literal $count:literal,)*) => {
        const SHIFTS: &[(&str, Emit, fn(u64, u64) -> u64)] = &[$((
            concat!($text, ", ", $count),
            |a| a.$insn($register, $count),
            |value, flags| {
                let mut image = flags;
                // SAFETY: a balanced push and pop; registers otherwise.
                unsafe {
                    asm!("push {f}", "popfq", concat!($text, ", ", $count), "pushfq", "pop {f}",
                        f = inout(reg) image, inout("rax") value => _);
                }
                image
            },
        ),)*];
    };
}

shifts! {
    rol al "rol al" 3, ror al "ror al" 3, rcl al "rcl al" 3, rcr al "rcr al" 3,
    shl al "shl al" 3, shr al "shr al" 3, sar al "sar al" 3,
    rol ax "rol ax" 8, ror ax "ror ax" 8, rcl ax "rcl ax" 5, rcr ax "rcr ax" 5,
    shl ax "shl ax" 5, shr ax "shr ax" 5, sar ax "sar ax" 5,
    rol eax "rol eax" 7, ror eax "ror eax" 7, rcl eax "rcl eax" 7, rcr eax "rcr eax" 7,
    shl eax "shl eax" 7, shr eax "shr eax" 7, sar eax "sar eax" 7,
    rol rax "rol rax" 33, ror rax "ror rax" 33, rcl rax "rcl rax" 33, rcr rax "rcr rax" 33,
    shl rax "shl rax" 33, shr rax "shr rax" 33, sar rax "sar rax" 33,
}

/// RFLAGS after `code`, run on `tier` with `value` in RAX and `flags`.
fn run(tier: Tier, emit: Emit, value: u64, flags: u64) -> u64 {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("a megabyte");
    let mut a = CodeAssembler::new(64).expect("64-bit code");
    a.popfq().expect("POPFQ");
    emit(&mut a).expect("a shift");
    a.pushfq().expect("PUSHFQ");
    a.pop(rbx).expect("POP");
    a.hlt().expect("HLT");
    ram.write(Gpa(CODE), &a.assemble(CODE).expect("code")).expect("in RAM");
    ram.write(Gpa(STACK - 8), &flags.to_le_bytes()).expect("in RAM");
    for level in 0..2 {
        let entry = (TABLES + 0x1000 * (level + 1)) | 3;
        ram.write(Gpa(TABLES + 0x1000 * level), &entry.to_le_bytes()).expect("in RAM");
    }
    ram.write(Gpa(TABLES + 0x2000), &0x83u64.to_le_bytes()).expect("in RAM");
    let mut state = long_mode::at(CODE, TABLES);
    (state.gpr[gpr::RSP], state.gpr[gpr::RAX]) = (STACK - 8, value);
    let mut vcpu = SoftVcpu::with_tier(ram, CpuModel::gemello_v2(), tier, CODE_CACHE / 16)
        .expect("the engine runs here");
    if tier == Tier::Translate {
        vcpu.translate_at_once();
    }
    vcpu.set(Elements::all(), &state).expect("a state");
    let exit = vcpu.run(&mut NoDevices, Slice { instructions: 100 });
    assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
    vcpu.state_now().gpr[gpr::RBX]
}

#[test]
fn of_is_the_hosts_on_both_tiers() {
    for (name, emit, host) in SHIFTS {
        for value in VALUES {
            for flags in [2, 2 | OF] {
                let want = host(value, flags) & OF;
                for tier in [Tier::Interpret, Tier::Translate] {
                    let got = run(tier, *emit, value, flags) & OF;
                    assert_eq!(got, want, "{name} of {value:#x} with flags {flags:#x} on {tier:?}");
                }
            }
        }
    }
}
