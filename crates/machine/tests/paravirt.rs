//! KVM's interface as a machine keeps it: the clock over pauses, saves and resets.

mod support;

use machine::{End, Lines, Machine, MachineState, Phase};
use memory::GuestRam;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Guest, Step, config, machine, step};
use vcpu::{Exit, Hypercall, HypercallError, Residence, Signal, SignalSet, Signals};
use x86::addr::Gpa;
use x86::cpuid::CpuModel;
use x86::regs::Rflags;
use x86::state::Activity;

const WALL_CLOCK: u32 = 0x4b56_4d00;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
/// Where the guest wants its records.
const TIME: u64 = 0x2000;
const WALL: u64 = 0x3000;
/// As far apart as the machine's two clocks may be: the TSC's frequency may be measured.
const NEAR: u64 = 5_000_000;
const AWAY: Duration = Duration::from_millis(300);
const TSC_STABLE: u8 = 1;
const GUEST_STOPPED: u8 = 2;

fn put(guest: &mut Guest<'_>, msr: u32, value: u64) {
    guest.io.msr_write(msr, value).expect("it is there").expect("no fault");
}

/// Asks for the time.
fn registers() -> Step {
    step(|guest| {
        put(guest, SYSTEM_TIME, TIME | 1);
        Exit::SliceOver
    })
}

/// Runs until somebody wants something of the machine.
fn until_kicked() -> Step {
    step(|guest| {
        while !guest.signals.is_raised(Signal::Kick) {
            thread::yield_now();
        }
        Exit::Kicked(guest.signals.take_kicks())
    })
}

fn stops() -> Step {
    step(|_| Exit::Shutdown)
}

/// The record of the time: its nanoseconds at `tsc`, and its flags.
fn time(machine: &Machine, tsc: u64) -> (u64, u8) {
    let mut record = [0; 32];
    machine.ram().read(Gpa(TIME), &mut record).expect("in RAM");
    let long = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight"));
    let multiplier = u128::from(long(24) & 0xffff_ffff);
    let ticks = tsc.wrapping_sub(long(8)) << record[28];
    let ns = ((u128::from(ticks) * multiplier) >> 32) as u64;
    (long(16) + ns, record[29])
}

/// The guest's clock tells the machine's time in `state`.
fn agrees(machine: &Machine, state: &MachineState) {
    let (ns, _) = time(machine, state.guest_tsc);
    assert!(ns.abs_diff(state.now) < NEAR, "{ns} ns, and the machine {}", state.now);
}

fn paused_on_the_way() -> Machine {
    let script = vec![registers(), until_kicked(), until_kicked(), until_kicked(), stops()];
    let mut machine = machine(&config(), Lines::default(), script);
    let handle = machine.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while handle.phase() != Phase::Running {
            thread::yield_now();
        }
        let registered = |state: &MachineState| state.processors[0].paravirt.system_time != 0;
        while !handle.save(registered).expect("it runs") {
            thread::yield_now();
        }
        handle.pause().expect("it runs");
        thread::sleep(AWAY);
        handle.resume().expect("it is paused");
        handle.stop(End::PowerOff);
        run.join().expect("the run");
    });
    machine
}

#[test]
fn the_clock_stands_still_with_the_machine_and_the_guest_hears_of_it() {
    let machine = paused_on_the_way();
    let state = machine.save().expect("a state");
    agrees(&machine, &state);
    assert_eq!(time(&machine, state.guest_tsc).1, TSC_STABLE | GUEST_STOPPED);
}

#[test]
fn a_machine_that_never_stood_still_tells_nothing() {
    let mut machine = machine(&config(), Lines::default(), vec![registers(), stops()]);
    machine.run();
    let state = machine.save().expect("a state");
    agrees(&machine, &state);
    assert_eq!(time(&machine, state.guest_tsc).1, TSC_STABLE);
}

