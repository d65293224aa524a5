//! A machine's state: saved, restored into a fresh machine, and compared.

mod support;

use machine::console::Line;
use machine::saved::VERSION;
use machine::{End, Lines, Machine, Phase, RestoreError, SaveError, SavedMachine, layout};
use std::path::{Path, PathBuf};
use support::{Step, config, machine, script_engine, step};
use test_support::{Rng, setting};
use vcpu::{Exit, Signal};
use x86::addr::{Gpa, Port, PortWidth, Width};

/// Touches every device, so that the state differs from a fresh machine's everywhere, then stops.
fn busy() -> Vec<Step> {
    vec![
        step(|guest| {
            let writes: [(u16, u32); 21] = [
                (0x43, 0x34),
                (0x40, 0x34),
                (0x40, 0x12), // PIT counter 0, mode 2
                (0x70, 0x0A),
                (0x71, 0x26),
                (0x70, 0x30),
                (0x71, 0x99),
                (0x64, 0x60),
                (0x60, 0x03), // i8042 command byte
                (0x80, 0x5A),
                (0x92, 0x02),
                (0xCF9, 0x02),
                (0x20, 0x11),
                (0x21, 0x20),
                (0x21, 0x04),
                (0x21, 0x01),
                (0x21, 0xEF), // PIC
                (layout::COM1.0 + 3, 0x13),
                (layout::COM1.0 + 7, 0x77),
                (layout::COM2.0 + 7, 0x88),
                (layout::COM3.0 + 7, 0x99),
            ];
            for (port, value) in writes {
                guest.io.pio_write(Port(port), PortWidth::B1, value);
            }
            guest.io.pio_write(Port(layout::ACPI_PM.0 + 2), PortWidth::B2, 0x0100);
            guest.io.mmio_write(Gpa(layout::LAPIC.0 + 0xF0), Width::B4, 0x1FF);
            guest.io.mmio_write(Gpa(layout::LAPIC.0 + 0x320), Width::B4, 0x2_0040);
            guest.io.mmio_write(Gpa(layout::LAPIC.0 + 0x380), Width::B4, 1_000_000_000);
            guest.io.mmio_write(layout::IOAPIC, Width::B4, 0x10);
            guest.io.mmio_write(Gpa(layout::IOAPIC.0 + 0x10), Width::B4, 0x31);
            for msr in [0x4b56_4d00, 0x4b56_4d01] {
                guest.io.msr_write(msr, 0x5001).expect("it is there").expect("no fault");
            }
            guest.state.gpr[5] = 0x5555;
            guest.state.cr2 = 0x1234;
            guest.signals.raise(Signal::Nmi);
            Exit::SliceOver
        }),
        step(|_| Exit::Shutdown),
    ]
}

fn run_busy() -> Machine {
    let mut machine = machine(&config(), Lines::default(), busy());
    assert!(matches!(machine.run(), End::TripleFault(_)));
    machine
}

#[test]
fn a_restored_machine_is_the_saved_one() {
    let state = run_busy().save().expect("a state");
    let mut fresh = machine(&config(), Lines::default(), vec![]);
    let before = fresh.save().expect("a state");
    let parts = |s: &machine::MachineState| {
        let c = s.chipset.clone();
        [
            format!("{:?}", s.pic),
            format!("{:?}", s.ioapic),
            format!("{:?}", s.processors[0].lapic),
            format!("{:?}", s.processors[0].cpu),
            format!("{:?}", s.processors[0].paravirt),
            format!("{:?}", s.paravirt),
            format!("{:?}", c.pit),
            format!("{:?}", c.rtc),
            format!("{:?}", c.i8042),
            format!("{:?}", c.acpi),
            format!("{:?}", c.post),
            format!("{:?}", c.com1),
            format!("{:?}", c.com2),
            format!("{:?}", c.com3),
        ]
    };
    for (fresh, busy) in parts(&before).iter().zip(parts(&state)) {
        assert_ne!(fresh, &busy, "the test does not reach this device");
    }
    fresh.restore(&state).expect("the same kind of machine");
    // The PIT and the RTC note up to when they have done their work, which restoring moves up to
    // now.
    let mut settled = fresh.save().expect("a state");
    let pit = std::mem::replace(&mut settled.chipset.pit, state.chipset.pit.clone());
    let rtc = std::mem::replace(&mut settled.chipset.rtc, state.chipset.rtc.clone());
    for (settled, saved) in parts(&settled).iter().zip(parts(&state)) {
        assert_eq!(settled, &saved);
    }
    assert_eq!(settled, state);
    (settled.chipset.pit, settled.chipset.rtc) = (pit, rtc);
    let mut another = machine(&config(), Lines::default(), vec![]);
    another.restore(&settled).expect("the same kind of machine");
    assert_eq!(another.save().expect("a state"), settled);
}

