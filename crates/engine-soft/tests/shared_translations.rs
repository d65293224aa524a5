//! Processors of one machine share their translations: what one has translated the others find,
//! what one rewrites all run anew, and the cache stays as large as it may be.

mod long_mode;

use engine_soft::SoftEngine;
use iced_x86::code_asm::*;
use long_mode::assemble;
use memory::GuestRam;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use vcpu::{Elements, Engine as _, EngineVm, Exit, Kick, NoDevices, Slice, Vcpu, VmParts};
use x86::addr::{Gpa, VcpuId};
use x86::bus::PhysicalMemory as _;
use x86::cpuid::CpuModel;
use x86::state::{Activity, CpuState, gpr};

const MIB: u64 = 1 << 20;
/// Each processor's page tables.
const TABLES: u64 = 0x10_0000;
const TABLES_SIZE: u64 = 0x4000;
const CODE: u64 = 0x1_0000;
const OUT: u64 = 0x8_0000;
const STACK: u64 = 0x9_0000;
const PROCESSORS: u32 = 4;
/// What has not happened by then never will.
const SOON: Duration = Duration::from_secs(60);

/// One test at a time: the process's memory is looked at.
static ONE: Mutex<()> = Mutex::new(());

struct Machine {
    ram: GuestRam,
    vm: Box<dyn EngineVm>,
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// One with `code` at [`CODE`].
    fn new(code: &[u8]) -> Self {
        let one = sync::lock(&ONE);
        let ram = GuestRam::new(&[(Gpa(0), 4 * MIB)]).expect("some memory");
        ram.write(Gpa(CODE), code).expect("RAM");
        let engine = SoftEngine { code_cache: MIB as usize, count: true, ..SoftEngine::default() };
        let parts = VmParts { ram: ram.clone(), model: CpuModel::gemello_v2(), clock: None };
        Self { ram, vm: engine.create_vm(parts).expect("an engine"), _one: one }
    }

    fn put(&self, at: u64, value: u64) {
        self.ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    }

    fn get(&self, at: u64) -> u64 {
        self.ram.read_u64(Gpa(at))
    }

    /// Where processor `n` finds the page that holds the linear page of `la`, below 2 MiB.
    fn map(&self, n: u32, la: u64, gpa: u64) {
        self.put(tables(n) + 0x3000 + 8 * (la >> 12), gpa | 3);
    }

    /// Processor `n` in 64-bit mode at level 0, at `rip`, with all addresses below 2 MiB mapped
    /// where they are.
    fn processor(&self, n: u32, rip: u64) -> Box<dyn Vcpu> {
        for level in 0..3 {
            let at = tables(n) + 0x1000 * level;
            self.put(at, (at + 0x1000) | 3);
        }
        (0..512).for_each(|page| self.map(n, page << 12, page << 12));
        let mut state = long_mode::at(rip, tables(n));
        state.gpr[gpr::RSP] = STACK + 0x1000 * u64::from(n + 1);
        state.gpr[gpr::RDI] = n.into();
        let mut vcpu = self.vm.add_vcpu(VcpuId(n)).expect("a processor");
        vcpu.set(Elements::all(), &state).expect("a state");
        vcpu
    }

    /// Runs all of `vcpus` until `done`, which must be soon.
    fn until(&self, vcpus: &mut [Box<dyn Vcpu>], what: &str, done: impl Fn() -> bool) {
        let signals: Vec<_> = vcpus.iter().map(|vcpu| vcpu.signals()).collect();
        thread::scope(|scope| {
            for vcpu in vcpus {
                scope.spawn(|| {
                    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
                    assert!(matches!(exit, Exit::Kicked(_)), "{exit:?}");
                });
            }
            let end = Instant::now() + SOON;
            while !done() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            signals.iter().for_each(|signals| signals.kick(Kick::Stop));
        });
        assert!(done(), "{what}");
    }
}

fn tables(n: u32) -> u64 {
    TABLES + TABLES_SIZE * u64::from(n)
}

fn halts(vcpu: &mut dyn Vcpu) {
    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
    assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
}

/// What RBX is after `vcpu` has run from `rip` until it halts.
fn sum_from(vcpu: &mut dyn Vcpu, rip: u64) -> u64 {
    let mut state = CpuState::reset();
    vcpu.get(Elements::all(), &mut state).expect("its state");
    (state.rip, state.gpr[gpr::RBX], state.activity) = (rip, 0, Activity::Running);
    vcpu.set(Elements::all(), &state).expect("a state");
    halts(vcpu);
    vcpu.get(Elements::all(), &mut state).expect("its state");
    state.gpr[gpr::RBX]
}

/// A page of code: calls what is on the next one so many `times`, and halts.
fn calls(times: u32) -> Vec<u8> {
    let mut code = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(ecx, times)?;
        a.set_label(&mut again)?;
        a.call(CODE + 0x1000)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    code.resize(0x1000, 0x90);
    code
}

/// A loop with a call, on two pages.
fn warm_code() -> Vec<u8> {
    let mut code = calls(100_000);
    code.extend(assemble(CODE + 0x1000, |a| {
        a.add(rbx, rcx)?;
        a.ret()
    }));
    code
}