#[test]
fn a_restored_clock_goes_on_where_it_stood_and_wall_time_is_the_hosts() {
    let original = paused_on_the_way();
    let state = original.save().expect("a state");
    let asks = step(|guest| {
        put(guest, WALL_CLOCK, WALL);
        Exit::SliceOver
    });
    let mut restored = machine(&config(), Lines::default(), vec![asks, stops()]);
    let mut page = [0; 4096];
    original.ram().read(Gpa(TIME), &mut page).expect("in RAM");
    // The guest has taken note of the pause before.
    page[29] &= !GUEST_STOPPED;
    restored.ram().write(Gpa(TIME), &page).expect("in RAM");
    restored.restore(&state).expect("the same kind of machine");
    thread::sleep(AWAY);
    let before = SystemTime::now();
    restored.run();

    let after = restored.save().expect("a state");
    agrees(&restored, &after);
    let (ns, flags) = time(&restored, after.guest_tsc);
    assert_eq!(flags, TSC_STABLE | GUEST_STOPPED);
    assert!(ns > time(&restored, state.guest_tsc).0);
    let mut record = [0; 12];
    restored.ram().read(Gpa(WALL), &mut record).expect("in RAM");
    let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four"));
    let wall = Duration::new(word(4).into(), word(8)) + Duration::from_nanos(ns);
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970");
    let slack = Duration::from_nanos(NEAR);
    assert!(wall + slack > since(before), "{wall:?} is before {:?}", since(before));
    assert!(wall < since(SystemTime::now()) + slack, "{wall:?} is to come");
}

#[test]
fn a_reset_ends_the_record() {
    let script = vec![registers(), until_kicked(), until_kicked(), until_kicked()];
    let mut machine = machine(&config(), Lines::default(), script);
    let handle = machine.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        let asked = |state: &MachineState| state.processors[0].paravirt.system_time;
        while handle.phase() != Phase::Running || handle.save(asked) == Ok(0) {
            thread::yield_now();
        }
        handle.pause().expect("it runs");
        handle.reset().expect("it was built here");
        assert_eq!(handle.save(asked), Ok(0));
        handle.stop(End::PowerOff);
        run.join().expect("the run");
    });
}

#[test]
fn init_ends_the_record() {
    let init = step(|guest| {
        put(guest, SYSTEM_TIME, TIME | 1);
        guest.signals.raise(Signal::Init);
        Exit::Reset
    });
    let mut machine = machine(&config(), Lines::default(), vec![init, stops()]);
    machine.run();
    assert_eq!(machine.save().expect("a state").processors[0].paravirt.system_time, 0);
}

#[test]
fn a_processor_without_the_interface_has_nothing_of_it() {
    let looks = step(|guest| {
        for msr in [0x11, 0x12, WALL_CLOCK, SYSTEM_TIME] {
            assert_eq!(guest.io.msr_read(msr), None, "{msr:#x}");
            assert_eq!(guest.io.msr_write(msr, TIME | 1), None, "{msr:#x}");
        }
        Exit::Shutdown
    });
    let cpu = CpuModel::parse("gemello-v2,-kvm").expect("a known model");
    let mut machine = machine(&machine::Config { cpu, ..config() }, Lines::default(), vec![looks]);
    assert!(matches!(machine.run(), End::TripleFault(_)));
}

#[test]
fn hypercalls_reach_the_machine() {
    let calls = step(|guest| {
        let call = |number| Hypercall { number, arguments: [TIME, 0, 0, 0], bits: 64 };
        assert_eq!(guest.io.hypercall(call(9)), Ok(0));
        assert_eq!(guest.io.hypercall(call(77)), Err(HypercallError::Unknown));
        Exit::Shutdown
    });
    let mut machine = machine(&config(), Lines::default(), vec![calls]);
    assert!(matches!(machine.run(), End::TripleFault(_)));
    let mut seconds = [0; 8];
    machine.ram().read(Gpa(TIME), &mut seconds).expect("in RAM");
    let host = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(host.abs_diff(u64::from_le_bytes(seconds)) <= 10);
}

