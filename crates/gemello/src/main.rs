//! gemello: boots unmodified operating systems anywhere.
//!
//! This crate is the program: arguments, the user's terminal, fetching guests, exit codes. The computer is the crate
//! `machine`.
#![forbid(unsafe_code)]

mod advice;
mod bench;
mod cli;
mod debian;
mod disk;
mod doctor;
mod engine;
mod escape;
mod exit;
mod hints;
mod input;
mod nucleus;
mod output;
mod pairs;
mod restore;
mod run;
mod save;
mod shell;
mod signals;
mod terminal;
mod trace;
mod window;

use clap::Parser as _;
use cli::{Cli, Command, Guest};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => match hints::hint(&error, &arguments) {
            Some(hint) => {
                eprintln!("gemello: {hint}");
                return ExitCode::from(exit::BAD_INPUT);
            }
            None => error.exit(),
        },
    };
    terminal::restore_on_panic();
    // Without a word: the guest that needs nothing.
    let command = cli.command.unwrap_or_else(cli::nucleus);
    let result = signals::handle().and_then(|()| match &command {
        Command::Run(arguments) => run::run(arguments),
        Command::Restore(arguments) => restore::restore(arguments),
        Command::Fetch(arguments) => match arguments.what {
            Guest::Debian => debian::fetch(arguments.flavour, true).map(|_| exit::OK),
        },
        Command::Bench(arguments) => bench::bench(arguments),
        Command::Tethered { parent, words } => bench::tethered(*parent, words),
        Command::Doctor => {
            doctor::doctor();
            Ok(exit::OK)
        }
    });
    terminal::restore();
    let code = result.unwrap_or_else(|error| {
        eprintln!("gemello: {}", advice::message(&error));
        exit::BAD_INPUT
    });
    ExitCode::from(code)
}
