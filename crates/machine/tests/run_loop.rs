//! The run loop and the machine around it, with a scripted processor in place of an engine.

mod support;

use machine::console::Line;
use machine::{Config, End, Lines, Place, layout};
use rustix::pipe::pipe;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::{Collector, PipeInput, Step, collecting, config, halt, machine, run, step};
use vcpu::{Exit, Signal, SignalSet};
use x86::addr::{Gpa, Port, PortWidth, Vector, Width};
use x86::regs::Rflags;
use x86::state::Activity;

/// SLP_EN with SLP_TYP of S5 (ACPI 6.4, 4.8.3.2.1).
const SOFT_OFF: u32 = 1 << 13 | 5 << 10;

fn out(port: Port, width: PortWidth, value: u32) -> Step {
    step(move |guest| {
        guest.io.pio_write(port, width, value);
        Exit::SliceOver
    })
}

#[test]
fn acpi_powers_off() {
    assert_eq!(run(vec![out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF)]), End::PowerOff);
}

#[test]
fn every_way_to_reset_resets() {
    assert_eq!(
        run(vec![out(Port(layout::RESET_REGISTER.0), PortWidth::B1, layout::RESET_VALUE.into())]),
        End::Reset
    );
    assert_eq!(run(vec![out(Port(0x64), PortWidth::B1, 0xFE)]), End::Reset);
    assert_eq!(run(vec![out(Port(0x92), PortWidth::B1, 1)]), End::Reset);
}

#[test]
fn the_debug_exit_port_is_there_on_demand_only() {
    let wanted = Config { debug_exit: true, ..config() };
    let script = || {
        vec![
            out(Port(0xF4), PortWidth::B1, 0x21),
            out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
        ]
    };
    assert_eq!(machine(&wanted, Lines::default(), script()).run(), End::DebugExit(0x21));
    assert_eq!(machine(&config(), Lines::default(), script()).run(), End::PowerOff);
}

#[test]
fn a_timeout_ends_a_halted_and_a_busy_guest() {
    let config = Config { timeout: Some(Duration::from_millis(50)), ..config() };
    let began = Instant::now();
    assert_eq!(machine(&config, Lines::default(), vec![]).run(), End::TimedOut);
    let busy = step(|guest| {
        while !guest.signals.is_raised(Signal::Kick) {
            thread::yield_now();
        }
        Exit::Kicked(guest.signals.take_kicks())
    });
    assert_eq!(machine(&config, Lines::default(), vec![busy]).run(), End::TimedOut);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn anybody_may_end_the_run_and_the_first_reason_counts() {
    let mut machine = machine(&config(), Lines::default(), vec![]);
    let stopper = machine.stopper();
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        stopper.stop(End::Interrupted);
        stopper.stop(End::PowerOff);
    });
    assert_eq!(machine.run(), End::Interrupted);
    other.join().expect("no panic");
}

#[test]
fn a_triple_fault_is_reported_with_the_last_state() {
    let shutdown = step(|guest| {
        guest.state.rip = 0xdead;
        Exit::Shutdown
    });
    let End::TripleFault(report) = run(vec![shutdown]) else { panic!("no triple fault") };
    assert!(report.contains("RIP 000000000000dead"), "{report}");
    assert!(report.contains("Page walk of RIP") && report.contains("#DF"), "{report}");
}

#[test]
fn an_engine_that_fails_or_panics_ends_the_run() {
    let fatal = step(|_| Exit::Fatal("out of luck".into()));
    let End::EngineFailed(text) = run(vec![fatal]) else { panic!("went on") };
    assert!(text.contains("out of luck"));
    let panics = step(|_| panic!("a defect, on purpose"));
    let End::Defect(text) = run(vec![panics]) else { panic!("went on") };
    assert!(text.contains("a defect, on purpose"), "{text}");
}

/// The local APIC's registers (SDM vol. 3, table 12-1).
const SVR: u64 = layout::LAPIC.0 + 0xF0;
const LVT_TIMER: u64 = layout::LAPIC.0 + 0x320;
const INITIAL_COUNT: u64 = layout::LAPIC.0 + 0x380;
const DIVIDE: u64 = layout::LAPIC.0 + 0x3E0;

