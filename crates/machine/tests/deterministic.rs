//! A deterministic machine's runs are the same, on each tier, and differ where what comes from
//! outside does.

mod support;

use engine_soft::{SoftEngine, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::console::{Input, Line};
use machine::{
    BootConfig, BuildError, Config, Digest, End, Lines, Machine, MachineState, Paging, layout,
};
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use support::guest::*;
use support::{Collector, PipeInput, config, script_engine};
use x86::addr::Gpa;

/// How many notes there are, and where they are.
const NOTED: u32 = 0x9000;
const NOTES: u32 = 0x2_0000;
/// Takes the next of 4096 notes, which is where EDI points then.
fn next_note(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(edi, 1)?;
    a.lock().xadd(dword_ptr(NOTED), edi)?;
    a.and(edi, 0xfff)?;
    a.shl(edi, 3)?;
    a.add(edi, NOTES)
}

/// The second processor: notes the time, for ever.
fn trampoline() -> Vec<u8> {
    assemble(16, 0, |a| {
        let mut again = a.create_label();
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.set_label(&mut again)?;
        a.mov(edi, 1)?;
        a.lock().xadd(dword_ptr(NOTED), edi)?;
        a.and(edi, 0xfff)?;
        a.rdtsc()?;
        a.pause()?;
        a.jmp(again)
    })
}

/// The first processor: notes what each clock shows, and what comes and goes on the serial line.
/// After some rounds it ends the run; it goes on if it is run again.
fn noting() -> Vec<u8> {
    const PM_TIMER: i32 = layout::ACPI_PM.0 as i32 + 8;
    const COM1: i32 = layout::COM1.0 as i32;
    let code = assemble(32, CODE, |a| {
        let (mut anew, mut again, mut quiet) =
            (a.create_label(), a.create_label(), a.create_label());
        a.mov(dword_ptr(SVR), 0x1FF)?;
        a.mov(dword_ptr(ICR_LOW), INIT)?;
        a.mov(dword_ptr(ICR_LOW), START_UP)?;
        a.set_label(&mut anew)?;
        a.mov(ebp, 20_000)?;
        a.set_label(&mut again)?;
        next_note(a)?;
        a.rdtsc()?;
        a.mov(dword_ptr(edi), eax)?;
        a.mov(dx, PM_TIMER)?;
        a.in_(eax, dx)?;
        a.mov(dword_ptr(edi + 4), eax)?;
        next_note(a)?;
        a.xor(eax, eax)?;
        a.out(0x43, al)?;
        a.in_(al, 0x40)?;
        a.mov(dword_ptr(edi), eax)?;
        a.xor(eax, eax)?;
        a.out(0x70, al)?;
        a.in_(al, 0x71)?;
        a.mov(dword_ptr(edi + 4), eax)?;
        // Polling LSR says that it waits for input.
        a.mov(dx, COM1 + 5)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(quiet)?;
        a.mov(dx, COM1)?;
        a.in_(al, dx)?;
        a.out(dx, al)?;
        next_note(a)?;
        a.rdtsc()?;
        a.mov(dword_ptr(edi), eax)?;
        a.set_label(&mut quiet)?;
        a.dec(ebp)?;
        a.jnz(again)?;
        a.rdtsc()?;
        a.mov(dx, COM1)?;
        a.out(dx, al)?;
        a.mov(al, DONE)?;
        a.out(DEBUG_EXIT, al)?;
        a.jmp(anew)
    });
    kernel(&code)
}

fn booting(image: Vec<u8>, cmdline: &str) -> Config {
    let boot = BootConfig { cmdline: cmdline.into(), ..boot(image) };
    // Its own time: as many instructions as nanoseconds.
    let timeout = Some(Duration::from_secs(20));
    Config { boot, debug_exit: true, deterministic: true, timeout, ..config() }
}

fn engine(tier: Tier) -> SoftEngine {
    SoftEngine { tier, count: true, ..SoftEngine::default() }
}

/// What is left of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    end: End,
    transcript: Vec<u8>,
    digest: Digest,
}

/// `machine` runs to its end; its first line's output is in `said`.
fn run(machine: &mut Machine, said: &Collector) -> Left {
    let end = machine.run();
    let transcript = said.0.lock().expect("not poisoned").clone();
    Left { end, transcript, digest: machine.digest().expect("it tells its state") }
}

fn left_by(config: &Config, tier: Tier, input: Option<Box<dyn Input>>) -> Left {
    let said = Collector::default();
    let com1 = Line { input, output: Some(Box::new(said.clone())) };
    let lines = Lines { com1, ..Lines::default() };
    let mut machine = Machine::build(config, lines, &engine(tier)).expect("a machine");
    machine.ram().write(Gpa(START), &trampoline()).expect("RAM");
    run(&mut machine, &said)
}

/// A file with `content` as input.
fn from_file(content: &[u8]) -> Box<dyn Input> {
    let name = format!("gemello-deterministic-{:?}", std::thread::current().id());
    let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let mut file =
        fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.as_mut().expect("a file");
    fs::remove_file(&path).expect("it is there");
    file.write_all(content).expect("room");
    file.rewind().expect("a file");
    let pipe = OwnedFd::from(file.try_clone().expect("a descriptor"));
    Box::new(PipeInput { pipe, queue: [].into(), ended: false, ahead: Default::default() })
}

