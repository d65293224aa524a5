//! A budget bounds a run, whatever the guest does with it.

use engine_soft::SoftVcpu;
use memory::GuestRam;
use vcpu::{Elements, Exit, NoDevices, Slice, Vcpu};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::state::{CpuState, gpr};

const CODE: u64 = 0x7c00;

#[test]
fn a_budget_bounds_a_repeated_instruction_which_goes_on_where_it_was() {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("a megabyte");
    ram.write(Gpa(CODE), &[0xf3, 0xac, 0xf4]).expect("in RAM"); // REP LODSB, HLT
    ram.write(Gpa(0x1fffe), &[7]).expect("in RAM");
    let mut state = CpuState::reset();
    state.seg[1].base = 0;
    state.seg[1].selector = 0;
    state.seg[3].base = 0x1_0000;
    state.rip = CODE;
    state.gpr[gpr::RCX] = 0xffff;
    let mut vcpu = SoftVcpu::new(ram, CpuModel::gemello_v2()).expect("the engine runs here");
    vcpu.set(Elements::all(), &state).expect("a state");
    let mut runs = 0;
    while vcpu.run(&mut NoDevices, Slice { instructions: 2 }) == Exit::SliceOver {
        let now = vcpu.state_now();
        let (left, done) = (now.gpr[gpr::RCX], now.gpr[gpr::RSI]);
        assert_eq!(left + done, 0xffff);
        assert_eq!(now.rip, if left == 0 { CODE + 2 } else { CODE });
        runs += 1;
        assert!(runs < 100);
    }
    assert!(runs > 0, "65535 iterations within one budget of two instructions");
    assert_eq!(vcpu.state_now().gpr[gpr::RAX], 7);
}

#[test]
fn a_budget_bounds_a_handler_that_faults_at_once() {
    let ram = GuestRam::new(&[(Gpa(0), 1 << 20)]).expect("a megabyte");
    ram.write(Gpa(CODE), &[0x0f, 0x0b]).expect("in RAM"); // UD2
    ram.write(Gpa(6 * 4), &[0, 0x7c, 0, 0]).expect("in RAM");
    let mut state = CpuState::reset();
    state.seg[1].base = 0;
    state.seg[1].selector = 0;
    state.seg[2].base = 0x2_0000; // its frames go round and round
    state.rip = CODE;
    let mut vcpu = SoftVcpu::new(ram, CpuModel::gemello_v2()).expect("the engine runs here");
    vcpu.set(Elements::all(), &state).expect("a state");
    let signals = vcpu.signals();
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(5));
        signals.raise(vcpu::Signal::Kick);
    });
    assert_eq!(vcpu.run(&mut NoDevices, Slice { instructions: 100 }), Exit::SliceOver);
    assert_eq!(vcpu.state_now().rip, CODE);
}
