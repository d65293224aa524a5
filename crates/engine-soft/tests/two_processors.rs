//! Two processors on one RAM: what one does to memory the other sees, on both tiers, whatever it
//! runs, and whether or not they share their translations.

mod long_mode;

use engine_soft::{CODE_CACHE, SoftVcpu, Tier};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use long_mode::assemble;
use memory::GuestRam;
use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vcpu::{Elements, Exit, Kick, NoDevices, Signals, Slice, Vcpu};
use x86::addr::Gpa;
use x86::bus::PhysicalMemory as _;
use x86::cpuid::CpuModel;
use x86::state::{Activity, gpr};

const GDT: u64 = 0x6000;
const TABLES: u64 = 0x1000;
/// Each processor's code has a page, and one for what it calls.
const CODE: [u64; 2] = [0x1_0000, 0x2_0000];
const CALLED: u64 = 0x3_0000;
const STACK: [u64; 2] = [0x4_1000, 0x4_3000];
/// What they tell each other; no code.
const FLAG: u64 = 0x5_0000;
const ACK: u64 = 0x5_1000;
const OUT: [u64; 2] = [0x5_2000, 0x5_3000];
/// What is taken away.
const DATA: u64 = 0x6_0000;
/// More data pages, for dirty tracking.
const MANY: u64 = 0x10_0000;
const MANY_PAGES: u64 = 64;
/// What has not happened by then never will.
const SOON: Duration = Duration::from_secs(20);

fn ram() -> GuestRam {
    let ram = GuestRam::new(&[(Gpa(0), 4 << 20)]).expect("some memory");
    let put = |at: u64, value: u64| ram.write(Gpa(at), &value.to_le_bytes()).expect("in RAM");
    put(TABLES, (TABLES + 0x1000) | 3);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    for n in 0..2 {
        put(TABLES + 0x2000 + 8 * n, n << 21 | 0x83);
    }
    put(GDT + 8, 0x00af_9b00_0000_ffff);
    put(GDT + 16, 0x00cf_9300_0000_ffff);
    ram
}

/// How processors run.
struct How {
    tier: Tier,
    /// They have the translations of this one, which runs nothing; of each RAM its own.
    first: Option<RefCell<Option<(usize, SoftVcpu)>>>,
}

impl How {
    fn translates(&self) -> bool {
        self.tier == Tier::Translate
    }

    fn make(&self, ram: &GuestRam) -> SoftVcpu {
        let new = || {
            SoftVcpu::with_tier(ram.clone(), CpuModel::gemello_v2(), self.tier, CODE_CACHE / 16)
                .expect("an engine")
        };
        let Some(first) = &self.first else { return new() };
        let which = ram.host_address(Gpa(0), 1).expect("RAM") as usize;
        let mut first = first.borrow_mut();
        if first.as_ref().is_none_or(|(other, _)| *other != which) {
            *first = Some((which, new()));
        }
        let (_, first) = first.as_ref().expect("just made");
        first.sibling(self.tier).expect("an engine")
    }
}

/// A processor in 64-bit mode at level 0, at `rip`.
fn processor(ram: &GuestRam, how: &How, n: usize, rip: u64) -> SoftVcpu {
    let mut state = long_mode::at(rip, TABLES);
    state.gdtr.base = GDT;
    state.gdtr.limit = 23;
    state.gpr[gpr::RSP] = STACK[n];
    let mut vcpu = how.make(ram);
    if how.translates() {
        vcpu.translate_at_once();
    }
    vcpu.set(Elements::all(), &state).expect("a state");
    vcpu
}

/// Where `code`, at `at`, has the immediate operand `imm`.
fn operand(at: u64, code: &[u8], imm: u32) -> u64 {
    let found = code.windows(4).position(|bytes| bytes == imm.to_le_bytes());
    at + found.expect("it has that operand") as u64
}

/// What is replaced in code.
const PATCHED: u32 = 0x7654_3210;

