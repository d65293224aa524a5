//! A thread that has run translated code leaves no memory behind when it ends.

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::CpuState;

/// Bytes of address space this process has mapped.
fn mapped() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    let size = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(number(end)? - number(start)?)
    };
    maps.lines().filter_map(size).sum()
}

/// Runs `vcpu`, which halts at once, on `threads` threads, one after the other.
fn run_on_threads(mut vcpu: SoftVcpu, threads: u32) -> SoftVcpu {
    for _ in 0..threads {
        let run = move || {
            assert!(matches!(vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED), Exit::Halted(_)));
            vcpu
        };
        vcpu = std::thread::spawn(run).join().expect("no panic");
    }
    vcpu
}

#[test]
fn a_thread_that_ends_frees_its_signal_stack() {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("a megabyte");
    ram.write(Gpa(0), &[0xf4; 4096]).expect("in RAM"); // HLT
    let mut state = CpuState::reset();
    (state.seg[1].selector, state.seg[1].base, state.rip) = (0, 0, 0);
    let vcpu = SoftVcpu::with_tier(ram, CpuModel::gemello_v2(), Tier::Translate, CODE_CACHE);
    let mut vcpu = vcpu.expect("the engine runs here");
    vcpu.set(Elements::all(), &state).expect("a state");
    let vcpu = run_on_threads(vcpu, 8); // fills the C library's caches
    let before = mapped();
    drop(run_on_threads(vcpu, 200));
    let grown = mapped().saturating_sub(before);
    assert!(grown < 1 << 20, "200 threads left {grown} bytes mapped");
}
