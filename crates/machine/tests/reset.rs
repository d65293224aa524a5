//! The machine's reset, asked for while it runs.

mod support;

use engine_soft::SoftEngine;
use machine::layout::LAPIC;
use machine::{
    BootConfig, Config, ControlError, End, File, Lines, Machine, Phase, ResetError, SavedMachine,
};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use support::{Collector, Step, collecting, config, kernel, machine, step};
use vcpu::{Exit, Signal};
use x86::addr::{Port, PortWidth, Width};

/// Counts its starts in memory, says the count as a letter, rewrites itself, halts for ever.
const COUNTS_ITS_STARTS: [u8; 25] = [
    0xfe, 0x05, 0x00, 0x00, 0x20, 0x00, // inc byte [200000h]
    0xa0, 0x00, 0x00, 0x20, 0x00, // mov al, [200000h]
    0x04, 0x40, // add al, 40h
    0x66, 0xba, 0xf8, 0x03, // mov dx, 3f8h
    0xee, // out dx, al
    0xfe, 0x05, 0x2c, 0x00, 0x10, 0x00, // inc byte [10002ch], the 40h above
    0xf4, // hlt
];

fn counting() -> Config {
    let mut bytes = kernel();
    bytes[0x20..0x20 + COUNTS_ITS_STARTS.len()].copy_from_slice(&COUNTS_ITS_STARTS);
    let kernel = File::Bytes { name: "a kernel that counts".into(), bytes: bytes.into() };
    Config { boot: BootConfig { kernel, ..config().boot }, ..config() }
}

fn wait_for(text: &[u8], console: &Collector) {
    let began = Instant::now();
    while *console.0.lock().expect("not poisoned") != text {
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", console.0);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Memory, code that the guest has rewritten, and the console are as at the first start, each time.
#[test]
fn a_guest_begins_anew_as_often_as_it_is_reset() {
    let console = Collector::default();
    let lines = Lines { com1: collecting(&console), ..Lines::default() };
    let mut machine = Machine::build(&counting(), lines, &SoftEngine::default()).expect("built");
    let handle = machine.handle();
    let end = thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        for starts in 1..=5 {
            wait_for(&vec![b'A'; starts], &console);
            handle.reset().expect("it runs");
        }
        wait_for(b"AAAAAA", &console);
        handle.pause().expect("it runs");
        handle.reset().expect("it is paused");
        thread::sleep(Duration::from_millis(20));
        assert_eq!(console.0.lock().expect("not poisoned").len(), 6, "it stays paused");
        handle.resume().expect("it is paused");
        wait_for(b"AAAAAAA", &console);
        handle.stop(End::Interrupted);
        run.join().expect("the run")
    });
    assert_eq!(end, End::Interrupted);
    let refused = handle.reset().expect_err("it has ended");
    let ended = ControlError::Ended { attempt: "reset" };
    assert!(matches!(refused, ResetError::Control(error) if error == ended));
}

/// Leaves its marks in every device, then waits.
fn marks() -> Vec<Step> {
    let ports = [
        (0x43, 0x34),
        (0x40, 0x34),
        (0x40, 0x12),
        (0x70, 0x0a),
        (0x71, 0x26),
        (0x64, 0x60),
        (0x60, 0x03),
        (0x80, 0x5a),
        (0x92, 0x02),
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 0x04),
        (0x21, 0x01),
        (machine::layout::COM1.0 + 3, 0x13),
        (machine::layout::COM2.0 + 7, 0x88),
    ];
    vec![step(move |guest| {
        ports
            .iter()
            .for_each(|&(port, value)| guest.io.pio_write(Port(port), PortWidth::B1, value));
        guest.io.mmio_write(LAPIC.wrapping_add(0xf0), Width::B4, 0x1ff);
        guest.io.mmio_write(LAPIC.wrapping_add(0x380), Width::B4, 1_000_000_000);
        guest.state.gpr[5] = 0x5555;
        guest.signals.raise(Signal::Nmi);
        guest.signals.raise(Signal::Init);
        Exit::SliceOver
    })]
}

#[test]
fn processors_and_devices_are_as_they_were_built() {
    let mut machine = machine(&config(), Lines::default(), marks());
    let built = machine.save().expect("a state");
    let handle = machine.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while handle.save(|state| state.chipset == built.chipset).expect("it runs") {
            thread::yield_now();
        }
        handle.pause().expect("it runs");
        handle.reset().expect("it is paused");
        let mut now = handle.save(Clone::clone).expect("a state");
        // What the clock on the wall has shown meanwhile, and that it has gone on (UF).
        now.chipset.rtc.seen_second = built.chipset.rtc.seen_second;
        now.chipset.rtc.flags &= !0x10;
        assert_eq!(now, built);
        handle.stop(End::PowerOff);
        run.join().expect("the run")
    });
}