/// Stops a processor when it is dropped, so that a failing test ends.
struct Stop(Vec<Arc<Signals>>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.iter().for_each(|signals| signals.kick(Kick::Stop));
    }
}

/// Runs all `vcpus` until `body` has returned; they are then kicked. None may end by itself.
fn beside(vcpus: &mut [SoftVcpu], body: impl FnOnce()) {
    let stop = Stop(vcpus.iter().map(SoftVcpu::signals).collect());
    thread::scope(|scope| {
        for vcpu in vcpus {
            scope.spawn(|| {
                let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
                assert!(matches!(exit, Exit::Kicked(_)), "{exit:?}: {:#x?}", vcpu.state_now().gpr);
            });
        }
        body();
        drop(stop);
    });
}

/// Waits until `done`, which must be soon.
fn soon(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

fn on_both_tiers(test: impl Fn(&How)) {
    test(&How { tier: Tier::Interpret, first: None });
    test(&How { tier: Tier::Translate, first: None });
    test(&How { tier: Tier::Translate, first: Some(RefCell::default()) });
}

/// A loop at `at` that tells what its own operand is.
fn telling_loop(at: u64, out: u64) -> Vec<u8> {
    assemble(at, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(eax, PATCHED)?;
        a.mov(dword_ptr(out), eax)?;
        a.jmp(again)
    })
}

/// Runs guest code on `vcpu` that stores `value` at `place`.
fn store(vcpu: &mut SoftVcpu, place: u64, value: u64) {
    let mut state = vcpu.state_now().clone();
    (state.rip, state.activity) = (CODE[1], Activity::Running);
    (state.gpr[gpr::RDI], state.gpr[gpr::RAX]) = (place, value);
    vcpu.set(Elements::all(), &state).expect("a state");
    assert!(matches!(vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED), Exit::Halted(_)));
}

fn storing_code() -> Vec<u8> {
    assemble(CODE[1], |a| {
        a.mov(dword_ptr(rdi), eax)?;
        a.hlt()
    })
}

/// Nobody interrupts the loop: it must see the change all the same.
#[test]
fn a_loop_that_the_other_patches_goes_on_as_patched() {
    on_both_tiers(|how| {
        let ram = ram();
        let code = telling_loop(CODE[0], OUT[0]);
        ram.write(Gpa(CODE[0]), &code).expect("RAM");
        ram.write(Gpa(CODE[1]), &storing_code()).expect("RAM");
        let place = operand(CODE[0], &code, PATCHED);
        let mut runs = [processor(&ram, how, 0, CODE[0])];
        let mut patches = processor(&ram, how, 1, CODE[1]);
        // The right to write the page is in its TLB before the other makes that a code page.
        store(&mut patches, CODE[0] + 0x800, 1);
        beside(&mut runs, || {
            for n in 0..100 {
                store(&mut patches, place, n);
                soon("the loop is as it was", || ram.read_u32(Gpa(OUT[0])) == n as u32);
            }
        });
        if how.translates() {
            assert!(runs[0].statistics().translated_blocks > 20, "it was meant to be translated");
        }
    });
}

/// The writer had the right to write the page before it was code, and keeps writing while the other
/// decodes, again and again.
#[test]
fn a_processor_that_writes_already_is_seen_by_one_that_begins_to_run_that() {
    on_both_tiers(|how| {
        for round in 0..8 {
            let ram = ram();
            let code = telling_loop(CODE[0], OUT[0]);
            let place = operand(CODE[0], &code, PATCHED);
            ram.write(Gpa(CODE[0]), &code).expect("RAM");
            let writing = assemble(CODE[1], |a| {
                let mut again = a.create_label();
                a.set_label(&mut again)?;
                a.mov(ecx, dword_ptr(FLAG))?;
                a.mov(dword_ptr(place), ecx)?;
                a.mov(dword_ptr(OUT[1]), ecx)?;
                a.jmp(again)
            });
            ram.write(Gpa(CODE[1]), &writing).expect("RAM");
            let set = |n: u32| ram.write(Gpa(FLAG), &n.to_le_bytes()).expect("RAM");
            set(1);
            let mut writes = [processor(&ram, how, 1, CODE[1])];
            let mut runs = [processor(&ram, how, 0, CODE[0])];
            beside(&mut writes, || {
                soon("it writes", || ram.read_u32(Gpa(OUT[1])) == 1);
                beside(&mut runs, || {
                    for n in 2..6 + round {
                        set(n);
                        soon("the loop is as it was", || ram.read_u32(Gpa(OUT[0])) == n);
                    }
                });
            });
        }
    });
}