/// HLT with interrupts masked.
fn halts_masked() -> Step {
    step(|guest| {
        guest.state.flags.set(Rflags::IF, false);
        guest.state.activity = Activity::Halted;
        Exit::Halted(SignalSet::waking(guest.state))
    })
}

fn awake() -> Step {
    step(|guest| {
        assert_eq!(guest.state.activity, Activity::Running);
        Exit::Shutdown
    })
}

#[test]
fn a_kick_by_hypercall_ends_the_next_halt_and_one_only() {
    let kicks = step(|guest| {
        let kick = Hypercall { number: 5, arguments: [0, 0, 0, 0], bits: 64 };
        assert_eq!(guest.io.hypercall(kick), Ok(0));
        Exit::Kicked(guest.signals.take_kicks())
    });
    let script = vec![kicks, halts_masked(), awake()];
    let mut once = machine(&config(), Lines::default(), script);
    assert!(matches!(once.run(), End::TripleFault(_)));
    let kicks = step(|guest| {
        guest.signals.raise(Signal::Unhalt);
        Exit::Kicked(guest.signals.take_kicks())
    });
    let again = step(|guest| {
        guest.state.activity = Activity::Halted;
        Exit::Halted(SignalSet::waking(guest.state))
    });
    let script = vec![kicks, halts_masked(), again, awake()];
    let timeout = Some(AWAY);
    let mut twice = machine(&machine::Config { timeout, ..config() }, Lines::default(), script);
    assert_eq!(twice.run(), End::TimedOut);
}

/// Halts, and has `work` done as soon as the processor is parked.
fn halts_and(work: impl Fn(&Signals) + Send + Clone + 'static) -> Step {
    step(move |guest| {
        let (signals, work) = (Arc::clone(guest.signals), work.clone());
        thread::spawn(move || {
            while !matches!(signals.residence(), Residence::Parked(_)) {
                thread::yield_now();
            }
            work(&signals);
        });
        guest.state.flags.set(Rflags::IF, false);
        guest.state.activity = Activity::Halted;
        Exit::Halted(SignalSet::waking(guest.state))
    })
}

#[test]
fn a_kick_wakes_a_processor_that_sleeps() {
    let halts = halts_and(|signals| signals.raise(Signal::Unhalt));
    // The engine has it leave, and finds it halted still.
    let script = vec![halts, halts_masked(), awake()];
    let mut machine = machine(&config(), Lines::default(), script);
    assert!(matches!(machine.run(), End::TripleFault(_)));
}

const STEAL_TIME: u32 = 0x4b56_4d03;
const STEAL: u64 = 0x4000;
/// Where others see whether the processor runs.
const PREEMPTED: Gpa = Gpa(STEAL + 16);

#[test]
fn a_processor_that_was_away_flushes_its_tlb_before_it_runs_if_asked() {
    let registers = step(|guest| {
        put(guest, STEAL_TIME, STEAL | 1);
        Exit::SliceOver
    });
    let memory = Arc::new(OnceLock::<GuestRam>::new());
    let seen = Arc::clone(&memory);
    // What another processor does in place of an interrupt.
    let sleeps = halts_and(move |signals| {
        let ram = seen.get().expect("the machine's");
        assert_eq!(ram.swap_byte(PREEMPTED, 3), Some(1), "it is away");
        signals.raise(Signal::Nmi);
    });
    let ram = Arc::clone(&memory);
    let wakes = step(move |guest| {
        assert_eq!(guest.flushes, 1);
        let ram = ram.get().expect("the machine's");
        assert_eq!(ram.swap_byte(PREEMPTED, 0), Some(0), "it runs");
        Exit::Shutdown
    });
    let mut machine = machine(&config(), Lines::default(), vec![registers, sleeps, wakes]);
    memory.set(machine.ram().clone()).expect("once");
    assert!(matches!(machine.run(), End::TripleFault(_)));
    assert_eq!(machine.ram().swap_byte(PREEMPTED, 0), Some(1), "it has left");
}