#[test]
fn a_boot_file_that_has_gone_is_told_and_the_guest_goes_on() {
    let path = std::env::temp_dir().join(format!("gemello-reset-{}", std::process::id()));
    std::fs::write(&path, kernel()).expect("a file");
    let boot = BootConfig { kernel: File::Path(path.clone()), ..config().boot };
    let config = Config { boot, ..config() };
    let mut machine =
        Machine::build(&config, Lines::default(), &SoftEngine::default()).expect("built");
    std::fs::remove_file(&path).expect("it is there");
    let handle = machine.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while handle.phase() == machine::Phase::Created {
            thread::yield_now();
        }
        let refused = handle.reset().expect_err("no kernel");
        assert!(refused.to_string().contains("gemello-reset"), "{refused}");
        assert_eq!(handle.phase(), machine::Phase::Running);
        handle.stop(End::PowerOff);
        run.join().expect("the run")
    });
}

/// The machine of `config` from a file, saved when it has said its letter; what it says then.
fn restored(config: &Config, name: &str) -> (Machine, Collector) {
    let path = std::env::temp_dir().join(format!("gemello-reset-{}-{name}", std::process::id()));
    let (console, again) = (Collector::default(), Collector::default());
    let lines = |console| Lines { com1: collecting(console), ..Lines::default() };
    let engine = SoftEngine::default();
    let mut machine = Machine::build(config, lines(&console), &engine).expect("built");
    let handle = machine.handle();
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        wait_for(b"A", &console);
        let session = || serde_json::Value::Null;
        handle.save_to(&path, &config.hardware(), session).expect("saved");
        handle.stop(End::PowerOff);
        run.join().expect("the run")
    });
    let mut saved = SavedMachine::open(&path).expect("what was saved");
    let machine = Machine::from_saved(&mut saved, lines(&again), &engine).expect("restored");
    std::fs::remove_file(&path).expect("it is there");
    (machine, again)
}

/// Whether its boot file was bytes that only the saved machine holds, or the host's.
#[test]
fn a_restored_guest_begins_anew() {
    let file = std::env::temp_dir().join(format!("gemello-reset-{}-kernel", std::process::id()));
    let inside = counting();
    std::fs::write(&file, kernel_of(&inside)).expect("a file");
    let boot = BootConfig { kernel: File::Path(file.clone()), ..config().boot };
    for config in [inside, Config { boot, ..config() }] {
        let (mut machine, console) = restored(&config, "anew");
        let handle = machine.handle();
        thread::scope(|scope| {
            let run = scope.spawn(|| machine.run());
            for starts in 0..3 {
                wait_for(&vec![b'A'; starts], &console);
                handle.reset().expect("it knows what it booted");
            }
            wait_for(b"AAA", &console);
            handle.stop(End::PowerOff);
            run.join().expect("the run")
        });
    }
    std::fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_restored_guest_goes_on_where_its_boot_file_has_changed() {
    let file = std::env::temp_dir().join(format!("gemello-reset-{}-other", std::process::id()));
    std::fs::write(&file, kernel_of(&counting())).expect("a file");
    let boot = BootConfig { kernel: File::Path(file.clone()), ..config().boot };
    let (mut machine, console) = restored(&Config { boot, ..config() }, "other");
    let handle = machine.handle();
    let refused = |why: &str, file: &Path| {
        let refused = handle.reset().expect_err(why).to_string();
        let name = file.to_str().expect("text");
        assert!(refused.contains(why) && refused.contains(name), "{refused}");
        assert_eq!(handle.phase(), Phase::Running);
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while handle.phase() == Phase::Created {
            thread::yield_now();
        }
        std::fs::write(&file, kernel()).expect("a file");
        refused("has changed since the machine was saved", &file);
        std::fs::remove_file(&file).expect("it is there");
        refused("cannot read", &file);
        std::fs::write(&file, kernel_of(&counting())).expect("a file");
        handle.reset().expect("it was put back");
        wait_for(b"A", &console);
        handle.stop(End::PowerOff);
        run.join().expect("the run")
    });
    std::fs::remove_file(&file).expect("it is there");
}

fn kernel_of(config: &Config) -> Vec<u8> {
    match &config.boot.kernel {
        File::Bytes { bytes, .. } => bytes.to_vec(),
        File::Path(path) => panic!("{} is no bytes", path.display()),
    }
}
