//! What the shell and the demo show of the nucleus's insides.

use crate::exception::name;
use crate::kernel::Kernel;
use crate::paging::{self, LEVELS};
use crate::physical::PAGE;
use crate::process::{End, Pid, Process, State, Wait};
use crate::sched::Reason;
use crate::{apic, clock, heap, tables};
use alloc::format;
use alloc::string::String;

pub fn processes(k: &Kernel) {
    println!("  pid parent state             CPU ms  turns  calls faults  pages on disk  program");
    for p in k.processes.values() {
        let (resident, swapped) = k.pages(p.pid);
        let parent = if p.parent == Pid::MAX { String::from("-") } else { format!("{}", p.parent) };
        println!(
            "{:5} {parent:>6} {:17} {:6} {:6} {:6} {:6} {resident:6} {swapped:7}  {}",
            p.pid,
            state(p),
            clock::to_microseconds(p.usage.tsc) / 1000,
            p.usage.quanta,
            p.usage.calls,
            p.usage.faults,
            p.name,
        );
    }
}

fn state(p: &Process) -> String {
    match p.state {
        State::Ready => String::from("ready"),
        State::Ended(end) => ended(end),
        State::Blocked(wait) => match wait {
            Wait::Line => String::from("reads console"),
            Wait::Child => String::from("waits for child"),
            Wait::Semaphore(id) => format!("semaphore {id}"),
            Wait::Message => String::from("receives"),
            Wait::Room(pid) => format!("sends to {pid}"),
            Wait::Until(_) => String::from("sleeps"),
        },
    }
}

/// How a process ended, in words.
pub fn ended(end: End) -> String {
    match end {
        End::Exit(code) => format!("exit {code}"),
        End::Exception { vector, .. } => String::from(name(vector).0),
        End::Killed => String::from("killed"),
        End::OutOfMemory => String::from("out of memory"),
    }
}

pub fn memory(k: &Kernel) {
    let kib = |frames: u64| frames * PAGE / 1024;
    let (used, free) = (k.frames.used(), k.frames.free());
    println!("frames     {used} in use ({} KiB), {free} free ({} KiB)", kib(used), kib(free));
    println!("text       {} frames of programs, shared by all who run them", k.text.len());
    println!("copied     {} pages on write", k.copies);
    println!("heap       {} of {} bytes in use", heap::used(), heap::total());
    println!("semaphores {}", k.semaphores.count());
    println!("map        (from {})", k.info.protocol);
    for (start, end) in &k.info.memory {
        println!("  {start:#014x} - {end:#014x}  {} KiB usable", (end - start) / 1024);
    }
}

pub fn swap(k: &Kernel) {
    let swap = &k.swap;
    if swap.total() == 0 {
        println!("no disk: what does not fit in memory is refused (gemello: --disk FILE)");
        return;
    }
    println!("{} of {} slots of 4 KiB in use", swap.used(), swap.total());
    println!(
        "{} pages moved out, {} moved in, {} spared by the clock",
        swap.moved_out, swap.moved_in, swap.spared
    );
}

pub fn regions(p: &Process) {
    println!("CR3 {:#x}; regions of {}:", p.root.0, p.name);
    for r in &p.regions {
        let right = |has, letter| if has { letter } else { '-' };
        println!(
            "  {:#014x} - {:#014x} r{}{} {}",
            r.start,
            r.end,
            right(r.write, 'w'),
            right(r.execute, 'x'),
            r.name,
        );
    }
}

/// The four-level walk of an address, entry by entry. `mask` goes before what differs between
/// machines.
pub fn walk(p: &Process, address: u64, mask: &str) {
    println!("  walk of {:#x} from CR3 {mask}{:#x}:", address, p.root.0);
    let mut last = 0;
    for (level, entry) in paging::walk(p.root, address) {
        let index = address >> (39 - 9 * level) & 511;
        let target = paging::target(entry).0;
        println!("    {:4}[{index:3}] -> {mask}{target:#x} {}", LEVELS[level], entry_bits(entry));
        last = entry;
    }
    if last & paging::PRESENT != 0 {
        let physical = paging::target(last).0 + address % PAGE;
        println!("    physical address {mask}{physical:#x}");
    } else if last & paging::SWAPPED != 0 {
        println!("    on disk, slot {mask}{}", crate::swap::slot(last));
    } else {
        println!("    not there (yet)");
    }
}