#[test]
fn a_call_goes_to_what_the_other_has_put_there() {
    on_both_tiers(|how| {
        let ram = ram();
        let caller = assemble(CODE[0], |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.call(CALLED)?;
            a.mov(dword_ptr(OUT[0]), eax)?;
            a.jmp(again)
        });
        let called = assemble(CALLED, |a| {
            a.mov(eax, PATCHED)?;
            a.ret()
        });
        ram.write(Gpa(CODE[0]), &caller).expect("RAM");
        ram.write(Gpa(CALLED), &called).expect("RAM");
        ram.write(Gpa(CODE[1]), &storing_code()).expect("RAM");
        let place = operand(CALLED, &called, PATCHED);
        let mut runs = [processor(&ram, how, 0, CODE[0])];
        let mut patches = processor(&ram, how, 1, CODE[1]);
        beside(&mut runs, || {
            for n in 0..100 {
                store(&mut patches, place, n);
                soon("the callee is as it was", || ram.read_u32(Gpa(OUT[0])) == n as u32);
            }
        });
    });
}

/// Cross-modifying code as the manual has it (SDM vol. 3, 10.1.3): one writes code and then a flag;
/// the other reads the flag, serializes, and runs the code, which must not be older than the flag.
/// `serialize` may change any register but RSI and RSP.
fn next_instruction_after(serialize: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    const ROUNDS: u32 = 500;
    on_both_tiers(|how| {
        let ram = ram();
        let reads = assemble(CODE[0], |a| {
            let (mut again, mut stale) = (a.create_label(), a.create_label());
            a.set_label(&mut again)?;
            a.mov(esi, dword_ptr(FLAG))?;
            serialize(a)?;
            a.mov(eax, PATCHED)?;
            a.cmp(eax, esi)?;
            a.jb(stale)?;
            a.mov(dword_ptr(ACK), esi)?;
            a.jmp(again)?;
            a.set_label(&mut stale)?;
            a.cli()?;
            a.hlt()
        });
        let place = operand(CODE[0], &reads, PATCHED);
        let writes = assemble(CODE[1], |a| {
            let (mut again, mut wait) = (a.create_label(), a.create_label());
            a.set_label(&mut again)?;
            a.inc(edi)?;
            a.mov(dword_ptr(place), edi)?;
            a.mov(dword_ptr(FLAG), edi)?;
            a.set_label(&mut wait)?;
            a.cmp(dword_ptr(ACK), edi)?;
            a.jne(wait)?;
            a.jmp(again)
        });
        ram.write(Gpa(CODE[0]), &reads).expect("RAM");
        ram.write(Gpa(CODE[1]), &writes).expect("RAM");
        let mut both = [processor(&ram, how, 0, CODE[0]), processor(&ram, how, 1, CODE[1])];
        beside(&mut both, || {
            soon("they do not get on", || ram.read_u32(Gpa(ACK)) >= ROUNDS);
        });
    });
}

#[test]
fn the_instruction_after_cpuid_is_the_one_that_is_there() {
    next_instruction_after(|a| {
        a.xor(eax, eax)?;
        a.cpuid()
    });
}

