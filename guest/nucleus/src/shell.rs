//! The console shell: to look at the nucleus by hand.

use crate::acpi::SoftOff;
use crate::kernel::Kernel;
use crate::process::{End, Pid, State, Wait};
use crate::programs::PROGRAMS;
use crate::{console, demo, power, views};
use alloc::string::String;
use alloc::vec::Vec;

pub const PROMPT: &str = "nucleus> ";

const HELP: &str = "commands:
  ps                    processes
  run NAME [ARG] [&]    run a program (Ctrl-C ends it); with & in the background
  kill PID              end a process
  mem                   physical memory
  vm PID [ADDRESS]      a process's regions; the page walk of an address, entry by entry
  idt, gdt              the processor's tables
  irq                   interrupts and exceptions so far
  sched                 timeline of the last turns
  swap                  the swap disk
  demo                  a guided tour of all concepts
  poweroff              end
programs:";

impl Kernel {
    /// Bytes have come in from the terminal.
    pub fn console_input(&mut self) {
        while let Some(byte) = console::received() {
            self.lines.feed(byte);
        }
        if self.lines.first().is_some() {
            self.wake(|wait| wait == Wait::Line);
        }
    }
}

/// Reads commands until one powers off.
pub fn main(k: &mut Kernel, off: Option<SoftOff>) -> ! {
    loop {
        let line = read_line(k);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [] => {}
            ["help" | "?"] => help(),
            ["ps"] => views::processes(k),
            ["run", name, ref rest @ ..] => run(k, name, rest),
            ["kill", pid] => kill(k, pid),
            ["mem"] => views::memory(k),
            ["vm", pid] => vm(k, pid, None),
            ["vm", pid, address] => vm(k, pid, Some(address)),
            ["idt"] => views::idt(),
            ["gdt"] => views::gdt(),
            ["irq"] => views::interrupts(k),
            ["sched"] => views::schedule(k),
            ["swap"] => views::swap(k),
            ["demo"] => demo::run(k),
            ["poweroff" | "exit" | "quit"] => power::off(off),
            _ => println!("unknown command: {line} (help lists them)"),
        }
    }
}

fn help() {
    print!("{HELP}");
    for program in PROGRAMS {
        print!(" {}", program.name);
    }
    println!(
        "\nkeys: arrows, Home, End, Delete, Ctrl-A E K U W L C; Up and Down go through earlier \
         lines"
    );
}

/// The next line typed; processes in the background run meanwhile.
fn read_line(k: &mut Kernel) -> String {
    report_jobs(k);
    print!("{PROMPT}");
    k.lines.prompting = true;
    loop {
        k.run_until(|k| k.lines.first().is_some() || k.lines.interrupted);
        if core::mem::take(&mut k.lines.interrupted) {
            print!("{PROMPT}");
        }
        if let Some(line) = k.lines.take() {
            k.lines.prompting = false;
            return line;
        }
    }
}

/// Tells of processes in the background that have ended.
fn report_jobs(k: &mut Kernel) {
    while let Some((pid, end)) = k.reap(0, None) {
        println!("[{pid}] {}", views::ended(end));
    }
}

fn run(k: &mut Kernel, name: &str, rest: &[&str]) {
    let background = rest.last() == Some(&"&");
    let argument = rest[..rest.len() - usize::from(background)].join(" ");
    match k.spawn(name, argument.as_bytes(), 0) {
        Err(error) => println!("{name} does not start: {error:?}"),
        Ok(pid) if background => println!("[{pid}] {name}"),
        Ok(pid) => foreground(k, pid),
    }
}

fn foreground(k: &mut Kernel, pid: Pid) {
    k.foreground = pid;
    let ended =
        |k: &Kernel| k.processes.get(&pid).is_none_or(|p| matches!(p.state, State::Ended(_)));
    k.run_until(|k| ended(k) || k.lines.interrupted);
    if core::mem::take(&mut k.lines.interrupted) {
        k.end(pid, End::Killed);
    }
    k.foreground = 0;
    match k.reap(0, Some(pid)) {
        Some((_, End::Exit(0))) | None => {}
        Some((_, end)) => println!("[{pid}] {}", views::ended(end)),
    }
}

fn kill(k: &mut Kernel, pid: &str) {
    match pid.parse() {
        Ok(pid) if k.processes.contains_key(&pid) => k.end(pid, End::Killed),
        _ => println!("no process {pid} (ps lists them)"),
    }
}

fn vm(k: &mut Kernel, pid: &str, address: Option<&str>) {
    let process = pid.parse().ok().and_then(|pid: Pid| k.processes.get(&pid));
    let Some(process) = process.filter(|p| !matches!(p.state, State::Ended(_))) else {
        println!("no process {pid} (ps lists them)");
        return;
    };
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    };
    match address.map(number) {
        Some(None) => println!("not an address: give it as 0x400000"),
        Some(Some(address)) => views::walk(process, address, ""),
        None => {
            views::regions(process);
            views::walk(process, process.context.frame.rip, "");
        }
    }
}
