//! The memory that a processor takes before it runs: its tables are large, and come into memory as
//! they are used. A program of its own with one test, since the host counts by process.

use engine_soft::SoftEngine;
use memory::GuestRam;
use std::fs;
use vcpu::{Elements, Engine as _, VmParts};
use x86::addr::{Gpa, VcpuId};
use x86::cpuid::CpuModel;
use x86::state::CpuState;

const MIB: u64 = 1 << 20;

/// Bytes of this process that are in memory, those of its own file aside (proc_pid_status(5)): code
/// comes in pieces that are the host's choice.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    (kib("RssAnon:") + kib("RssShmem:")) << 10
}

#[test]
fn a_new_processor_touches_less_than_a_mebibyte() {
    let ram = GuestRam::new(&[(Gpa(0), 4 * MIB)]).expect("some memory");
    let parts = VmParts { ram, model: CpuModel::gemello_v2(), clock: None };
    let mut before = resident();
    let vm = SoftEngine::default().create_vm(parts).expect("a machine");
    let mut processors = Vec::new();
    for id in 0..4 {
        let mut processor = vm.add_vcpu(VcpuId(id)).expect("a processor");
        // A change of everything: all translations are flushed.
        processor.set(Elements::all(), &CpuState::reset()).expect("a state");
        processors.push(processor);
        let now = resident();
        let touched = now.saturating_sub(before);
        println!("processor {id} touched {} KiB", touched >> 10);
        assert!(touched < MIB, "processor {id} touched {touched} bytes");
        before = now;
    }
}