#[test]
fn what_one_has_translated_the_others_find() {
    let machine = Machine::new(&warm_code());
    let mut first = machine.processor(0, CODE);
    halts(&mut *first);
    let made = first.statistics();
    assert!(made.translated_blocks >= 2, "it was meant to be translated: {made:?}");
    for n in 1..PROCESSORS {
        let mut other = machine.processor(n, CODE);
        halts(&mut *other);
        let ran = other.statistics();
        assert_eq!(ran.translated_blocks, 0, "processor {n} has translated what was there");
        let most = ran.instructions * 99 / 100;
        assert!(ran.translated > most, "{} of {} translated", ran.translated, ran.instructions);
    }
}

/// The page after the code's is another for each: a branch goes where its own page tables say.
#[test]
fn a_branch_to_another_page_goes_by_each_ones_own_tables() {
    let code = calls(10_000);
    let machine = Machine::new(&code);
    let page = |n: u32| CODE + 0x1000 * u64::from(n + 1);
    let mut all: Vec<_> = (0..PROCESSORS).map(|n| machine.processor(n, CODE)).collect();
    for n in 0..PROCESSORS {
        let called = assemble(CODE + 0x1000, |a| {
            a.add(rbx, n as i32 + 1)?;
            a.ret()
        });
        machine.ram.write(Gpa(page(n)), &called).expect("RAM");
        machine.map(n, CODE + 0x1000, page(n));
    }
    for _ in 0..3 {
        for (n, vcpu) in (1..).zip(&mut all) {
            assert_eq!(sum_from(&mut **vcpu, CODE), 10_000 * n);
        }
    }
}

/// Mappings in this process of as many bytes as a code cache has.
fn code_areas() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let is_one = |line: &&str| {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        line.contains("gemello-") && range.is_some_and(|(a, b)| number(b) - number(a) == MIB)
    };
    maps.lines().filter(is_one).count()
}

/// Every processor rewrites a function of its own, calls it often enough to have it translated, and
/// checks what it says, for ever. All functions lie on one page.
fn rewriting_code() -> Vec<u8> {
    let mut code = assemble(CODE, |a| {
        let (mut round, mut again, mut wrong) =
            (a.create_label(), a.create_label(), a.create_label());
        // RSI: the function. RDX: what it is to say.
        a.mov(rsi, rdi)?;
        a.shl(rsi, 7)?;
        a.add(rsi, (CODE + 0x1000) as i32)?;
        a.set_label(&mut round)?;
        a.inc(edx)?;
        a.mov(dword_ptr(rsi + 1), edx)?;
        a.mov(ecx, 40)?;
        a.set_label(&mut again)?;
        a.call(rsi)?;
        a.cmp(eax, edx)?;
        a.jne(wrong)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(qword_ptr(rdi * 8 + OUT as i32), rdx)?;
        a.jmp(round)?;
        a.set_label(&mut wrong)?;
        a.hlt()
    });
    code.resize(0x1000, 0x90);
    for n in 0..u64::from(PROCESSORS) {
        code.resize(0x1000 + 128 * n as usize, 0x90);
        code.extend(assemble(CODE + 0x1000 + 128 * n, |a| {
            a.mov(eax, 0)?;
            // Room in the cache.
            for _ in 0..16 {
                a.push(rax)?;
                a.pop(rbx)?;
            }
            a.ret()
        }));
    }
    code
}

/// The cache fills and is emptied again and again. Beside the four, one never leaves translated
/// code by itself, and one is parked with what it had.
#[test]
fn code_that_is_rewritten_for_ever_takes_no_more_memory() {
    const FLUSHES: u64 = 4;
    let machine = Machine::new(&rewriting_code());
    let spin = CODE + 0x3000;
    machine.ram.write(Gpa(spin), &[0xeb, 0xfe]).expect("RAM");
    let halting = CODE + 0x4000;
    machine.ram.write(Gpa(halting), &warm_code()).expect("RAM");
    let mut parked = machine.processor(PROCESSORS + 1, halting);
    halts(&mut *parked);
    let mut all: Vec<_> = (0..PROCESSORS).map(|n| machine.processor(n, CODE)).collect();
    all.push(machine.processor(PROCESSORS, spin));
    let before = code_areas();
    let rounds = |n: u32| machine.get(OUT + 8 * u64::from(n));
    let mut most = 0;
    while all[0].statistics().translator.expect("it translates").flushes < FLUSHES {
        let from: Vec<_> = (0..PROCESSORS).map(rounds).collect();
        machine.until(&mut all, "they do not go on", || {
            (0..PROCESSORS).all(|n| rounds(n) >= from[n as usize] + 1000)
        });
        most = most.max(code_areas());
    }
    // Two mappings of one generation more than before.
    assert!(most <= before + 2, "{most} mappings, and {before} before");
    let flushes = all[PROCESSORS as usize].statistics().translator.expect("it translates").flushes;
    assert!(flushes + 2 >= FLUSHES, "the one that spins has moved {flushes} times");
    assert_eq!(sum_from(&mut *parked, halting), 100_000 * 100_001 / 2);
}
