//! Programs read the time-stamp counter in translated code, as kernels do, unless CR4.TSD denies
//! it: a C library's clock is that.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::Cr4;
use x86::state::{CpuState, Seg, gpr};

const CODE: u64 = 0x1_0000;
const TABLES: u64 = 0x1000;
const TIMES: u32 = 1000;
const AUX: u64 = 0x5a5a_1234;

/// Reads the counter `TIMES` times into RDX:RAX, by `read`, with CF set, and compares with the time
/// before. RBX is how often it went back, R9 the sum of ECX, R10 how often CF was still set.
fn program(read: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    long_mode::assemble(CODE, |a| {
        let (mut again, mut later) = (a.create_label(), a.create_label());
        a.mov(r11d, TIMES)?;
        a.set_label(&mut again)?;
        a.mov(rcx, -1i64)?;
        a.stc()?;
        read(a)?;
        a.adc(r10, 0)?;
        a.add(r9, rcx)?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.cmp(rax, r8)?;
        a.jae(later)?;
        a.inc(rbx)?;
        a.set_label(&mut later)?;
        a.mov(r8, rax)?;
        a.dec(r11d)?;
        a.jnz(again)?;
        // User code may not, and there is no handler: the processor shuts down.
        a.hlt()
    })
}

/// At `level`, which the selectors and the pages allow.
fn state(level: u8) -> CpuState {
    let mut state = long_mode::at(CODE, TABLES);
    state.cpl = level;
    state.msr.tsc_aux = AUX;
    for seg in [Seg::Cs, Seg::Ss] {
        let seg = &mut state.seg[seg as usize];
        seg.selector |= u16::from(level);
        seg.access |= u16::from(level) << 5;
    }
    state
}

fn vcpu(code: &[u8], tier: Tier) -> SoftVcpu {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    put(TABLES, (TABLES + 0x1000) | 7);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    put(TABLES + 0x2000, 0x87);
    ram.write(Gpa(CODE), code).expect("in RAM");
    let model = CpuModel::gemello_v2();
    let mut vcpu = SoftVcpu::with_tier(ram, model, tier, CODE_CACHE / 16).expect("an engine");
    if tier == Tier::Translate {
        vcpu.translate_at_once();
    }
    vcpu
}

/// The state after a run from the program's beginning.
fn run(vcpu: &mut SoftVcpu, state: &CpuState) -> CpuState {
    vcpu.set(Elements::all(), state).expect("a state");
    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
    assert!(matches!(exit, Exit::Halted(_) | Exit::Shutdown), "{exit:?}");
    vcpu.state_now().clone()
}

#[test]
fn the_counter_is_read_in_place() {
    for (serialized, level) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
        let code = program(|a| if serialized { a.rdtscp() } else { a.rdtsc() });
        for tier in [Tier::Interpret, Tier::Translate] {
            let mut vcpu = vcpu(&code, tier);
            let ended = run(&mut vcpu, &state(level));
            let what = format!("serialized {serialized}, level {level}, {tier:?}");
            assert_eq!(ended.gpr[gpr::RBX], 0, "time went back: {what}");
            let aux = if serialized { AUX } else { u64::MAX };
            assert_eq!(ended.gpr[9], aux.wrapping_mul(u64::from(TIMES)), "{what}");
            assert_eq!(ended.gpr[10], u64::from(TIMES), "flags: {what}");
            let exits = vcpu.statistics().translated_exits;
            assert!(
                exits < u64::from(TIMES) / 10,
                "translated code was left {exits} times: {what}"
            );
        }
    }
}

#[test]
fn a_kernel_can_deny_it_to_programs() {
    for (serialized, level) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
        let code = program(|a| if serialized { a.rdtscp() } else { a.rdtsc() });
        for tier in [Tier::Interpret, Tier::Translate] {
            let mut vcpu = vcpu(&code, tier);
            let mut state = state(level);
            let allowed = run(&mut vcpu, &state);
            assert_eq!(allowed.gpr[10], u64::from(TIMES));
            // The code is there already when it is denied.
            state.paging.cr4 |= Cr4::TSD;
            let denied = run(&mut vcpu, &state);
            let times = if level == 0 { u64::from(TIMES) } else { 0 };
            assert_eq!(denied.gpr[10], times, "serialized {serialized}, level {level}, {tier:?}");
        }
    }
}
