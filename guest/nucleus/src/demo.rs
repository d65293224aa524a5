//! The guided tour: every concept in order, a line or two of what happens, then the thing itself
//! with real figures.
//!
//! What differs from run to run or from machine to machine has a `~` before it, up to the next
//! blank; everything else is the same wherever the nucleus runs, and a test compares it.

use crate::kernel::Kernel;
use crate::paging::{self, NO_EXECUTE, PRESENT, WRITABLE};
use crate::physical::Frame;
use crate::process::{End, Pid, Process, State, Usage};
use crate::{clock, cpu, tables, views};

const MESSAGE: &str = "the demo's programs start";

/// Shows everything. Whatever else runs is left alone, but makes the figures less clear.
pub fn run(k: &mut Kernel) {
    const STEPS: [fn(&mut Kernel); 15] = [
        bootstrap,
        multiprogramming,
        context_switch,
        interrupts,
        protection,
        levels,
        traps,
        exceptions,
        page_walk,
        tlb,
        demand_paging,
        copy_on_write,
        swapping,
        synchronization,
        machines,
    ];
    for (number, step) in STEPS.into_iter().enumerate() {
        print!("\n[{}] ", number + 1);
        step(k);
        if core::mem::take(&mut k.lines.interrupted) {
            return;
        }
    }
    println!("\nThat was the tour.");
}

fn start(k: &mut Kernel, name: &str, argument: &str) -> Pid {
    k.spawn(name, argument.as_bytes(), 0).expect(MESSAGE)
}

fn finish(k: &mut Kernel, name: &str, argument: &str) -> (End, Usage) {
    let pid = start(k, name, argument);
    k.wait_for(pid)
}

fn kill(k: &mut Kernel, pids: &[Pid]) {
    for &pid in pids {
        k.end(pid, End::Killed);
        k.reap(0, Some(pid));
    }
}

fn turns(k: &mut Kernel, pid: Pid, count: u64) {
    k.run_until(|k| k.processes.get(&pid).is_none_or(|p| p.usage.quanta >= count));
}

/// Until the process sleeps.
fn asleep(k: &mut Kernel, pid: Pid) {
    let blocked = |p: &Process| matches!(p.state, State::Blocked(_));
    k.run_until(|k| k.processes.get(&pid).is_none_or(blocked));
}

fn bootstrap(k: &mut Kernel) {
    println!(
        "Bootstrap: from 32-bit mode to long mode; GDT, TSS, 256 gates in the IDT, page tables"
    );
    println!("  loaded by ~{}, ready ~{} microseconds later", k.info.protocol, k.boot_time);
    println!(
        "  ~{} frames of 4 KiB free, processor at ~{} MHz",
        k.frames.free(),
        clock::frequency() / 1_000_000
    );
    let gates = (0..=255).filter(|&v| tables::gate(v).is_interrupt_gate()).count();
    let open = (0..=255).filter(|&v| tables::gate(v).level() == 3).count();
    println!("  {gates} interrupt gates, {open} of them open to user level (INT3 and INT 80H)");
}

fn multiprogramming(k: &mut Kernel) {
    println!("Multiprogramming: three programs that never give the processor away, one processor");
    let pids = [(); 3].map(|()| start(k, "count", ""));
    turns(k, pids[2], 12);
    views::timeline(k, 36);
    let used: [u64; 3] = pids.map(|pid| k.processes.get(&pid).map_or(0, |p| p.usage.tsc));
    let all = used.iter().sum::<u64>().max(1);
    for (pid, tsc) in pids.iter().zip(used) {
        println!(
            "  process {pid}: 12 turns, ~{}.{} % of the time",
            tsc * 100 / all,
            tsc * 1000 / all % 10
        );
    }
    println!(
        "  each had the processor for {} ms, then it was the next one's turn",
        k.quantum / 1000
    );
    kill(k, &pids);
}

fn context_switch(k: &mut Kernel) {
    println!(
        "Context switch: the timer ends a quantum, the state goes into the process descriptor"
    );
    let pids = [start(k, "count", ""), start(k, "count", "")];
    turns(k, pids[1], 3);
    for pid in pids {
        let Some(p) = k.processes.get(&pid) else { continue };
        let f = &p.context.frame;
        println!(
            "  descriptor {pid}: return address ~{:#x} CS {:#x} (level {}) vector {:#x}",
            f.rip,
            f.cs,
            f.cs & 3,
            f.vector
        );
        println!(
            "    RSP ~{:#x} RFLAGS ~{:#x} RAX ~{:#x} CR3 ~{:#x}",
            f.rsp, f.rflags, f.rax, p.root.0
        );
    }
    kill(k, &pids);
    let (before, begin) = (k.switches, cpu::rdtsc());
    let pids = [start(k, "registers", "500"), start(k, "registers", "500")];
    let ends = pids.map(|pid| k.wait_for(pid).0);
    let switches = (k.switches - before).max(1);
    println!(
        "  two processes with every register full of patterns, vector registers too, switch \
         ~{switches} times"
    );
    println!("  patterns afterwards: {}", verdict(ends == [End::Exit(0); 2]));
    println!(
        "  one switch with its system call and the check: ~{} cycles",
        (cpu::rdtsc() - begin) / switches
    );
}

