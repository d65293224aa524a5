//! Translated code that asks for nothing stops when it is told to, whatever it is at.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use memory::GuestRam;
use std::sync::mpsc;
use std::time::Duration;
use vcpu::{Elements, Exit, NoDevices, Signal, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::{Flags, gpr};

const TABLES: u64 = 0x1000;
const CODE: u64 = 0x8000;
const STACK: u64 = 0x7000;
/// Pages here and 8 MiB on have the same place in the TLB.
const DATA: u32 = 0x40_0000;
/// Times that each guest is stopped.
const STOPS: usize = 1000;
/// A processor that has not stopped by then never will.
const SOON: Duration = Duration::from_secs(20);

/// 64-bit mode at level 0, the first gigabyte mapped where it is.
fn machine(code: &[u8]) -> SoftVcpu {
    let ram = GuestRam::new(&[(Gpa(0), 32 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    put(TABLES, (TABLES + 0x1000) | 3);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    for n in 0..512 {
        put(TABLES + 0x2000 + 8 * n, n << 21 | 0x83);
    }
    ram.write(Gpa(CODE), code).expect("in RAM");
    let mut state = long_mode::at(CODE, TABLES);
    state.gpr[gpr::RSP] = STACK;
    let model = CpuModel::gemello_v2();
    let mut vcpu =
        SoftVcpu::with_tier(ram, model, Tier::Translate, CODE_CACHE / 16).expect("an engine");
    vcpu.set(Elements::all(), &state).expect("a state");
    vcpu
}

/// Runs `code`, which never ends, and stops it again and again.
fn stops(code: &[u8]) {
    let mut vcpu = machine(code);
    let signals = vcpu.signals();
    let (stopped, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for _ in 0..STOPS {
            let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
            assert!(matches!(exit, Exit::Kicked(_)));
            stopped.send(vcpu.statistics().translated_exits).expect("somebody waits");
        }
    });
    let mut exits = 0;
    for n in 0..STOPS {
        std::thread::sleep(Duration::from_micros(n as u64 % 40 * 5));
        signals.raise(Signal::Kick);
        exits = told.recv_timeout(SOON).expect("translated code stops when it is told to");
    }
    thread.join().expect("it was stopped each time");
    assert!(exits > STOPS as u64 / 4, "most of that was meant to be in translated code");
}

/// RF, as a handler's IRET leaves it, lasts as long as the instruction does.
#[test]
fn a_repeated_instruction_that_a_fault_interrupted_goes_on_by_pages() {
    // rep stosb; hlt
    let mut vcpu = machine(&[0xf3, 0xaa, 0xf4]);
    let mut state = vcpu.state_now().clone();
    state.flags = Flags::from_bits(1 << 16 | 2);
    (state.gpr[gpr::RCX], state.gpr[gpr::RDI]) = (0x10_0000, DATA.into());
    vcpu.set(Elements::all(), &state).expect("a state");
    assert!(matches!(vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED), Exit::Halted(_)));
    assert_eq!(vcpu.state_now().gpr[gpr::RDI], u64::from(DATA) + 0x10_0000);
    assert!(vcpu.statistics().blocks < 10, "that was done element by element");
}

#[test]
fn a_jump_to_itself_stops() {
    stops(&[0xeb, 0xfe]);
}

#[test]
fn calls_and_returns_stop() {
    // call f; jmp the call; f: ret
    stops(&[0xe8, 2, 0, 0, 0, 0xeb, 0xf9, 0xc3]);
}

#[test]
fn jumps_between_pages_stop() {
    // jmp to the next page, which jumps back.
    let mut code = vec![0xe9, 0xfb, 0x0f, 0, 0];
    code.resize(0x1000, 0x90);
    code.extend([0xe9, 0xfb, 0xef, 0xff, 0xff]);
    stops(&code);
}

#[test]
fn repeated_stores_stop() {
    // mov ecx, 4096; mov edi, DATA; rep stosb; jmp the beginning
    let mut code = vec![0xb9, 0, 0x10, 0, 0, 0xbf];
    code.extend(DATA.to_le_bytes());
    code.extend([0xf3, 0xaa, 0xeb, 0xf2]);
    stops(&code);
}

#[test]
fn accesses_that_miss_stop() {
    // mov eax, [DATA]; mov eax, [DATA + 8 MiB]; jmp the beginning
    let mut code = Vec::new();
    for address in [DATA, DATA + (8 << 20)] {
        code.extend([0x8b, 0x04, 0x25]);
        code.extend(address.to_le_bytes());
    }
    code.extend([0xeb, 0xf0]);
    stops(&code);
}

#[test]
fn vector_code_stops() {
    // paddd xmm0, xmm1; movaps [DATA], xmm0; jmp the beginning
    let mut code = vec![0x66, 0x0f, 0xfe, 0xc1, 0x0f, 0x29, 0x04, 0x25];
    code.extend(DATA.to_le_bytes());
    code.extend([0xeb, 0xf2]);
    stops(&code);
}
