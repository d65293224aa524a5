//! A processor and its guest while pages come in.

mod support;

use machine::{Config, End, Lines, Machine, Paging};
use memory::GuestRam;
use std::sync::{Arc, OnceLock};
use std::thread;
use support::{Guest, Step, config, machine, step};
use vcpu::{Exit, Interruptible, Signal};
use x86::addr::{Gpa, La, Vector, Width};

const ENABLE: u32 = 0x4b56_4d02;
const VECTOR: u32 = 0x4b56_4d06;
const ACKNOWLEDGE: u32 = 0x4b56_4d07;
const EOI: Gpa = Gpa(0xfee0_00b0);
const RECORD: u64 = 0x2000;
const READY: Vector = Vector(0xf3);
const PAGES: [Gpa; 2] = [Gpa(0x50_0000), Gpa(0x60_0000)];

fn paged() -> Config {
    let swap = env!("CARGO_TARGET_TMPDIR").into();
    Config { paging: Some(Paging { resident: 4 << 20, swap }), ..config() }
}

/// The machine's memory, for steps that are written before there is any.
type Memory = Arc<OnceLock<GuestRam>>;

fn record(memory: &Memory) -> [u32; 2] {
    let mut bytes = [0; 8];
    memory.get().expect("the machine's").read(Gpa(RECORD), &mut bytes).expect("in RAM");
    [0, 4].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")))
}

fn clear_record(memory: &Memory) {
    memory.get().expect("the machine's").write(Gpa(RECORD), &[0; 8]).expect("in RAM");
}

/// The guest's handler of *ready*: the token.
fn ready(guest: &mut Guest<'_>, memory: &Memory) -> u32 {
    assert!(guest.signals.is_raised(Signal::Intr));
    assert_eq!(guest.io.ack_interrupt(), Some(READY));
    let [_, token] = record(memory);
    clear_record(memory);
    guest.io.mmio_write(EOI, Width::B4, 0);
    guest.io.msr_write(ACKNOWLEDGE, 1).expect("it is there").expect("no fault");
    token
}

fn enables(memory: &Memory) -> Step {
    let memory = Arc::clone(memory);
    step(move |guest| {
        guest.io.msr_write(VECTOR, READY.0.into()).expect("there").expect("no fault");
        guest.io.msr_write(ENABLE, RECORD | 1 | 1 << 3).expect("there").expect("no fault");
        assert_eq!(ready(guest, &memory), u32::MAX);
        Exit::SliceOver
    })
}

fn built(script: Vec<Step>, memory: &Memory) -> Machine {
    let machine = machine(&paged(), Lines::default(), script);
    memory.set(machine.ram().clone()).expect("once");
    machine
}

#[test]
fn a_guest_is_told_of_an_absent_page_and_when_it_has_come() {
    let memory = Memory::default();
    let token = Arc::new(OnceLock::new());
    let (own, noted) = (Arc::clone(&memory), Arc::clone(&token));
    let faults = step(move |guest| {
        let told = |guest: &mut Guest<'_>, at| guest.io.page_absent(PAGES[0], at);
        assert_eq!(told(guest, Interruptible::No), None);
        assert_eq!(told(guest, Interruptible::Kernel), None);
        let La(cr2) = told(guest, Interruptible::User).expect("an asynchronous page fault");
        assert_eq!(record(&own)[0], 1, "not present");
        noted.set(cr2).expect("once");
        // It runs something else meanwhile.
        while !guest.signals.is_raised(Signal::Arrival) {
            thread::yield_now();
        }
        Exit::SliceOver
    });
    let own = Arc::clone(&memory);
    let goes_on = step(move |guest| {
        assert_eq!(token.get(), Some(&ready(guest, &own).into()));
        assert!(!own.get().expect("RAM").is_absent(PAGES[0]));
        assert_eq!(guest.io.page_absent(PAGES[0], Interruptible::User), None, "it is there");
        Exit::Shutdown
    });
    let mut machine = built(vec![enables(&memory), faults, goes_on], &memory);
    assert!(matches!(machine.run(), End::TripleFault(_)));
    assert_eq!(machine.stats().processors[0].async_faults, 1);
}

#[test]
fn a_processor_that_cannot_be_told_parks_until_the_page_has_come() {
    let memory = Memory::default();
    let needs = |page: Gpa| step(move |_| Exit::Absent(page));
    let own = Arc::clone(&memory);
    let goes_on = step(move |_| {
        let ram = own.get().expect("RAM");
        assert!(PAGES.iter().all(|&page| !ram.is_absent(page)));
        Exit::Shutdown
    });
    let mut machine = built(vec![needs(PAGES[0]), needs(PAGES[1]), goes_on], &memory);
    assert!(matches!(machine.run(), End::TripleFault(_)));
    let stats = &machine.stats().processors[0];
    assert_eq!((stats.exits.absent, stats.async_faults), (2, 0));
}

#[test]
fn a_page_that_is_there_already_is_not_waited_for() {
    let memory = Memory::default();
    let own = Arc::clone(&memory);
    let needs = step(move |_| {
        assert!(own.get().expect("RAM").bring_at_once(PAGES[0]), "it holds zeros");
        Exit::Absent(PAGES[0])
    });
    let mut machine = built(vec![needs, step(|_| Exit::Shutdown)], &memory);
    assert!(matches!(machine.run(), End::TripleFault(_)));
}

#[test]
fn machines_without_a_pager_or_kvms_interface_do_not_offer_it() {
    for hidden in ["gemello-v2,-kvm", "gemello-v2,-kvm_asyncpf"] {
        let cpu = x86::cpuid::CpuModel::parse(hidden).expect("a model");
        for config in [Config { cpu, ..paged() }, config()] {
            let asks = step(|guest| {
                assert_eq!(guest.io.msr_write(ENABLE, 0), None);
                assert_eq!(guest.io.msr_read(VECTOR), None);
                Exit::Shutdown
            });
            let mut machine = machine(&config, Lines::default(), vec![asks]);
            assert!(matches!(machine.run(), End::TripleFault(_)));
        }
    }
}