fn verdict(well: bool) -> &'static str {
    if well { "intact" } else { "DAMAGED" }
}

fn interrupts(k: &mut Kernel) {
    println!("Interrupts: asynchronous, held while the nucleus is at work, each served to its end");
    let pid = start(k, "sleep", "20");
    let busy = start(k, "count", "");
    let (before, begin) = (k.interrupts[tables::TIMER as usize], clock::microseconds());
    let (end, _) = k.wait_for(pid);
    let count = k.interrupts[tables::TIMER as usize] - before;
    kill(k, &[busy]);
    println!(
        "  a process sleeps 20 ms while another counts: woken after ~{} us, {}",
        clock::microseconds() - begin,
        views::ended(end)
    );
    println!("  timer interrupts meanwhile: ~{count}");
}

fn protection(k: &mut Kernel) {
    println!("Protection: memory that is not the process's own; each attempt ends in a page fault");
    for kind in ["nucleus-read", "nucleus-write", "unmapped", "text", "nx", "overflow"] {
        finish(k, "fault", kind);
    }
}

fn levels(k: &mut Kernel) {
    println!("Privilege levels: no instruction of the system's, no gate but the trap, no segment");
    for kind in ["hlt", "port", "cr3", "gate 0", "selector"] {
        finish(k, "fault", kind);
    }
}

fn traps(k: &mut Kernel) {
    println!("Traps: INT 80H and SYSCALL lead to the same table of system calls");
    let before = k.interrupts[tables::TRAP as usize];
    let (end, usage) = finish(k, "traps", "");
    let traps = k.interrupts[tables::TRAP as usize] - before;
    println!(
        "  {} calls, good and bad ones, {traps} of them by INT 80H: {}",
        usage.calls,
        views::ended(end)
    );
    finish(k, "hello", "the trap took me to level 0 and back");
}

fn exceptions(k: &mut Kernel) {
    println!("Exceptions: synchronous; the process that made the error is ended, all others go on");
    let counter = start(k, "count", "");
    for kind in ["divide", "opcode", "breakpoint", "x87"] {
        finish(k, "fault", kind);
    }
    let before = k.processes.get(&counter).map(|p| p.usage.quanta);
    turns(k, counter, before.unwrap_or(0) + 1);
    let counts = k.processes.get(&counter).is_some_and(|p| Some(p.usage.quanta) > before);
    println!(
        "  the process that was counting meanwhile {}",
        if counts { "still counts" } else { "STOPPED" }
    );
    kill(k, &[counter]);
    finish(k, "primes", "");
}

fn page_walk(k: &mut Kernel) {
    println!(
        "Virtual memory: the same address in two processes, two frames; four levels of tables"
    );
    let pids = [start(k, "count", ""), start(k, "count", "")];
    turns(k, pids[1], 2);
    for pid in pids {
        if let Some(process) = k.processes.get(&pid) {
            views::walk(process, crate::kernel::STACK_TOP - 8, "~");
        }
    }
    println!("  and the text, which both share:");
    let frames = pids.map(|pid| {
        let process = &k.processes[&pid];
        paging::find(process.root, 0x40_0000).map(|entry| paging::target(entry.get()))
    });
    println!("    one frame for both: {}", if frames[0] == frames[1] { "yes" } else { "no" });
    kill(k, &pids);
}