fn entry_bits(entry: u64) -> String {
    const BITS: [(u64, &str); 10] = [
        (paging::PRESENT, "present"),
        (paging::WRITABLE, "writable"),
        (paging::USER, "user"),
        (paging::CACHE_DISABLED, "uncached"),
        (paging::ACCESSED, "accessed"),
        (paging::DIRTY, "dirty"),
        (paging::LARGE, "large"),
        (paging::GLOBAL, "global"),
        (paging::COPY_ON_WRITE, "copy-on-write"),
        (paging::NO_EXECUTE, "no-execute"),
    ];
    let last = BITS.into_iter().filter(|(bit, _)| entry & bit != 0).map(|(_, name)| name);
    last.collect::<alloc::vec::Vec<_>>().join(" ")
}

/// All gates; neighbours that differ in nothing but their stub together.
pub fn idt() {
    println!("vector  level  stack  what");
    let ranges: [(u8, u8, &str); 7] = [
        (0, 31, ""),
        (32, 32, "timer"),
        (33, 35, "interrupts"),
        (36, 36, "console"),
        (37, 127, "interrupts"),
        (128, 128, "trap: system calls"),
        (129, 255, "interrupts"),
    ];
    for (first, last, what) in ranges {
        if first == 0 {
            for vector in 0..=last {
                gate(vector, vector, name(vector).1);
            }
        } else {
            gate(first, last, what);
        }
    }
}

fn gate(first: u8, last: u8, what: &str) {
    let gate = tables::gate(first);
    let stack = match gate.stack() {
        0 => String::from("RSP0"),
        n => format!("IST{n}"),
    };
    let range = if first == last { format!("{first}") } else { format!("{first}-{last}") };
    println!("{range:>7}  {:5}  {stack}   {what}, handler {:#x}", gate.level(), gate.handler());
}

pub fn gdt() {
    const WHAT: [&str; 8] =
        ["null", "code", "data", "unused", "data", "code", "task state", "(its upper half)"];
    println!("selector  descriptor          level  what");
    for (i, what) in WHAT.iter().enumerate() {
        let descriptor = tables::descriptor(i).unwrap_or(0);
        let level = descriptor >> 45 & 3;
        println!("    {:#04x}  {descriptor:#018x}  {level:5}  {what}", i * 8);
    }
    println!(
        "TSS.RSP0 {:#x}: the end of the frame in the running process's descriptor",
        tables::rsp0()
    );
}

pub fn interrupts(k: &Kernel) {
    println!("vector       count");
    for (vector, &count) in k.interrupts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let what = match vector as u8 {
            tables::TIMER => "timer",
            tables::CONSOLE => "console",
            tables::POWER => "power button",
            tables::TRAP => "system calls by INT 80H",
            n if n < 32 => name(n as u8).1,
            _ => "",
        };
        println!("{vector:6}  {count:10}  {what}");
    }
}

/// A line for each process, a column for each of the last turns.
pub fn timeline(k: &Kernel, turns: usize) {
    let skip = k.timeline.len().saturating_sub(turns);
    let shown = || k.timeline.iter().skip(skip);
    let mut pids: alloc::vec::Vec<Pid> = shown().map(|turn| turn.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        let line: String = shown()
            .map(|turn| match turn.reason {
                _ if turn.pid != pid => '.',
                Reason::Timer => '#',
                Reason::Yield => 'y',
                Reason::Blocked => 'b',
                Reason::Ended => 'e',
            })
            .collect();
        println!("  {pid:4} {line}");
    }
}

pub fn schedule(k: &Kernel) {
    println!("the last turns, oldest first (# whole quantum, y gave it away, b blocked, e ended):");
    timeline(k, crate::sched::TIMELINE);
    println!(
        "{} switches, quantum {} us, idle {} ms, timer {} Hz",
        k.switches,
        k.quantum,
        clock::to_microseconds(k.idle_tsc) / 1000,
        apic::timer_frequency()
    );
}
