//! The command line of `gemello bench`.

use super::machine::Machine;
use clap::Args;
use std::path::PathBuf;

/// The set of rows: docs/benchmark.md.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Only these rows or groups
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Measure everything this often; the interpreter, which is slow, once
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Compare what one process does with as many at once, on a guest of so many processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    pub(crate) vcpus: Option<u32>,

    /// On these machines [default: all, tcg where QEMU is installed]
    #[arg(long, value_name = "MACHINE,...", value_enum, value_delimiter = ',')]
    pub(crate) on: Vec<Machine>,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,

    /// List the rows and groups
    #[arg(long)]
    pub(crate) list: bool,

    /// The guest program, built already [default: built from the sources in benches/guest]
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,
}
