//! gemello: boots unmodified operating systems anywhere.
//!
//! This crate is the program: arguments, the user's terminal, fetching guests, exit codes. The
//! computer is the crate `machine`.
#![forbid(unsafe_code)]

#[macro_use]
mod say;

mod advice;
mod again;
mod bench;
mod cli;
mod cloud_init;
mod coming_up;
mod console;
mod control;
mod debian;
mod detach;
mod disk;
mod disk_command;
mod doctor;
mod engine;
mod escape;
mod examples;
mod exit;
mod fetch;
mod first_boot;
mod follow;
mod gate;
mod guest;
mod handover;
mod hints;
mod host_memory;
mod hosted;
mod images;
mod input;
mod job;
mod limits;
mod nucleus;
mod outfile;
mod output;
mod pairs;
mod pipe;
mod place;
mod plan;
mod refusal;
mod restore;
mod room;
mod run;
mod save;
mod screen;
mod session;
mod settings;
mod several;
mod shell;
mod side;
mod signals;
mod statistics;
mod template;
mod terminal;
mod to_its_end;
mod trace;
mod window;
mod wishes;

use anyhow::Result;
use clap::Parser as _;
use cli::{Cli, Command};
use settings::names::Names;
use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: host::Allocator = host::Allocator;

fn main() -> ExitCode {
    host::one_heap();
    host::at_exhaustion(terminal::restore);
    host::raise_open_files();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => match hints::hint(&error, &arguments) {
            Some(hint) => {
                eprintln!("gemello: {hint}");
                return ExitCode::from(exit::BAD_INPUT);
            }
            None => return ExitCode::from(explain(&error, &arguments)),
        },
    };
    terminal::end_on_panic();
    // Without a word: the guest that needs nothing.
    let command = cli.command.unwrap_or_else(cli::nucleus);
    let result = signals::handle().and_then(|()| perform(&command, &arguments));
    terminal::restore();
    let code = result.unwrap_or_else(|error| {
        eprintln!("gemello: {}", advice::message(&error, &Names::default()));
        exit::BAD_INPUT
    });
    let lost = say::finish().filter(|_| code == exit::OK);
    ExitCode::from(lost.unwrap_or(code))
}

/// Does what `command` asks for, which the program's `arguments` say; the exit status.
fn perform(command: &Command, arguments: &[OsString]) -> Result<u8> {
    match command {
        Command::Run(run) if run.detach && !place::is_detached() => {
            detach::away(arguments.get(1..).unwrap_or_default())
        }
        Command::Detached { words } => {
            detach::begin()?;
            let words = std::iter::once("gemello".into()).chain(words.iter().cloned());
            let command = Cli::try_parse_from(words)?.command.unwrap_or_else(cli::nucleus);
            perform(&command, arguments)
        }
        Command::Run(arguments) => run::run(arguments),
        Command::Restore(arguments) => restore::restore(arguments),
        Command::Fetch(arguments) => fetch::fetch(arguments),
        Command::Configure { folder, words } => first_boot::run_words(folder, words),
        Command::Ps { json } => control::commands::ps(*json),
        Command::Stop { names, force, timeout } => control::commands::stop(names, *force, *timeout),
        Command::Pause { names } => control::commands::pause(names),
        Command::Resume { names } => control::commands::resume(names),
        Command::Stats { names, json } => control::commands::stats(names, *json),
        Command::Balloon { name, memory } => control::commands::balloon(name, *memory),
        Command::Console { name } => control::console(name),
        Command::Exec(arguments) => guest::exec(arguments),
        Command::Cp(arguments) => guest::copy(arguments),
        Command::Nc(arguments) => guest::netcat(arguments),
        Command::Ssh(arguments) => guest::ssh(arguments),
        Command::Logs { name, follow } => control::logs(name, *follow),
        Command::Bench(arguments) => bench::bench(arguments),
        Command::Tethered { parent, words } => bench::tethered(*parent, words),
        Command::Images { json } => images::commands::list(*json),
        Command::Rm { names } => images::commands::remove(names),
        Command::Prune => images::commands::prune(),
        Command::Disk(command) => disk_command::run(command),
        Command::Doctor => {
            doctor::doctor();
            Ok(exit::OK)
        }
    }
}

/// Prints help, the version or what is wrong with the arguments; the exit status.
fn explain(text: &clap::Error, arguments: &[OsString]) -> u8 {
    if text.use_stderr() {
        eprintln!("gemello: {}", refusal::one_line(text, arguments));
        return exit::BAD_INPUT;
    }
    text.print().err().map_or(exit::OK, |error| say::lost(&error))
}
