//! Machines of several processors: how they are started, told apart, saved and reset.

mod support;

use engine_soft::{SoftEngine, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{BootConfig, Config, End, File, Lines, Machine, layout};
use std::time::Duration;
use support::config;
use x86::addr::Gpa;

/// Where the start-up IPI begins: its page, and the page's number.
const START: u64 = 0x8000;
const START_PAGE: u32 = 0x08;
/// How many have started.
const STARTED: u64 = 0x9000;
/// A dword for each APIC id: what CPUID leaves 1 and BH said of it.
const SEEN: u64 = 0x9100;
/// The local APIC (SDM vol. 3, table 12-1).
const SVR: u64 = layout::LAPIC.0 + 0xF0;
const ICR_LOW: u64 = layout::LAPIC.0 + 0x300;
/// ICR: to all but the sender; INIT, asserted; start-up.
const OTHERS: u32 = 3 << 18;
const INIT: u32 = 5 << 8 | 1 << 14;
const START_UP: u32 = 6 << 8 | 1 << 14 | START_PAGE;
/// Where the kernel is.
const KERNEL: u64 = 0x10_0000;
/// The port that ends the run.
const DEBUG_EXIT: u32 = 0xF4;
/// What is said there: all went well; a processor started twice.
const DONE: u32 = 0x55;
const TWICE: u32 = 0x22;

fn assemble(
    bits: u32,
    at: u64,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("16, 32 or 64 bits");
    write(&mut a).and_then(|()| a.assemble(at)).expect("it assembles")
}

/// What a started processor does, in real mode: tells what it is, and counts itself. Those with an
/// even APIC id then halt, the others spin.
fn trampoline() -> Vec<u8> {
    assemble(16, 0, |a| {
        let mut spin = a.create_label();
        let mut halt = a.create_label();
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(eax, 0xB)?;
        a.xor(ecx, ecx)?;
        a.cpuid()?;
        a.mov(esi, edx)?;
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.shr(ebx, 24)?;
        a.shl(ebx, 16)?;
        a.or(ebx, esi)?;
        a.or(ebx, 0x4000)?;
        a.mov(di, si)?;
        a.shl(di, 2)?;
        a.mov(dword_ptr(di + SEEN as i32), ebx)?;
        a.lock().inc(dword_ptr(STARTED))?;
        a.test(si, 1)?;
        a.jz(halt)?;
        a.set_label(&mut spin)?;
        a.pause()?;
        a.jmp(spin)?;
        a.set_label(&mut halt)?;
        a.cli()?;
        a.hlt()?;
        a.jmp(halt)
    })
}

/// A Multiboot kernel of `code`, which follows its header (Multiboot 0.6.96, 3.1.3).
fn kernel(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const FLAGS: u32 = 1 << 16;
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(FLAGS);
    let (at, end) = (KERNEL as u32, KERNEL as u32 + 32 + code.len() as u32);
    let words = [MAGIC, FLAGS, checksum, at, at, end, end, at + 32];
    let header = words.iter().flat_map(|word| word.to_le_bytes());
    header.chain(code.iter().copied()).collect()
}

/// The bootstrap processor: starts the `others` in each of `rounds`, from whatever they do, with
/// `between` turns of a loop between INIT and start-up, and waits until each has counted itself
/// once. The start-up IPI comes twice, as operating systems send it.
fn starts(others: u32, rounds: u32, between: u32) -> Vec<u8> {
    let code = assemble(32, KERNEL + 32, |a| {
        let (mut round, mut delay) = (a.create_label(), a.create_label());
        let (mut wait, mut late) = (a.create_label(), a.create_label());
        let mut end = a.create_label();
        a.mov(dword_ptr(SVR as u32), 0x1FF)?;
        a.mov(ebp, rounds)?;
        a.set_label(&mut round)?;
        a.mov(dword_ptr(STARTED as u32), 0)?;
        a.mov(dword_ptr(ICR_LOW as u32), OTHERS | INIT)?;
        a.mov(ecx, between + 1)?;
        a.set_label(&mut delay)?;
        a.pause()?;
        a.dec(ecx)?;
        a.jnz(delay)?;
        a.mov(dword_ptr(ICR_LOW as u32), OTHERS | START_UP)?;
        a.mov(dword_ptr(ICR_LOW as u32), OTHERS | START_UP)?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(STARTED as u32), others)?;
        a.jb(wait)?;
        // One that the second start-up IPI has started anew would count again.
        a.mov(dword_ptr(ICR_LOW as u32), OTHERS | START_UP)?;
        a.mov(ecx, 100)?;
        a.set_label(&mut late)?;
        a.pause()?;
        a.dec(ecx)?;
        a.jnz(late)?;
        a.mov(al, TWICE)?;
        a.cmp(dword_ptr(STARTED as u32), others)?;
        a.jne(end)?;
        a.dec(ebp)?;
        a.jnz(round)?;
        a.mov(al, DONE)?;
        a.set_label(&mut end)?;
        a.out(DEBUG_EXIT, al)?;
        a.hlt()
    });
    kernel(&code)
}

/// A machine of `vcpus` processors with `image`, which has its boot trampoline in memory.
fn machine(vcpus: u32, image: Vec<u8>, tier: Tier) -> Machine {
    let kernel = File::Bytes { name: "test kernel".into(), bytes: image.into() };
    let boot = BootConfig { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    // The processors wait for each other, and for their turns on a busy host.
    let timeout = Some(Duration::from_secs(60));
    let config = Config { vcpus, boot, debug_exit: true, timeout, ..config() };
    let engine = SoftEngine { tier, code_cache: 1 << 20, count: false };
    let machine = Machine::build(&config, Lines::default(), &engine).expect("a machine");
    machine.ram().write(Gpa(START), &trampoline()).expect("RAM");
    machine
}

#[test]
fn each_processor_starts_once_for_each_init_and_knows_itself() {
    for (vcpus, rounds, between) in [(2, 100, 0), (3, 50, 30), (8, 20, 0), (16, 10, 5)] {
        for tier in [Tier::Interpret, Tier::Translate] {
            let mut machine = machine(vcpus, starts(vcpus - 1, rounds, between), tier);
            assert_eq!(machine.run(), End::DebugExit(DONE as u8), "{vcpus} {tier:?}");
            for id in 0..64 {
                let mut seen = [0; 4];
                machine.ram().read(Gpa(SEEN + 4 * id), &mut seen).expect("RAM");
                let there = (1..u64::from(vcpus)).contains(&id);
                let expected = if there { id << 16 | 0x4000 | id } else { 0 };
                assert_eq!(u64::from(u32::from_le_bytes(seen)), expected, "APIC id {id}");
            }
            let stats = machine.stats();
            assert_eq!(stats.processors.len(), vcpus as usize);
            assert!(stats.processors.iter().skip(1).all(|one| one.exits.reset > u64::from(rounds)));
        }
    }
}

#[test]
fn all_processors_are_saved_and_restored() {
    let run = || {
        let mut machine = machine(4, starts(3, 1, 0), Tier::Translate);
        assert_eq!(machine.run(), End::DebugExit(DONE as u8));
        machine
    };
    let (before, mut other) = (run(), run());
    let saved = before.save().expect("the engine tells its state");
    assert_eq!(saved.processors.len(), 4);
    other.restore(&saved).expect("its own state");
    assert_eq!(other.save().expect("the engine tells its state"), saved);
    let mut fewer = machine(3, starts(2, 1, 0), Tier::Translate);
    let refused = fewer.restore(&saved).expect_err("another number of processors");
    assert!(refused.to_string().contains("4 processors"), "{refused}");
}