#[test]
fn another_version_or_machine_is_refused() {
    let mut state = run_busy().save().expect("a state");
    let mut fresh = machine(&config(), Lines::default(), vec![]);
    state.version = VERSION + 1;
    assert_eq!(fresh.restore(&state), Err(RestoreError::Version { found: VERSION + 1 }));
    state.version = VERSION;
    state.processors.clear();
    assert_eq!(fresh.restore(&state), Err(RestoreError::Processors { found: 0, expected: 1 }));
}

/// The busy machine in a file, with something in its memory.
fn saved_file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gemello-saved-{}-{name}", std::process::id()));
    let config = config();
    let counter = step(|guest| {
        while !guest.signals.is_raised(Signal::Kick) {
            std::thread::yield_now();
        }
        guest.state.gpr[5] += 1;
        Exit::Kicked(guest.signals.take_kicks())
    });
    let mut machine = machine(&config, Lines::default(), vec![counter]);
    let handle = machine.handle();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        while handle.phase() == Phase::Created {
            std::thread::yield_now();
        }
        let session = || serde_json::json!({ "told": "again" });
        handle.save_to(&path, &config.hardware(), session).expect("the file");
        handle.stop(End::PowerOff);
        run.join().expect("the run");
    });
    path
}

/// A place that takes what it is given once the other end says so.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.recv().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the guest has said is not in the file, so it has to be with its reader.
#[test]
fn a_machine_is_saved_once_its_output_is_read() {
    let path = std::env::temp_dir().join(format!("gemello-saved-{}-unread", std::process::id()));
    let (read, stuck) = std::sync::mpsc::channel();
    let com1 = Line { input: None, output: Some(Box::new(Stuck(stuck))) };
    let says = step(|guest| {
        guest.io.pio_write(layout::COM1, PortWidth::B1, u32::from(b'x'));
        Exit::SliceOver
    });
    let mut machine = machine(&config(), Lines { com1, ..Lines::default() }, vec![says]);
    let handle = machine.handle();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| machine.run());
        std::thread::sleep(std::time::Duration::from_millis(300)); // a line of 9600 baud
        let save = || handle.save_to(&path, &config().hardware(), || serde_json::Value::Null);
        let refused = save().expect_err("nobody has read it");
        assert!(matches!(refused, SaveError::Unread), "{refused}");
        assert_eq!((handle.phase(), path.exists()), (Phase::Running, false));
        read.send(()).expect("it waits");
        save().expect("it is read");
        handle.stop(End::PowerOff);
        run.join().expect("the run")
    });
    std::fs::remove_file(&path).expect("it is there");
}

fn restored(path: &Path) -> Result<Machine, String> {
    let mut saved = SavedMachine::open(path).map_err(|error| error.to_string())?;
    let engine = script_engine(vec![]);
    Machine::from_saved(&mut saved, Lines::default(), &engine).map_err(|error| error.to_string())
}