fn tlb(k: &mut Kernel) {
    const SCRATCH: u64 = 0x5000_0000_0000;
    const ROUNDS: u64 = 1000;
    println!(
        "TLB: a cache of walks. The same word is read again and again, with and without INVLPG"
    );
    let (root, frame) = (k.take_frame().expect(MESSAGE), k.take_frame().expect(MESSAGE));
    paging::user_root(k.root, root);
    let place = paging::find_or_add(root, SCRATCH, WRITABLE, || k.take_frame()).expect(MESSAGE);
    place.set(frame.0 | PRESENT | WRITABLE | NO_EXECUTE);
    cpu::set_cr3(root.0);
    let measure = |forget: &dyn Fn()| {
        cpu::probe(SCRATCH);
        let mut cycles = 0;
        for _ in 0..ROUNDS {
            forget();
            let begin = cpu::rdtsc();
            cpu::probe(SCRATCH);
            cycles += cpu::rdtsc() - begin;
        }
        cycles / ROUNDS
    };
    println!("  translation in the TLB: ~{} cycles", measure(&|| {}));
    println!(
        "  after INVLPG:           ~{} cycles: the tables are walked",
        measure(&|| cpu::invlpg(SCRATCH))
    );
    println!("  after a load of CR3:    ~{} cycles", measure(&|| cpu::set_cr3(cpu::cr3())));
    cpu::set_cr3(k.root.0);
    release(k, root, frame);
}

fn release(k: &mut Kernel, root: Frame, frame: Frame) {
    paging::free_tables(root, &mut k.frames);
    k.frames.release(frame);
}

fn demand_paging(k: &mut Kernel) {
    println!(
        "Demand paging: 64 MiB are promised, 40 pages touched; each first touch is a page fault"
    );
    let free = k.frames.free();
    let pid = start(k, "promise", "40");
    asleep(k, pid);
    let (resident, _) = k.pages(pid);
    println!(
        "  pages there: {resident}; frames gone: ~{}, page tables included",
        free.saturating_sub(k.frames.free())
    );
    let (end, usage) = k.wait_for(pid);
    println!("  {} page faults, {}", usage.faults, views::ended(end));
}

fn copy_on_write(k: &mut Kernel) {
    println!(
        "Copy on write: fork copies no page; parent and child then write, and see only their own"
    );
    let before = k.copies;
    let (end, _) = finish(k, "cow", "");
    println!("  ~{} pages copied when they were written, {}", k.copies - before, views::ended(end));
}

fn swapping(k: &mut Kernel) {
    const FRAMES: u64 = 256;
    println!("Secondary memory: 1 MiB of frames for a process that works on 4 MiB");
    k.frames.set_limit(Some(k.frames.used() + FRAMES));
    let (out, back, spared) = (k.swap.moved_out, k.swap.moved_in, k.swap.spared);
    let (end, usage) = finish(k, "sweep", "1024 3");
    let (out, back) = (k.swap.moved_out - out, k.swap.moved_in - back);
    println!(
        "  ~{out} pages to the disk, ~{back} back, ~{} spared by the clock, ~{} page faults",
        k.swap.spared - spared,
        usage.faults
    );
    println!("  every word of every page was checked: {}", views::ended(end));
    println!("  the same without a disk, beside a modest process:");
    let enabled = core::mem::take(&mut k.swap.enabled);
    let modest = start(k, "promise", "40 300");
    asleep(k, modest);
    finish(k, "sweep", "1024 3");
    let (end, _) = k.wait_for(modest);
    println!("  the modest one: {}", views::ended(end));
    k.swap.enabled = enabled;
    k.frames.set_limit(None);
}

fn synchronization(k: &mut Kernel) {
    println!("Semaphores and messages: six processes, one critical section, 240 entries");
    let quantum = core::mem::replace(&mut k.quantum, 500);
    let (end, _) = finish(k, "semaphores", "");
    k.quantum = quantum;
    println!("  no two were in it at the same time: {}", views::ended(end));
}

/// Nothing runs here but this loop, so a gap between two readings of the clock is the host's doing.
fn machines(k: &mut Kernel) {
    const SLOTS: usize = 100;
    const GAP: u64 = 500;
    println!(
        "Machines in turn: a host processor runs several machines as the nucleus runs processes"
    );
    let mut slots = [b'#'; SLOTS];
    let (mut gaps, mut away) = (0, 0);
    let begin = clock::microseconds();
    let mut last = begin;
    loop {
        let now = clock::microseconds();
        let slot = |time: u64| ((time - begin) / 1000) as usize;
        if now - last > GAP {
            gaps += 1;
            away += now - last;
            let gone = slot(last).min(SLOTS)..slot(now).min(SLOTS);
            slots[gone].fill(b'.');
        }
        if slot(now) >= SLOTS {
            break;
        }
        last = now;
    }
    let line = core::str::from_utf8(&slots).unwrap_or_default();
    println!("  a mark for each millisecond, # with the processor, . without:");
    println!("  ~{line}");
    println!("  away ~{gaps} times, ~{} of {SLOTS} ms; quantum here {} us", away / 1000, k.quantum);
    println!("  (to see two alternate: gemello run a.toml b.toml --pcpus 1)");
}
