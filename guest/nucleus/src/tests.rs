//! The nucleus's own tests, by concept (the rows of CONCEPTS.md). `test` runs all, `test=NAME` one.

use crate::exception::PAGE_FAULT;
use crate::kernel::{Kernel, MAP_START, STACK_SIZE, STACK_TOP};
use crate::memory::Access;
use crate::paging::{self, ACCESSED, DIRTY, GLOBAL, NO_EXECUTE, PRESENT, USER, WRITABLE};
use crate::process::{End, Pid, Process, State, Wait};
use crate::{apic, clock, cpu, heap, power, tables};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Passed, passed by saying why there was nothing to test, or what went wrong.
type Outcome = Result<Option<&'static str>, String>;

const PASS: Outcome = Ok(None);

struct Test {
    name: &'static str,
    rows: &'static str,
    run: fn(&mut Kernel) -> Outcome,
}

#[rustfmt::skip]
const TESTS: &[Test] = &[
    Test { name: "multiprogramming", rows: "5 8 14", run: multiprogramming },
    Test { name: "registers", rows: "6 7 9 13", run: registers },
    Test { name: "fairness", rows: "5 14", run: fairness },
    Test { name: "sleep", rows: "8", run: sleep },
    Test { name: "pending", rows: "8 23 26", run: pending },
    Test { name: "idt", rows: "25 26", run: idt },
    Test { name: "privilege", rows: "10 11 23", run: privilege },
    Test { name: "gates", rows: "11 24 25", run: gates },
    Test { name: "segments", rows: "11 22", run: segments },
    Test { name: "protection", rows: "10 16 21", run: protection },
    Test { name: "numeric", rows: "23", run: numeric },
    Test { name: "descriptor", rows: "6 9 12 13", run: descriptor },
    Test { name: "traps", rows: "24", run: traps },
    Test { name: "walk", rows: "16 18 19", run: walk },
    Test { name: "accessed-dirty", rows: "18", run: accessed_dirty },
    Test { name: "tlb", rows: "17 19", run: tlb },
    Test { name: "pcid", rows: "17", run: pcid },
    Test { name: "separate", rows: "10 15", run: separate },
    Test { name: "copy-on-write", rows: "15 21", run: copy_on_write },
    Test { name: "demand", rows: "15 21", run: demand },
    Test { name: "out-of-memory", rows: "10 20", run: out_of_memory },
    Test { name: "swap", rows: "20 21", run: swap },
    Test { name: "semaphores", rows: "7 24", run: semaphores },
    Test { name: "fuzz", rows: "10 24", run: fuzz },
];

