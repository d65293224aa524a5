//! Project tasks, run as `cargo xtask TASK`.
#![forbid(unsafe_code)]

mod diff;
mod subjects;

use clap::Parser;
use std::process::ExitCode;

/// Project tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Hold an engine against the host processor, instruction by instruction.
    Diff(diff::Arguments),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Diff(arguments) => diff::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