#[test]
fn a_timer_wakes_a_halted_processor_with_its_vector() {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let began = Instant::now();
    let script = vec![
        step(|guest| {
            guest.io.mmio_write(Gpa(SVR), Width::B4, 0x1FF);
            guest.io.mmio_write(Gpa(DIVIDE), Width::B4, 0b1011); // by 1
            guest.io.mmio_write(Gpa(LVT_TIMER), Width::B4, 0x40); // one-shot
            guest.io.mmio_write(Gpa(INITIAL_COUNT), Width::B4, 25_000_000 / 20); // 50 ms at 25 MHz
            halt(guest)
        }),
        step(move |guest| {
            let raised = guest.signals.is_raised(Signal::Intr);
            *note.lock().expect("not poisoned") = Some((raised, guest.io.ack_interrupt()));
            Exit::SliceOver
        }),
        out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
    ];
    assert_eq!(run(script), End::PowerOff);
    let took = began.elapsed();
    assert_eq!(*seen.lock().expect("not poisoned"), Some((true, Some(Vector(0x40)))));
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(5), "{took:?}");
}

/// A deadline of IA32_TSC_DEADLINE is a value of the TSC: it comes sooner when the guest moves its
/// TSC.
#[test]
fn a_tsc_deadline_moves_with_the_tsc() {
    let began = Instant::now();
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let script = vec![
        step(|guest| {
            const FAR: u64 = 1 << 50; // days
            guest.io.mmio_write(Gpa(SVR), Width::B4, 0x1FF);
            guest.io.mmio_write(Gpa(LVT_TIMER), Width::B4, 2 << 17 | 0x41);
            guest.io.msr_write(0x6E0, FAR).expect("the local APIC's").expect("no fault");
            guest.io.tsc_offset_changed(FAR.wrapping_sub(vcpu::host_tsc()));
            halt(guest)
        }),
        step(move |guest| {
            *note.lock().expect("not poisoned") = guest.io.ack_interrupt();
            Exit::SliceOver
        }),
        out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
    ];
    assert_eq!(run(script), End::PowerOff);
    assert_eq!(*seen.lock().expect("not poisoned"), Some(Vector(0x41)));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2).
#[test]
fn the_8259_reaches_a_processor_whose_apic_nobody_programs() {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let script = vec![
        step(|guest| {
            // ICW1 to ICW4 with vectors from 20H, IRQ 0 unmasked; counter 0 every 4 ms.
            for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)] {
                guest.io.pio_write(Port(port), PortWidth::B1, value);
            }
            for (port, value) in [(0x43, 0x34), (0x40, 0x88), (0x40, 0x13)] {
                guest.io.pio_write(Port(port), PortWidth::B1, value);
            }
            halt(guest)
        }),
        step(move |guest| {
            *note.lock().expect("not poisoned") = guest.io.ack_interrupt();
            Exit::SliceOver
        }),
        out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
    ];
    assert_eq!(run(script), End::PowerOff);
    assert_eq!(*seen.lock().expect("not poisoned"), Some(Vector(0x20)));
}

#[test]
fn hlt_with_interrupts_masked_sleeps_through_them() {
    let woken = Arc::new(Mutex::new(false));
    let note = Arc::clone(&woken);
    let script = vec![
        step(|guest| {
            guest.state.flags.set(Rflags::IF, false);
            guest.signals.raise(Signal::Intr);
            Exit::Halted(SignalSet::waking(guest.state))
        }),
        step(move |_| {
            *note.lock().expect("not poisoned") = true;
            Exit::SliceOver
        }),
    ];
    let config = Config { timeout: Some(Duration::from_millis(100)), ..config() };
    assert_eq!(machine(&config, Lines::default(), script).run(), End::TimedOut);
    assert!(!*woken.lock().expect("not poisoned"), "woken by an interrupt that IF masks");
}

#[test]
fn an_nmi_wakes_hlt_whatever_if_says() {
    let script = vec![
        step(|guest| {
            guest.state.flags.set(Rflags::IF, false);
            guest.signals.raise(Signal::Nmi);
            Exit::Halted(SignalSet::waking(guest.state))
        }),
        out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
    ];
    assert_eq!(run(script), End::PowerOff);
}

#[test]
fn init_resets_the_processor() {
    let script = vec![
        step(|guest| {
            guest.state.gpr[3] = 77;
            guest.signals.raise(Signal::Init);
            Exit::Reset
        }),
        step(|guest| {
            let state = &guest.state;
            let as_after_init = (state.gpr[3], state.rip, state.activity);
            assert_eq!(as_after_init, (0, 0xfff0, Activity::Running));
            guest.io.pio_write(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF);
            Exit::SliceOver
        }),
    ];
    assert_eq!(run(script), End::PowerOff);
}