#[test]
fn the_instruction_after_iret_is_the_one_that_is_there() {
    next_instruction_after(|a| {
        let mut next = a.create_label();
        a.mov(rcx, rsp)?;
        a.push(0x10)?;
        a.push(rcx)?;
        a.pushfq()?;
        a.push(8)?;
        a.lea(rax, ptr(next))?;
        a.push(rax)?;
        a.iretq()?;
        a.set_label(&mut next)
    });
}

#[test]
fn the_instruction_after_a_move_to_cr3_is_the_one_that_is_there() {
    next_instruction_after(|a| {
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)
    });
}

/// What a device (here: this thread) writes to code that both run.
#[test]
fn both_run_what_a_device_has_written() {
    on_both_tiers(|how| {
        let ram = ram();
        let mut place = [0; 2];
        for n in 0..2 {
            // On one page.
            let at = CALLED + 0x100 * n as u64;
            let code = telling_loop(at, OUT[n]);
            ram.write(Gpa(at), &code).expect("RAM");
            place[n] = operand(at, &code, PATCHED);
        }
        let mut both = [0, 1].map(|n| processor(&ram, how, n, CALLED + 0x100 * n as u64));
        beside(&mut both, || {
            for n in 0..100_u32 {
                for place in place {
                    ram.write(Gpa(place), &n.to_le_bytes()).expect("RAM");
                }
                ram.wrote(Gpa(place[0]), place[1] + 4 - place[0]);
                let seen = |out: &u64| ram.read_u32(Gpa(*out)) == n;
                soon("somebody runs what was there", || OUT.iter().all(seen));
            }
        });
    });
}

/// One changes a word of which half lies on each page; the other stores to the second half.
#[test]
fn a_locked_change_over_two_pages_loses_no_store() {
    const TIMES: u32 = 40_000;
    const WORD: u64 = DATA + 0xffc;
    let counts = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.mov(ecx, TIMES)?;
        a.set_label(&mut again)?;
        a.lock().add(qword_ptr(WORD), 2)?;
        a.lock().btc(qword_ptr(WORD), 0)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(dword_ptr(FLAG), 1)?;
        a.hlt()
    };
    let stores = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(dword_ptr(WORD + 4))?;
        a.inc(rbx)?;
        a.cmp(dword_ptr(FLAG), 0)?;
        a.je(again)?;
        a.hlt()
    };
    on_both_tiers(|how| {
        let ram = ram();
        ram.write(Gpa(CODE[0]), &assemble(CODE[0], counts)).expect("RAM");
        ram.write(Gpa(CODE[1]), &assemble(CODE[1], stores)).expect("RAM");
        let mut vcpus = [0, 1].map(|n| processor(&ram, how, n, CODE[n]));
        let before = vcpus[1].state_now().gpr[gpr::RBX];
        thread::scope(|scope| {
            for vcpu in &mut vcpus {
                scope.spawn(|| {
                    let exit = vcpu.run(&mut NoDevices, Slice::UNTIL_KICKED);
                    assert!(matches!(exit, Exit::Halted(_)), "{exit:?}");
                });
            }
        });
        let stored = vcpus[1].state_now().gpr[gpr::RBX].wrapping_sub(before) as u32;
        assert_eq!(ram.read_u32(Gpa(WORD)), 2 * TIMES);
        assert_eq!(ram.read_u32(Gpa(WORD + 4)), stored);
    });
}