#[test]
fn one_and_two_processors_do_the_same_each_time_on_each_tier() {
    for vcpus in [1, 2] {
        let config = Config { vcpus, ..booting(noting(), "") };
        let first = left_by(&config, Tier::Translate, None);
        assert_eq!(first.end, End::DebugExit(DONE as u8));
        for tier in [Tier::Translate, Tier::Interpret] {
            assert_eq!(left_by(&config, tier, None), first, "{vcpus} {tier:?}");
        }
        // The host's time is another each time.
        let config = Config { deterministic: false, ..config };
        let other = left_by(&config, Tier::Translate, None);
        assert_eq!(other.end, first.end);
        assert_ne!(other.digest.memory, first.digest.memory);
        let another = left_by(&config, Tier::Translate, None);
        assert_ne!(another.digest.memory, other.digest.memory);
    }
}

#[test]
fn a_files_bytes_come_at_the_same_instructions() {
    let config = booting(noting(), "");
    let text: Vec<u8> = (0..500).map(|n| b'a' + (n % 26) as u8).collect();
    let first = left_by(&config, Tier::Translate, Some(from_file(&text)));
    assert_eq!(first.transcript[..500], text);
    for tier in [Tier::Translate, Tier::Interpret] {
        assert_eq!(left_by(&config, tier, Some(from_file(&text))), first);
    }
    let other = left_by(&config, Tier::Translate, Some(from_file(b"other")));
    assert_ne!(other.digest.memory, first.digest.memory);
}

/// The nucleus is 64-bit code, with interrupts and processes.
#[test]
fn an_operating_system_does_the_same_each_time_on_each_tier() {
    for word in ["test=sleep", "test=multiprogramming", "test=demand"] {
        let config = booting(nucleus_image::NUCLEUS.into(), word);
        let first = left_by(&config, Tier::Translate, None);
        assert_eq!(first.end, End::DebugExit(0x10), "{word}");
        for tier in [Tier::Translate, Tier::Interpret] {
            assert_eq!(left_by(&config, tier, None), first, "{word} {tier:?}");
        }
    }
}

#[test]
fn a_restored_machine_goes_on_the_same_each_time() {
    let config = Config { vcpus: 2, ..booting(noting(), "") };
    let new = || Machine::build(&config, Lines::default(), &engine(Tier::Translate));
    let mut saved = new().expect("a machine");
    saved.ram().write(Gpa(START), &trampoline()).expect("RAM");
    assert_eq!(saved.run(), End::DebugExit(DONE as u8));
    let state: MachineState = saved.save().expect("it tells its state");
    let content = |region: &memory::Region| {
        let mut bytes = vec![0; region.len as usize];
        saved.ram().read(region.gpa, &mut bytes).expect("all of it");
        (region.gpa, bytes)
    };
    let memory: Vec<_> = saved.ram().regions().iter().map(content).collect();
    let go_on = || {
        let mut machine = new().expect("a machine");
        for (at, bytes) in &memory {
            machine.ram().write(*at, bytes).expect("as much");
        }
        machine.restore(&state).expect("its own state");
        run(&mut machine, &Collector::default())
    };
    let first = go_on();
    assert_eq!(first.end, End::DebugExit(DONE as u8));
    assert!(first.digest.time > state.now, "time does not begin anew");
    assert_eq!(go_on(), first);
}

#[test]
fn an_idle_machine_jumps_to_the_end_of_its_time() {
    let halted = kernel(&assemble(32, CODE, |a| {
        a.cli()?;
        a.hlt()
    }));
    let timeout = Some(Duration::from_secs(3600));
    let config = Config { timeout, ..booting(halted, "") };
    let began = Instant::now();
    let left = left_by(&config, Tier::Translate, None);
    assert_eq!((left.end, left.digest.time), (End::TimedOut, 3600 * 1_000_000_000));
    assert!(began.elapsed() < Duration::from_secs(600), "it waited");
}

#[test]
fn a_timeout_comes_at_the_same_instruction() {
    let config = Config { timeout: Some(Duration::from_micros(321)), ..booting(noting(), "") };
    let first = left_by(&config, Tier::Translate, None);
    assert_eq!((&first.end, first.digest.time), (&End::TimedOut, 321_000));
    assert_eq!(left_by(&config, Tier::Interpret, None), first);
}

#[test]
fn what_cannot_be_deterministic_is_refused() {
    let refused = |config: &Config, engine: &dyn vcpu::Engine| -> String {
        let built = Machine::build(config, Lines::default(), engine);
        built.map(|_| ()).map_err(|error: BuildError| error.to_string()).expect_err("refused")
    };
    let config = booting(noting(), "");
    let scripted = refused(&config, &script_engine(vec![]));
    assert!(scripted.contains("scripted engine does not count instructions"), "{scripted}");
    let paging = Some(Paging { resident: 8 << 20, swap: std::env::temp_dir() });
    let paged = refused(&Config { paging, ..config }, &engine(Tier::Translate));
    assert!(paged.contains("keeps all of its memory"), "{paged}");
}