#[test]
fn output_reaches_its_place_before_the_run_returns() {
    let [com1, com2, com3] = std::array::from_fn(|_| Collector::default());
    let lines = Lines {
        com1: collecting(&com1),
        com2: collecting(&com2),
        com3: collecting(&com3),
        ..Lines::default()
    };
    let script = vec![
        step(|guest| {
            for byte in b"hello" {
                guest.io.pio_write(layout::COM1, PortWidth::B1, u32::from(*byte));
            }
            guest.io.pio_write(layout::COM2, PortWidth::B1, u32::from(b'!'));
            guest.io.pio_write(layout::COM3, PortWidth::B1, u32::from(b'?'));
            Exit::SliceOver
        }),
        out(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF),
    ];
    assert_eq!(machine(&config(), lines, script).run(), End::PowerOff);
    assert_eq!(*com1.0.lock().expect("not poisoned"), b"hello");
    assert_eq!(*com2.0.lock().expect("not poisoned"), b"!");
    assert_eq!(*com3.0.lock().expect("not poisoned"), b"?");
}

#[test]
fn closed_output_ends_the_run() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let com1 = Line { input: None, output: Some(Box::new(Closed)) };
    let lines = Lines { com1, ..Lines::default() };
    let end = machine(&config(), lines, vec![out(Port(layout::COM1.0), PortWidth::B1, 65)]).run();
    assert_eq!(end, End::OutputClosed);
}

/// 3000 bytes through a FIFO of 16, to a guest that takes them slowly: in order, none lost, few
/// read ahead.
#[test]
fn input_comes_as_the_guest_takes_it() {
    let (reader, writer) = pipe().expect("a pipe");
    let sent: Vec<u8> = (0..3000_u32).map(|n| (n % 251) as u8).collect();
    let send = sent.clone();
    let sender = thread::spawn(move || {
        let mut rest = &send[..];
        while !rest.is_empty() {
            let count = rustix::io::write(&writer, rest).expect("a reader");
            rest = &rest[count..];
        }
    });
    let ahead = Arc::new(Mutex::new(0));
    let input =
        PipeInput { pipe: reader, queue: VecDeque::new(), ended: false, ahead: Arc::clone(&ahead) };
    let com1 = Line { input: Some(Box::new(input)), output: None };
    let received = Arc::new(Mutex::new(Vec::new()));
    let collect = Arc::clone(&received);
    let expected = sent.len();
    let script = vec![step(move |guest| {
        guest.io.pio_write(Port(layout::COM1.0 + 2), PortWidth::B1, 0x01); // FIFOs on
        // Received data available.
        guest.io.pio_write(Port(layout::COM1.0 + 1), PortWidth::B1, 0x01);
        guest.io.pio_write(Port(layout::COM1.0 + 4), PortWidth::B1, 0x0B); // DTR, RTS, OUT2
        let mut got = Vec::new();
        while got.len() < expected {
            if guest.io.pio_read(Port(layout::COM1.0 + 5), PortWidth::B1) & 1 == 0 {
                thread::yield_now();
                continue;
            }
            got.push(guest.io.pio_read(layout::COM1, PortWidth::B1) as u8);
        }
        *collect.lock().expect("not poisoned") = got;
        guest.io.pio_write(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF);
        Exit::SliceOver
    })];
    let config = Config { timeout: Some(Duration::from_secs(20)), ..config() };
    let end = machine(&config, Lines { com1, ..Lines::default() }, script).run();
    assert_eq!(end, End::PowerOff);
    sender.join().expect("no panic");
    assert_eq!(*received.lock().expect("not poisoned"), sent);
    assert!(*ahead.lock().expect("not poisoned") <= 100 + 64);
}

#[test]
fn what_is_not_there_reads_all_ones_and_is_counted() {
    let script = vec![step(|guest| {
        assert_eq!(guest.io.pio_read(Port(0x300), PortWidth::B2), 0xFFFF);
        assert_eq!(guest.io.mmio_read(Gpa(0xD000_0000), Width::B8), u64::MAX);
        guest.io.mmio_write(Gpa(0xD000_0000), Width::B4, 1);
        guest.io.pio_write(Port(layout::ACPI_PM.0 + 4), PortWidth::B2, SOFT_OFF);
        Exit::SliceOver
    })];
    let mut machine = machine(&config(), Lines::default(), script);
    assert_eq!(machine.run(), End::PowerOff);
    let stats = machine.stats();
    let counts = |place: Place| {
        let found = stats.unclaimed.iter().find(|unclaimed| unclaimed.place == place);
        found.map(|unclaimed| (unclaimed.reads, unclaimed.writes))
    };
    assert_eq!(counts(Place::Port(Port(0x300))), Some((1, 0)), "{stats:?}");
    assert_eq!(counts(Place::Memory(Gpa(0xD000_0000))), Some((1, 1)), "{stats:?}");
    assert_eq!(stats.processors[0].exits.slice_over, 1);
}
