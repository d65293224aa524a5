//! Machines of several processors: how they are started, told apart, saved and reset.

mod support;

use engine_soft::{SoftEngine, Tier};
use iced_x86::code_asm::*;
use machine::{Config, End, Lines, Machine};
use std::time::Duration;
use support::config;
use support::guest::*;
use x86::addr::Gpa;

/// How many have started.
const STARTED: u64 = 0x9000;
/// A dword for each APIC id: what CPUID leaves 1 and BH said of it.
const SEEN: u64 = 0x9100;
/// Said where the run ends: a processor started twice.
const TWICE: u32 = 0x22;

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

/// The bootstrap processor: starts the `others` in each of `rounds`, from whatever they do, with
/// `between` turns of a loop between INIT and start-up, and waits until each has counted itself
/// once. The start-up IPI comes twice, as operating systems send it.
fn starts(others: u32, rounds: u32, between: u32) -> Vec<u8> {
    let code = assemble(32, CODE, |a| {
        let (mut round, mut delay) = (a.create_label(), a.create_label());
        let (mut wait, mut late) = (a.create_label(), a.create_label());
        let mut end = a.create_label();
        a.mov(dword_ptr(SVR), 0x1FF)?;
        a.mov(ebp, rounds)?;
        a.set_label(&mut round)?;
        a.mov(dword_ptr(STARTED as u32), 0)?;
        a.mov(dword_ptr(ICR_LOW), INIT)?;
        a.mov(ecx, between + 1)?;
        a.set_label(&mut delay)?;
        a.pause()?;
        a.dec(ecx)?;
        a.jnz(delay)?;
        a.mov(dword_ptr(ICR_LOW), START_UP)?;
        a.mov(dword_ptr(ICR_LOW), START_UP)?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(STARTED as u32), others)?;
        a.jb(wait)?;
        // One that the second start-up IPI has started anew would count again.
        a.mov(dword_ptr(ICR_LOW), START_UP)?;
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
    // The processors wait for each other, and for their turns on a busy host.
    let timeout = Some(Duration::from_secs(60));
    let config = Config { vcpus, boot: boot(image), debug_exit: true, timeout, ..config() };
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