/// A page is taken away under both while they write to it.
#[test]
fn no_write_lands_on_a_page_that_was_taken_and_none_is_lost() {
    on_both_tiers(|how| {
        let ram = ram();
        for (n, at) in CODE.into_iter().enumerate() {
            let code = assemble(at, |a| {
                let mut again = a.create_label();
                a.set_label(&mut again)?;
                a.lock().inc(qword_ptr(DATA))?;
                a.inc(rbx)?;
                a.inc(qword_ptr(DATA + 0x100 + 8 * n as u64))?;
                a.push(rbx)?;
                a.pop(rcx)?;
                a.jmp(again)
            });
            ram.write(Gpa(at), &code).expect("RAM");
        }
        let mut both = [0, 1].map(|n| processor(&ram, how, n, CODE[n]));
        let mut page = vec![0; 0x1000];
        beside(&mut both, || {
            soon("both write", || (0..2).all(|n| ram.read_u64(Gpa(DATA + 0x100 + 8 * n)) != 0));
            for n in 0..100_u64 {
                ram.revoke(Gpa(DATA), 0x1000).expect("not pinned");
                ram.read(Gpa(DATA), &mut page).expect("RAM");
                let elsewhere = vec![n as u8 | 0x80; 0x1000];
                ram.write(Gpa(DATA), &elsewhere).expect("RAM");
                thread::sleep(Duration::from_micros(n % 8 * 50));
                let mut now = vec![0; 0x1000];
                ram.read(Gpa(DATA), &mut now).expect("RAM");
                assert!(now == elsewhere, "somebody wrote");
                ram.write(Gpa(DATA), &page).expect("RAM");
                let before = ram.read_u64(Gpa(DATA));
                ram.restore(Gpa(DATA), 0x1000).expect("RAM");
                soon("they go on", || ram.read_u64(Gpa(DATA)) > before);
            }
        });
        let counts = both.each_ref().map(|vcpu| vcpu.state_now().gpr[gpr::RBX]);
        for (n, &count) in counts.iter().enumerate() {
            let own = ram.read_u64(Gpa(DATA + 0x100 + 8 * n as u64));
            assert!(count - own <= 1, "{count} and {own}");
        }
        let sum = ram.read_u64(Gpa(DATA));
        let counted: u64 = counts.iter().sum();
        assert!((counted..=counted + 2).contains(&sum), "{sum} writes of {counts:?}");
    });
}

/// Neither decoded code nor instruction translations outlive the page they came from.
#[test]
fn code_on_a_page_that_was_taken_is_what_came_back() {
    on_both_tiers(|how| {
        let ram = ram();
        for (n, out) in OUT.into_iter().enumerate() {
            let at = CALLED + 0x100 * n as u64;
            ram.write(Gpa(at), &telling_loop(at, out)).expect("RAM");
        }
        let place = operand(CALLED, &telling_loop(CALLED, OUT[0]), PATCHED);
        let mut both = [0, 1].map(|n| processor(&ram, how, n, CALLED + 0x100 * n as u64));
        beside(&mut both, || {
            for n in 0..60_u32 {
                ram.revoke(Gpa(CALLED), 0x1000).expect("not pinned");
                let still = OUT.map(|out| ram.read_u32(Gpa(out)));
                for place in [place, place + 0x100] {
                    ram.write(Gpa(place), &n.to_le_bytes()).expect("RAM");
                }
                assert_eq!(OUT.map(|out| ram.read_u32(Gpa(out))), still, "both wait");
                ram.restore(Gpa(CALLED), 0x1000).expect("RAM");
                let seen = |out: &u64| ram.read_u32(Gpa(*out)) == n;
                soon("somebody runs what was there", || OUT.iter().all(seen));
            }
        });
    });
}

/// The tables that lead to everything are away now and then: nobody may take what lies there
/// instead for a table.
#[test]
fn page_tables_that_were_taken_are_waited_for() {
    on_both_tiers(|how| {
        let ram = ram();
        let code = assemble(CODE[0], |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
            a.inc(dword_ptr(OUT[0]))?;
            a.jmp(again)
        });
        ram.write(Gpa(CODE[0]), &code).expect("RAM");
        let mut one = [processor(&ram, how, 0, CODE[0])];
        let mut tables = vec![0; 0x3000];
        beside(&mut one, || {
            for _ in 0..200 {
                ram.revoke(Gpa(TABLES), 0x3000).expect("not pinned");
                ram.read(Gpa(TABLES), &mut tables).expect("RAM");
                ram.write(Gpa(TABLES), &[0; 0x3000]).expect("RAM");
                thread::yield_now();
                ram.write(Gpa(TABLES), &tables).expect("RAM");
                let before = ram.read_u32(Gpa(OUT[0]));
                ram.restore(Gpa(TABLES), 0x3000).expect("RAM");
                soon("it goes on", || ram.read_u32(Gpa(OUT[0])) != before);
            }
        });
    });
}