/// Runs them and leaves by the debug-exit port.
pub fn main(k: &mut Kernel, only: &str) -> ! {
    let (mut run, mut failed) = (0, 0);
    for test in TESTS.iter().filter(|test| only.is_empty() || test.name == only) {
        let start = clock::microseconds();
        let noisy = k.info.word("verbose").is_some();
        k.quiet = !noisy;
        let outcome = (test.run)(k);
        k.quiet = false;
        let rest = k.processes.len();
        let outcome = match outcome {
            Ok(_) if rest > 0 => Err(format!("{rest} processes left over")),
            outcome => outcome,
        };
        let verdict = if outcome.is_ok() { "ok  " } else { "FAIL" };
        let time = (clock::microseconds() - start) / 1000;
        print!("{verdict} {:16} rows {:10} ~{time} ms", test.name, test.rows);
        match outcome {
            Ok(None) => println!(),
            Ok(Some(why)) => println!("  (nothing to test: {why})"),
            Err(why) => println!("  {why}"),
        }
        run += 1;
        failed += u32::from(verdict == "FAIL");
    }
    println!("{} tests, {failed} failed", run);
    power::exit(if failed == 0 && run > 0 { power::PASSED } else { power::FAILED })
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn spawn(k: &mut Kernel, name: &str, argument: &str) -> Result<Pid, String> {
    k.spawn(name, argument.as_bytes(), 0).map_err(|error| format!("spawn {name}: {error:?}"))
}

fn run(k: &mut Kernel, name: &str, argument: &str) -> Result<End, String> {
    let pid = spawn(k, name, argument)?;
    Ok(k.wait_for(pid).0)
}

/// The program ends with exit code 0.
fn succeeds(k: &mut Kernel, name: &str, argument: &str) -> Outcome {
    let end = run(k, name, argument)?;
    ensure(end == End::Exit(0), || format!("{name} {argument}: {end:?}"))?;
    PASS
}

/// `fault KIND` ends in this exception with this error code; the address counts for page faults.
fn faults(k: &mut Kernel, kind: &str, vector: u8, error: u64, address: u64) -> Result<(), String> {
    let end = run(k, "fault", kind)?;
    let expected = End::Exception { vector, error, address };
    ensure(end == expected, || format!("{kind}: {end:?}, not {expected:?}"))
}

fn run_for(k: &mut Kernel, microseconds: u64) {
    let end = clock::microseconds() + microseconds;
    k.run_until(|_| clock::microseconds() >= end);
}

fn kill(k: &mut Kernel, pids: &[Pid]) {
    for &pid in pids {
        k.end(pid, End::Killed);
        k.reap(0, Some(pid));
    }
}

/// Processes that never give the processor away run at the same time all the same.
fn multiprogramming(k: &mut Kernel) -> Outcome {
    let endless = spawn(k, "count", "")?;
    let timer = k.interrupts[tables::TIMER as usize];
    let ended = (0..3).map(|_| run(k, "count", "2000000")).collect::<Result<Vec<_>, _>>();
    let ticks = k.interrupts[tables::TIMER as usize] - timer;
    kill(k, &[endless]);
    ensure(ended? == [End::Exit(0); 3], || "a counter did not finish".into())?;
    ensure(ticks > 0, || "the timer never interrupted".into())?;
    PASS
}

/// 10,000 context switches among 8 processes, by system call and by timer, without a bit lost.
fn registers(k: &mut Kernel) -> Outcome {
    let (before, quantum) = (k.switches, k.quantum);
    k.quantum = 300;
    let pids = (0..8)
        .map(|i| spawn(k, "registers", if i % 2 == 0 { "1500 0" } else { "1500 3000" }))
        .collect::<Result<Vec<_>, _>>()?;
    let ends: Vec<End> = pids.iter().map(|&pid| k.wait_for(pid).0).collect();
    k.quantum = quantum;
    ensure(ends.iter().all(|&end| end == End::Exit(0)), || format!("{ends:?}"))?;
    let switches = k.switches - before;
    ensure(switches >= 10_000, || format!("only {switches} switches"))?;
    PASS
}

/// Equal processes get equal shares: they differ by less than 2 %.
fn fairness(k: &mut Kernel) -> Outcome {
    const PROCESSES: usize = 5;
    const ROUNDS: u64 = 60;
    let pids = (0..PROCESSES).map(|_| spawn(k, "count", "")).collect::<Result<Vec<_>, _>>()?;
    let last = pids[PROCESSES - 1];
    // Whole rounds. A host that takes the processor away in the middle of a quantum makes it
    // longer; the next ones make up for that (sched.rs), so a few more rounds may be needed.
    let shares = |k: &Kernel| pids.iter().map(|pid| k.processes[pid].usage.tsc).collect::<Vec<_>>();
    let turns =
        |k: &Kernel| pids.iter().map(|pid| k.processes[pid].usage.quanta).collect::<Vec<_>>();
    let spread = |shares: &[u64]| {
        let (min, max) = (shares.iter().min().copied(), shares.iter().max().copied());
        (max.unwrap_or(0) - min.unwrap_or(0)) * 100 / max.unwrap_or(0).max(1)
    };
    k.run_until(|k| {
        let rounds = k.processes[&last].usage.quanta;
        turns(k).iter().all(|&t| t == rounds)
            && rounds >= ROUNDS
            && (spread(&shares(k)) < 2 || rounds >= 6 * ROUNDS)
    });
    let (shares, turns) = (shares(k), turns(k));
    kill(k, &pids);
    ensure(spread(&shares) < 2, || format!("shares {shares:?}, turns {turns:?}"))?;
    PASS
}

/// Sleepers wake in the order of their times, not before, though another process is busy.
fn sleep(k: &mut Kernel) -> Outcome {
    let busy = spawn(k, "count", "")?;
    let pids = ["150", "50", "100"].map(|ms| spawn(k, "sleep", ms));
    let mut order = Vec::new();
    let start = clock::microseconds();
    while order.len() < 3 && clock::microseconds() - start < 5_000_000 {
        let sleeping = k.processes.len();
        k.run_until(|k| {
            ended(k) > 0
                || k.processes.len() < sleeping
                || clock::microseconds() - start > 5_000_000
        });
        order.extend(k.reap(0, None));
    }
    kill(k, &[busy]);
    let [a, b, c] = pids;
    let expected = [b?, c?, a?].map(|pid| (pid, End::Exit(0)));
    ensure(order == expected, || format!("{order:?}, not {expected:?}"))?;
    PASS
}

fn ended(k: &Kernel) -> usize {
    k.processes.values().filter(|p| matches!(p.state, State::Ended(_))).count()
}

/// An interrupt that comes while the nucleus works is held, and served as soon as a process runs;
/// only once.
fn pending(k: &mut Kernel) -> Outcome {
    let pid = spawn(k, "count", "")?;
    run_for(k, 1000);
    let before = k.interrupts[tables::TIMER as usize];
    apic::set_timer(10);
    clock::spin(2000);
    let held = k.interrupts[tables::TIMER as usize] == before;
    let rip = k.processes[&pid].context.frame.rip;
    let root = k.processes[&pid].root.0;
    if let Some(process) = k.processes.get_mut(&pid) {
        crate::entry::resume(&mut process.context, root, false);
    }
    let frame = &k.processes[&pid].context.frame;
    let (vector, moved) = (frame.vector, frame.rip != rip);
    apic::end_of_interrupt();
    kill(k, &[pid]);
    ensure(held, || "served while the nucleus was at work".into())?;
    ensure(vector == u64::from(tables::TIMER), || format!("vector {vector:#x} came first"))?;
    ensure(!moved, || "an instruction was executed first".into())?;
    PASS
}

/// All 256 gates lead to different handlers; two are open to users.
fn idt(_: &mut Kernel) -> Outcome {
    let first = tables::gate(0).handler();
    for vector in 0..=255u8 {
        let gate = tables::gate(vector);
        let level = if vector == 3 || vector == tables::TRAP { 3 } else { 0 };
        let well = gate.handler() == first + 16 * u64::from(vector)
            && gate.level() == level
            && gate.is_interrupt_gate();
        ensure(well, || format!("gate {vector}"))?;
    }
    PASS
}

/// Every instruction that is reserved to the system is refused to a user.
fn privilege(k: &mut Kernel) -> Outcome {
    for kind in ["hlt", "cli", "port", "cr3", "msr", "lgdt", "lidt", "invlpg", "sysret"] {
        faults(k, kind, 13, 0, 0)?;
    }
    if k.features.umip {
        faults(k, "sgdt", 13, 0, 0)?;
    }
    faults(k, "divide", 0, 0, 0)?;
    faults(k, "opcode", 6, 0, 0)?;
    faults(k, "step", 1, 0, 0)?;
    PASS
}

/// INT n opens no gate but those for users: any other is a general protection fault that names the
/// gate.
fn gates(k: &mut Kernel) -> Outcome {
    // SDM vol. 3, 7.13: the index in bits 3 to 15. QEMU's own processor (7.2) counts a gate's 16
    // bytes as two.
    let entry = if on_tcg() { 16 } else { 8 };
    for vector in 0..=255u64 {
        let kind = format!("gate {vector}");
        match vector {
            3 => faults(k, &kind, 3, 0, 0)?,
            0x80 => ensure(run(k, "fault", &kind)? == End::Exit(99), || "INT 80H".into())?,
            _ => faults(k, &kind, 13, (vector * entry) | 2, 0)?,
        }
    }
    PASS
}

/// Whether this machine's processor is QEMU's TCG: it says so in CPUID leaf 4000_0000H.
fn on_tcg() -> bool {
    let leaf = cpu::cpuid(0x4000_0000, 0);
    (leaf.ebx, leaf.ecx, leaf.edx) == (0x5447_4354, 0x4354_4743, 0x4743_5447)
}

/// No way to a segment of the nucleus's.
fn segments(k: &mut Kernel) -> Outcome {
    faults(k, "selector", 13, 0x10, 0)?;
    faults(k, "far", 13, 8, 0)?;
    faults(k, "iret", 13, 8, 0)?;
    PASS
}

/// Every kind of access to memory that is not the process's, or not in this way.
fn protection(k: &mut Kernel) -> Outcome {
    const NUCLEUS: u64 = 0xFFFF_FFFF_8010_0000;
    faults(k, "null", PAGE_FAULT, 4, 0)?;
    faults(k, "unmapped", PAGE_FAULT, 4, MAP_START)?;
    faults(k, "nucleus-read", PAGE_FAULT, 5, NUCLEUS)?;
    faults(k, "nucleus-write", PAGE_FAULT, 7, NUCLEUS)?;
    faults(k, "nucleus-jump", PAGE_FAULT, 0x15, NUCLEUS)?;
    faults(k, "direct-map", PAGE_FAULT, 5, 0xFFFF_8000_0010_0000)?;
    faults(k, "text", PAGE_FAULT, 7, 0x40_0000)?;
    faults(k, "noncanonical", 13, 0, 0)?;
    // QEMU 7.2 takes #GP for both
    faults(k, "stack-segment", if on_tcg() { 13 } else { 12 }, 0, 0)?;
    let nx = run(k, "fault", "nx")?;
    let no_execute = matches!(nx, End::Exception { vector: PAGE_FAULT, error: 0x15, address }
        if (STACK_TOP - 4096..STACK_TOP).contains(&address));
    ensure(no_execute, || format!("nx: {nx:?}"))?;
    let overflow = run(k, "fault", "overflow")?;
    let guard = STACK_TOP - STACK_SIZE;
    let guarded = matches!(overflow, End::Exception { vector: PAGE_FAULT, error: 6, address }
        if (guard - 4096..guard).contains(&address));
    ensure(guarded, || format!("overflow: {overflow:?}"))?;
    PASS
}

/// Errors of x87 and SSE arithmetic.
fn numeric(k: &mut Kernel) -> Outcome {
    faults(k, "x87", 16, 0, 0)?;
    match run(k, "fault", "sse")? {
        End::Exit(99) => Ok(Some("this machine raises no #XM; #MF passed")),
        End::Exception { vector: 19, error: 0, .. } => PASS,
        end => Err(format!("sse: {end:?}")),
    }
}

/// The processor saves into the descriptor that TSS.RSP0 points to, level and return address
/// included.
fn descriptor(k: &mut Kernel) -> Outcome {
    let pid = spawn(k, "count", "")?;
    run_for(k, 20_000);
    let process = &k.processes[&pid];
    let (frame, end) = (process.context.frame, process.context.frame_end());
    let text = process.region(frame.rip).map(|r| r.name);
    let (rsp0, cr3) = (tables::rsp0(), cpu::cr3());
    let root = process.root.0;
    kill(k, &[pid]);
    ensure(rsp0 == end, || format!("RSP0 {rsp0:#x}, descriptor {end:#x}"))?;
    ensure(cr3 == root, || format!("CR3 {cr3:#x}, descriptor {root:#x}"))?;
    let selectors = (frame.cs, frame.ss) == (tables::USER_CODE.into(), tables::USER_DATA.into());
    ensure(selectors && frame.rflags & 0x200 != 0, || format!("{frame:#x?}"))?;
    ensure(text == Some("text"), || format!("return address {:#x}", frame.rip))?;
    PASS
}

fn traps(k: &mut Kernel) -> Outcome {
    succeeds(k, "traps", "")
}

/// The walk of a user's page and of the nucleus's own: rights at each level.
fn walk(k: &mut Kernel) -> Outcome {
    let pid = spawn(k, "count", "")?;
    run_for(k, 10_000);
    let address = k.processes[&pid].context.frame.rip;
    let root = k.processes[&pid].root;
    let user: Vec<_> = paging::walk(root, address).collect();
    let system: Vec<_> =
        paging::walk(root, walk as fn(&mut Kernel) -> Outcome as usize as u64).collect();
    let frame = k.page_in(pid, address, Access::Execute);
    kill(k, &[pid]);
    let all = |walk: &[(usize, u64)], bits| walk.iter().all(|(_, entry)| entry & bits == bits);
    ensure(user.len() == 4 && all(&user, PRESENT | USER | ACCESSED), || format!("{user:x?}"))?;
    let leaf = user[3].1;
    ensure(leaf & (WRITABLE | NO_EXECUTE) == 0, || format!("text is {leaf:#x}"))?;
    ensure(frame == Ok(paging::target(leaf)), || format!("frame {frame:x?}"))?;
    let well = system.len() == 4
        && system.iter().all(|(_, entry)| entry & USER == 0)
        && system[3].1 & (GLOBAL | WRITABLE | NO_EXECUTE) == GLOBAL;
    ensure(well, || format!("nucleus {system:x?}"))?;
    PASS
}

/// An unused address in the lower half of the nucleus's own table, to try things on.
const SCRATCH: u64 = 0x5000_0000_0000;

/// Maps SCRATCH to the first of two frames that hold 1 and 2; afterwards all is given back.
fn with_scratch(k: &mut Kernel, body: impl FnOnce(paging::Entry, [u64; 2]) -> Outcome) -> Outcome {
    let none = || String::from("no frame");
    let (root, one, two) = (
        k.take_frame().ok_or_else(none)?,
        k.take_frame().ok_or_else(none)?,
        k.take_frame().ok_or_else(none)?,
    );
    paging::user_root(k.root, root);
    let place = paging::find_or_add(root, SCRATCH, WRITABLE, || k.take_frame()).ok_or_else(none)?;
    for (frame, value) in [(one, 1u64), (two, 2)] {
        frame.write(0, &value.to_le_bytes());
    }
    let rights = PRESENT | WRITABLE | NO_EXECUTE;
    cpu::set_cr3(root.0);
    place.set(one.0 | rights);
    let outcome = body(place, [one.0 | rights, two.0 | rights]);
    cpu::set_cr3(k.root.0);
    paging::free_tables(root, &mut k.frames);
    k.frames.release(one);
    k.frames.release(two);
    outcome
}

/// The processor sets the bits, and only when it should.
fn accessed_dirty(k: &mut Kernel) -> Outcome {
    with_scratch(k, |place, _| {
        let bits = || place.get() & (ACCESSED | DIRTY);
        ensure(bits() == 0, || "set without an access".into())?;
        cpu::probe(SCRATCH);
        ensure(bits() == ACCESSED, || format!("after a read: {:#x}", bits()))?;
        cpu::probe_write(SCRATCH, 1);
        ensure(bits() == ACCESSED | DIRTY, || format!("after a write: {:#x}", bits()))?;
        PASS
    })
}

/// After INVLPG and after a load of CR3, the changed tables count.
fn tlb(k: &mut Kernel) -> Outcome {
    with_scratch(k, |place, [one, two]| {
        ensure(cpu::probe(SCRATCH) == 1, || "first mapping".into())?;
        place.set(two);
        cpu::invlpg(SCRATCH);
        ensure(cpu::probe(SCRATCH) == 2, || "stale after INVLPG".into())?;
        place.set(one);
        cpu::set_cr3(cpu::cr3());
        ensure(cpu::probe(SCRATCH) == 1, || "stale after a load of CR3".into())?;
        place.set(two | GLOBAL);
        cpu::invlpg(SCRATCH);
        ensure(cpu::probe(SCRATCH) == 2, || "stale before global".into())?;
        place.set(one | GLOBAL);
        cpu::invlpg(SCRATCH);
        ensure(cpu::probe(SCRATCH) == 1, || "INVLPG must reach global pages".into())?;
        place.set(one);
        cpu::invlpg(SCRATCH);
        PASS
    })
}

/// The same with process-context identifiers: a load of CR3 forgets its context, INVPCID what it is
/// told to.
fn pcid(k: &mut Kernel) -> Outcome {
    if !k.features.pcid {
        return Ok(Some("this processor has no PCID"));
    }
    let kinds = if k.features.invpcid { 0..4 } else { 0..0 };
    with_scratch(k, |place, [one, two]| {
        let root = cpu::cr3();
        let is = |value, when| {
            let found = cpu::probe(SCRATCH);
            ensure(found == value, || format!("{found} rather than {value} {when}"))
        };
        let body = || {
            cpu::set_cr3(root | 1);
            is(1, "in context 1")?;
            place.set(two);
            cpu::set_cr3(root | 2);
            is(2, "in context 2, which has never seen the page")?;
            cpu::set_cr3(root | 1);
            is(2, "after context 1 was loaded again")?;
            for kind in kinds {
                place.set(one);
                cpu::invpcid(kind, 1, SCRATCH);
                is(1, "after INVPCID")?;
                place.set(two);
                cpu::invlpg(SCRATCH);
                is(2, "after INVLPG")?;
            }
            PASS
        };
        cpu::use_pcid(true);
        let outcome = body();
        cpu::set_cr3(root);
        cpu::use_pcid(false);
        outcome
    })
}

/// Two processes use the same addresses for different things.
fn separate(k: &mut Kernel) -> Outcome {
    let pids = [spawn(k, "sweep", "50 8")?, spawn(k, "sweep", "50 8")?];
    let ends = pids.map(|pid| k.wait_for(pid).0);
    ensure(ends == [End::Exit(0); 2], || format!("{ends:?}"))?;
    PASS
}

fn copy_on_write(k: &mut Kernel) -> Outcome {
    let before = k.copies;
    succeeds(k, "cow", "")?;
    ensure(k.copies - before >= 64, || format!("{} pages copied", k.copies - before))?;
    PASS
}

/// A page costs a fault and a frame when it is touched, not before.
fn demand(k: &mut Kernel) -> Outcome {
    let fault_count = |k: &mut Kernel, pages: &str| -> Result<u64, String> {
        let pid = spawn(k, "sweep", pages)?;
        Ok(k.wait_for(pid).1.faults)
    };
    fault_count(k, "1 1")?;
    let (few, many) = (fault_count(k, "1 3")?, fault_count(k, "101 3")?);
    ensure(many == few + 100, || format!("{few} and {many} faults for 1 and 101 pages"))?;
    PASS
}

/// Without a disk, whoever asks for too much is ended; the others notice nothing.
fn out_of_memory(k: &mut Kernel) -> Outcome {
    let before = k.frames.used() - k.text.len() as u64;
    k.swap.enabled = false;
    k.frames.set_limit(Some(k.frames.used() + 200));
    let modest = spawn(k, "promise", "50 300")?;
    k.run_until(|k| matches!(k.processes[&modest].state, State::Blocked(_) | State::Ended(_)));
    let greedy = spawn(k, "sweep", "400 1")?;
    let ends = [modest, greedy].map(|pid| k.wait_for(pid).0);
    k.frames.set_limit(None);
    k.swap.enabled = true;
    ensure(ends == [End::Exit(0), End::OutOfMemory], || format!("{ends:?}"))?;
    let after = k.frames.used() - k.text.len() as u64;
    ensure(before == after, || format!("{before} frames in use before, {after} after"))?;
    PASS
}

/// A working set four times as large as memory, with checksums.
fn swap(k: &mut Kernel) -> Outcome {
    if k.swap.total() == 0 {
        return Ok(Some("there is no disk"));
    }
    const FRAMES: u64 = 512;
    let (before, slots) = (k.frames.used() - k.text.len() as u64, k.swap.used());
    let (out, back) = (k.swap.moved_out, k.swap.moved_in);
    k.frames.set_limit(Some(k.frames.used() + FRAMES));
    let pids = [spawn(k, "sweep", "1024 4")?, spawn(k, "sweep", "1024 4")?];
    let ends = pids.map(|pid| k.wait_for(pid).0);
    let forked = run(k, "cow", "");
    k.frames.set_limit(None);
    ensure(ends == [End::Exit(0); 2] && forked == Ok(End::Exit(0)), || {
        format!("{ends:?} {forked:?}")
    })?;
    let (out, back) = (k.swap.moved_out - out, k.swap.moved_in - back);
    ensure(out > 3 * FRAMES && back > 3 * FRAMES, || format!("{out} out, {back} back"))?;
    let after = (k.frames.used() - k.text.len() as u64, k.swap.used());
    ensure((before, slots) == after, || {
        format!("frames, slots {before}, {slots}; then {after:?}")
    })?;
    PASS
}

fn semaphores(k: &mut Kernel) -> Outcome {
    let quantum = core::mem::replace(&mut k.quantum, 400);
    let outcome = succeeds(k, "semaphores", "");
    k.quantum = quantum;
    outcome
}

/// Random system calls, for `fuzz=SECONDS` (2): the nucleus lives, and nothing is lost.
fn fuzz(k: &mut Kernel) -> Outcome {
    let seconds = k.info.word("fuzz").and_then(|s| s.parse().ok()).unwrap_or(2u64);
    let end = clock::microseconds() + seconds * 1_000_000;
    let in_use =
        |k: &Kernel| (k.frames.used() - k.text.len() as u64, k.semaphores.count(), k.swap.used());
    fuzz_round(k, 0)?; // descriptors and tables of the nucleus's own grow once
    let (before, heap_before) = (in_use(k), heap::used());
    let (mut seed, mut calls) = (1, 0);
    while clock::microseconds() < end {
        calls += fuzz_round(k, seed)?;
        seed += 4;
    }
    ensure(before == in_use(k), || format!("{before:?} in use before, {:?} after", in_use(k)))?;
    let grown = heap::used().saturating_sub(heap_before);
    ensure(grown < 16 << 10, || format!("the heap has grown by {grown} bytes"))?;
    ensure(calls > 1000, || format!("only {calls} calls"))?;
    PASS
}

/// Four processes make random calls until they end, or for 100 ms: then they are ended, and all
/// that they started.
fn fuzz_round(k: &mut Kernel, seed: u64) -> Result<u64, String> {
    let start = clock::microseconds();
    for i in 0..4 {
        spawn(k, "fuzz", &format!("{} 3000", seed + i))?;
    }
    let stuck = |p: &Process| match p.state {
        State::Ready | State::Blocked(Wait::Until(_)) => false,
        State::Blocked(_) | State::Ended(_) => true,
    };
    k.run_until(|k| k.processes.values().all(stuck) || clock::microseconds() - start > 100_000);
    let calls = k.processes.values().map(|p| p.usage.calls).sum();
    while let Some((&pid, _)) = k.processes.first_key_value() {
        k.end(pid, End::Killed);
        k.processes.remove(&pid);
    }
    Ok(calls)
}
