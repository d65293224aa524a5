//! The programs that `gemello bench` times, in one static file that runs natively and as process 1
//! of a guest.
//!
//! ```text
//! bench-guest NAME                one row: prints "NAME VALUE NANOSECONDS"
//! bench-guest serve BUSYBOX GCC SERVER  rows by name from standard input, until it ends
//! bench-guest one NAME BUSYBOX GCC SERVER  one row for a second (what NAME COUNT starts)
//! bench-guest exit                exits (what the row forkexec starts)
//! /init                           the same as serve, on the serial line; with "bench=boot" on the
//!                                 kernel's command line: tells the uptime and powers off
//! ```
//!
//! A request is a row's name, or NAME COUNT: by so many processes at once, for a second.
//!
//! An answer is one line: `@bench NAME VALUE NANOSECONDS`, `@bench NAME none` where the machine
//! lacks what the row needs, or `@bench fail MESSAGE`. The value is hexadecimal and the same
//! everywhere; the time is that of one operation. The prefix tells answers from a kernel's
//! messages.

mod kernels;
mod measure;
mod network;
mod programs;
mod side;

use measure::Outcome;
use programs::Tools;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        let uptime = kernels::uptime();
        kernels::init();
        return process_one(uptime);
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", busybox, compiler, server] => in_scratch(&Tools::at(busybox, compiler, server)),
        ["one", name, busybox, compiler, server] => {
            println!("{}", beside_others(name, &Tools::at(busybox, compiler, server)));
            ExitCode::SUCCESS
        }
        [name] => {
            println!("{}", line(name, &measure::row(name, &Tools::in_a_guest())));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: bench-guest NAME | serve BUSYBOX GCC SERVER | exit");
            ExitCode::from(2)
        }
    }
}

fn process_one(uptime: u64) -> ExitCode {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if words.split_whitespace().any(|word| word == "bench=boot") {
        say(&line("boot", &Outcome::Done { value: 1, nanoseconds: uptime as f64 }));
    } else {
        serve(&Tools::in_a_guest());
    }
    kernels::power_off();
    ExitCode::FAILURE
}

/// Serves in a directory of its own, in memory where there is a place for that, removed at the end.
fn in_scratch(tools: &Tools) -> ExitCode {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let place = base.join(format!("gemello-bench-{}", std::process::id()));
    let entered = std::fs::create_dir(&place).and_then(|()| std::env::set_current_dir(&place));
    if let Err(error) = entered {
        say(&format!("@bench fail cannot use {}: {error}", place.display()));
        return ExitCode::FAILURE;
    }
    serve(tools);
    let _ = std::fs::remove_dir_all(&place);
    ExitCode::SUCCESS
}

fn serve(tools: &Tools) {
    say("@bench ready");
    for request in io::stdin().lock().lines().map_while(Result::ok) {
        match request.trim().split_once(' ').map(|(name, count)| (name, count.parse())) {
            None => say(&line(request.trim(), &measure::row(request.trim(), tools))),
            Some((name, Ok(count))) => say(&line(name, &side::by_side(name, count, tools))),
            Some(_) => say(&format!("@bench fail no row and count: {request:?}")),
        }
    }
}

/// What a process says of its row, which has a directory of its own.
fn beside_others(name: &str, tools: &Tools) -> String {
    let place = PathBuf::from(std::process::id().to_string());
    let entered = std::fs::create_dir(&place).and_then(|()| std::env::set_current_dir(&place));
    if let Err(error) = entered {
        return format!("@bench fail cannot use {}: {error}", place.display());
    }
    let said = line(name, &side::one(name, tools));
    let _ = std::env::set_current_dir("..").and_then(|()| std::fs::remove_dir_all(&place));
    said
}

fn line(name: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { value, nanoseconds } => format!("@bench {name} {value:x} {nanoseconds:.3}"),
        Outcome::Lacking => format!("@bench {name} none"),
        Outcome::Failed(message) => format!("@bench fail {message}"),
    }
}

/// On a line of its own, whatever stands there already.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "\n{text}\n").and_then(|()| out.flush());
}