/// Memory is copied while both write all over it: what is copied again are the dirty pages alone,
/// and that is all there is.
#[test]
fn dirty_pages_are_all_that_has_changed() {
    on_both_tiers(|how| {
        let ram = ram();
        for (n, at) in CODE.into_iter().enumerate() {
            // A word on one page after the other, by a linear congruence.
            let code = assemble(at, |a| {
                let mut again = a.create_label();
                a.mov(ecx, 0x1234_5678 + n as u32)?;
                a.set_label(&mut again)?;
                a.imul_3(ecx, ecx, 1_103_515_245)?;
                a.add(ecx, 12_345)?;
                a.mov(eax, ecx)?;
                a.shr(eax, 8)?;
                a.and(eax, (MANY_PAGES as i32 - 1) << 12 | 0xff8)?;
                a.add(dword_ptr(rax + MANY), ecx)?;
                a.inc(dword_ptr(OUT[n]))?;
                a.jmp(again)
            });
            ram.write(Gpa(at), &code).expect("RAM");
        }
        let mut both = [0, 1].map(|n| processor(&ram, how, n, CODE[n]));
        let mut copy = vec![0; ram.size() as usize];
        let mut copied = 0;
        let mut take = |ram: &GuestRam, copy: &mut [u8]| {
            for dirty in ram.take_dirty() {
                let at = dirty.start.0 as usize..dirty.end.0 as usize;
                ram.read(dirty.start, &mut copy[at]).expect("RAM");
                copied += 1;
            }
        };
        beside(&mut both, || {
            soon("both write", || OUT.iter().all(|&out| ram.read_u32(Gpa(out)) > 100));
            ram.track_dirty();
            ram.read(Gpa(0), &mut copy).expect("RAM");
            for _ in 0..50 {
                let before = OUT.map(|out| ram.read_u32(Gpa(out)));
                soon("they go on", || {
                    (0..2).all(|n| ram.read_u32(Gpa(OUT[n])).wrapping_sub(before[n]) > 50)
                });
                take(&ram, &mut copy);
            }
        });
        take(&ram, &mut copy);
        let mut all = vec![0; copy.len()];
        ram.read(Gpa(0), &mut all).expect("RAM");
        assert!(copied > 50, "nothing was dirty");
        assert!(all == copy, "a write was not noticed");
    });
}

/// A processor that does not run holds up nobody, and has taken note when it runs again.
#[test]
fn one_that_sleeps_is_not_waited_for() {
    on_both_tiers(|how| {
        let ram = ram();
        ram.write(Gpa(CODE[1]), &storing_code()).expect("RAM");
        let mut sleeper = processor(&ram, how, 1, CODE[1]);
        store(&mut sleeper, DATA, 1);
        ram.revoke(Gpa(DATA), 0x1000).expect("nobody runs");
        ram.write(Gpa(DATA), &[0; 8]).expect("RAM");
        ram.restore(Gpa(DATA), 0x1000).expect("RAM");
        // The code that it has decoded is another's now.
        let other = assemble(CODE[1], |a| {
            a.mov(dword_ptr(rdi + 4), eax)?;
            a.hlt()
        });
        ram.write(Gpa(CODE[1]), &other).expect("RAM");
        ram.wrote(Gpa(CODE[1]), other.len() as u64);
        store(&mut sleeper, DATA, 7);
        assert_eq!(ram.read_u64(Gpa(DATA)), 7 << 32);
    });
}