#[test]
fn a_machine_comes_back_from_a_file() {
    let path = saved_file("whole");
    let saved = SavedMachine::open(&path).expect("what was saved");
    assert_eq!(saved.header.session["told"], "again");
    assert!(std::fs::metadata(&path).expect("a file").len() < 1 << 20, "zeros are stored");
    let machine = restored(&path).expect("the same machine");
    let state = machine.save().expect("a state");
    assert_eq!(state.processors[0].cpu, saved.header.state.processors[0].cpu);
    assert_eq!(
        (state.now, state.guest_tsc),
        (saved.header.state.now, saved.header.state.guest_tsc)
    );
    let (mut was, mut is) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let original = self::machine(&config(), Lines::default(), vec![]);
    original.ram().read(Gpa(0x10_0000), &mut was).expect("RAM");
    machine.ram().read(Gpa(0x10_0000), &mut is).expect("RAM");
    assert!(was == is && was.iter().any(|&byte| byte != 0), "memory differs");
    std::fs::remove_file(path).expect("it is there");
}

/// The file `whole` with the state of another version, which has none of our fields.
fn other_state_version(whole: &[u8]) -> Vec<u8> {
    let header = serde_json::json!({ "machine": "another", "state": { "version": 9999 } });
    let header = serde_json::to_vec(&header).expect("plain data");
    let mut bytes = [&whole[..20], &(header.len() as u32).to_le_bytes(), &header].concat();
    bytes.extend([0xFF; 8]);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

#[test]
fn damaged_foreign_and_future_files_are_refused_by_name() {
    let path = saved_file("spoilt");
    let whole = std::fs::read(&path).expect("what was saved");
    let refused = |bytes: &[u8], why: &str| {
        std::fs::write(&path, bytes).expect("a file");
        let error = restored(&path).err().unwrap_or_else(|| panic!("taken though {why}"));
        assert!(error.contains(why) && error.contains("spoilt"), "{why}: {error}");
    };
    for len in [16, 20, 24, 100, whole.len() / 2, whole.len() - 13, whole.len() - 1] {
        refused(&whole[..len], "damaged");
    }
    for len in [0, 3] {
        refused(&whole[..len], "no saved machine");
    }
    refused(b"an ordinary file, longer than the magic", "no saved machine");
    let mut future = whole.clone();
    future[16] = 99;
    refused(&future, "version 99");
    refused(&other_state_version(&whole), "the saved state has version 9999");
    let mut longer = whole.clone();
    longer.push(0);
    refused(&longer, "more follows");
    // One bit anywhere behind the version.
    for at in (20..whole.len()).step_by(whole.len() / 61) {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1 << (at % 8);
        std::fs::write(&path, &spoilt).expect("a file");
        assert!(restored(&path).is_err(), "a bit is wrong in byte {at}");
    }
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn another_processor_memory_or_clock_is_refused() {
    let state = run_busy().save().expect("a state");
    let mut fresh = machine(&config(), Lines::default(), vec![]);
    let mut refused = |spoil: fn(&mut machine::MachineState), why: &str| {
        let mut spoilt = state.clone();
        spoil(&mut spoilt);
        let error = fresh.restore(&spoilt).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
    };
    refused(|s| s.cpu.push_str(",-avx"), "processor gemello-v2,-avx");
    refused(|s| s.memory[0].1 += 4096, "memory");
    refused(|s| s.processors[0].cpu.cpl = 9, "CPL");
    let path = saved_file("clock");
    let mut saved = SavedMachine::open(&path).expect("what was saved");
    saved.header.state.tsc_hz *= 2;
    let engine = script_engine(vec![]);
    let error =
        Machine::from_saved(&mut saved, Lines::default(), &engine).expect_err("twice as fast");
    assert!(error.to_string().contains("whose TSC runs as fast"), "{error}");
    std::fs::remove_file(&path).expect("it is there");
}

#[test]
fn no_header_of_a_saved_machine_does_harm() {
    let mut random = Rng::new(1);
    let length = setting("FUZZ_SECONDS").unwrap_or(4);
    let (mut tried, mut taken) = (0, 0);
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(length) {
        let changes = 1 + random.below(3);
        let data: Vec<u8> = (0..=12 * changes).map(|_| random.next() as u8).collect();
        tried += 1;
        taken += u32::from(machine::saved::fuzz::fuzz(&data));
    }
    // Neither is rare, or else the test tries nothing.
    assert!(taken > tried / 20 && taken < tried / 20 * 19, "{taken} of {tried} were taken");
}
