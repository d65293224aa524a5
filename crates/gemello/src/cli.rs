//! The command line.

use crate::bench::machine::Machine;
use crate::debian::Flavour;
use crate::exit;
use crate::trace::Topic;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use x86::cpuid::CpuModel;

const EXAMPLES: &str = "\
Examples:
  gemello                                        the nucleus: gemello's own small operating system
  gemello run --nucleus demo                     its guided tour of the concepts
  gemello run debian                             a shell in Debian, fetched on first use
  gemello run debian -- uname -a                 one command; its output, its exit status
  sort < names | gemello run debian -- uniq -c   in a pipeline, any bytes both ways
  gemello run --kernel vmlinuz --initrd initrd.img --memory 1G
  gemello run kernel.elf --module init.bin=arg   a Multiboot image
  gemello bench --only user                      how fast it is here, beside the host and QEMU
  gemello doctor                                 what this host offers

On the terminal: Ctrl-A x quits, Ctrl-A s saves (--save), Ctrl-A h explains, \
Ctrl-A Ctrl-A sends Ctrl-A.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  gemello run debian --save debian.gm        then Ctrl-A s, at any time
  gemello restore debian.gm                  goes on from there, as often as you like
  gemello restore debian.gm --save later.gm

A disk that was written since is refused: restore its copy with it, and give --accept-disks.";

const FETCH_EXAMPLES: &str = "\
Examples:
  gemello fetch debian                       the kernel for virtual machines, and busybox
  gemello fetch debian --flavour full        the kernel for physical machines

apt-get fetches and verifies them. They go to $XDG_CACHE_HOME/gemello, else ~/.cache/gemello;
nothing else of this host is touched.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  gemello doctor                             the processor, the engine, the cache, the terminal
  gemello doctor > report.txt                to go with a question";

const BENCH_EXAMPLES: &str = "\
Examples:
  gemello bench                              every row, three times: some ten minutes
  gemello bench --list                       what the rows and groups are called
  gemello bench --only user --rounds 1       one group, once
  gemello bench --on native,t1 --json > bench.json";

/// Boots unmodified operating systems anywhere.
#[derive(Debug, Parser)]
#[command(name = "gemello", version, max_term_width = 100, after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a guest
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
    Run(Box<Run>),
    /// Go on with a machine that was saved
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Restore),
    /// Fetch a guest into the cache, or bring it up to date
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch(Fetch),
    /// Tell what this host offers
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// Measure this machine, natively, on gemello and on QEMU
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// For `bench`: become a program that ends with its parent
    #[command(hide = true)]
    Tethered {
        /// The parent
        parent: i32,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What `gemello` without a command does.
pub(crate) fn nucleus() -> Command {
    Cli::parse_from(["gemello", "run", "--nucleus"]).command.unwrap_or(Command::Doctor)
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// `debian`, or a kernel image (a file called debian: ./debian)
    #[arg(value_name = "debian|FILE", conflicts_with = "kernel")]
    pub(crate) what: Option<OsString>,

    /// With `debian`: run this in the guest in place of a shell
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,

    /// Kernel to boot: bzImage, vmlinux, PVH ELF or Multiboot image
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Boot the nucleus, which ships with gemello: its shell, or with a word `demo` or `test`
    #[arg(long, value_name = "WORD", num_args = 0..=1, default_missing_value = "",
        conflicts_with_all = ["what", "kernel", "initrd", "module"])]
    pub(crate) nucleus: Option<String>,

    /// Initial file system for the kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// Kernel command line; with `debian`: appended to gemello's own [default for a kernel:
    /// console=ttyS0]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,

    /// Further file for a Multiboot or PVH kernel, with its arguments; may be repeated
    #[arg(long, value_name = "FILE[=ARGS]")]
    pub(crate) module: Vec<OsString>,

    /// Disk: a raw image file, for reading only with ,ro; one that looks like another format only
    /// with ,format=raw; may be repeated
    #[arg(long, value_name = "FILE[,ro][,format=raw]")]
    pub(crate) disk: Vec<OsString>,

    /// Guest memory, with unit K, M or G [default: 512M; for the nucleus 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,

    /// Processor that the guest sees, with features added or removed: gemello-v2,+smap,-pcid
    /// [default: gemello-v3 where this host can carry it, else gemello-v2]
    #[arg(long, value_name = "MODEL", value_parser = parse_cpu)]
    pub(crate) cpu: Option<Box<CpuModel>>,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,

    /// End the run after this time: 30 (seconds), 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// Write the guest's second serial line (with `debian -- CMD`: the kernel's messages) to this
    /// file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Follow these in detail, on standard error or in --trace-file
    #[arg(long, value_name = "TOPICS", value_enum, value_delimiter = ',')]
    pub(crate) trace: Vec<Topic>,

    /// Write the trace to this file
    #[arg(long, value_name = "FILE", requires = "trace")]
    pub(crate) trace_file: Option<PathBuf>,

    /// Print counters at the end, on standard error
    #[arg(long)]
    pub(crate) stats: bool,

    /// Where Ctrl-A s, or SIGUSR1, saves the machine; `gemello restore FILE` goes on from there
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// Let the guest end the program by writing a byte to port F4h
    #[arg(long)]
    pub(crate) debug_exit: bool,

    /// Which of Debian's kernels [default: cloud]
    #[arg(long, value_enum)]
    pub(crate) flavour: Option<Flavour>,
}

/// Which engine, and how it runs guests.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EngineOptions {
    /// What runs guest instructions
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: Engine,

    /// How the software engine runs guest code
    #[arg(long, value_enum, default_value_t)]
    pub(crate) tier: Tier,

    /// Memory for translated code, 1M to 1G [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_code_cache)]
    pub(crate) code_cache: Option<u64>,
}

/// A saved machine, and how to run it.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `gemello run … --save FILE` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) engine: EngineOptions,

    /// End the run after this time: 30 (seconds), 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// Where Ctrl-A s, or SIGUSR1, saves the machine again
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// Write the guest's second serial line to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// Take the disks as they are, also where their files were written since the machine was saved
    #[arg(long)]
    pub(crate) accept_disks: bool,

    /// Print counters at the end, on standard error
    #[arg(long)]
    pub(crate) stats: bool,
}

/// What runs guest instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The best that works here.
    #[default]
    Auto,
    /// gemello's own processor, in software.
    Soft,
}

/// How the software engine runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// The interpreter alone: the reference.
    Interp,
    /// Hot code as host code on the host's own registers, the interpreter for the rest.
    #[default]
    Translate,
    /// Translated code held against the interpreter at each entry; the first difference ends the
    /// run. Slow.
    Lockstep,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// What to fetch
    #[arg(value_enum)]
    pub(crate) what: Guest,

    /// Which of Debian's kernels
    #[arg(long, value_enum, default_value_t)]
    pub(crate) flavour: Flavour,
}

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

/// A guest that gemello can fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Guest {
    /// Debian's kernel and busybox.
    Debian,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "" => return Err(format!("give a unit: {text}M, for instance")),
        _ => return Err("the unit is K, M or G: 512M, for instance".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "no whole number: 512M, for instance")?;
    number.checked_mul(unit).ok_or_else(|| "more than 64 bits can count".into())
}

/// Below this much the translator does little else than to discard what it has just made.
const CODE_CACHE_MIN: u64 = 1 << 20;
/// Code reaches code by displacements of 32 bits.
const CODE_CACHE_MAX: u64 = 1 << 30;

fn parse_code_cache(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        ..CODE_CACHE_MIN => Err("too little for translated code to last; give 1M or more".into()),
        size @ CODE_CACHE_MIN..=CODE_CACHE_MAX => Ok(size),
        _ => Err("more than branches between translations reach; give 1G or less".into()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit is ms, s, m or h: 30s, for instance".into()),
    };
    let number: f64 = digits.parse().map_err(|_| "no number: 30s, for instance")?;
    let time = Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())?;
    if time.is_zero() { Err("a run needs some time".into()) } else { Ok(time) }
}

fn parse_cpu(text: &str) -> Result<Box<CpuModel>, String> {
    CpuModel::parse(text).map(Box::new).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        for wrong in ["512", "M", "-1M", "1.5G", "99999999999G", "5T", ""] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_code_cache("1M"), Ok(CODE_CACHE_MIN));
        assert_eq!(parse_code_cache("1G"), Ok(CODE_CACHE_MAX));
        for (wrong, advice) in [("0K", "1M"), ("1023K", "1M"), ("1025M", "1G"), ("64", "unit")] {
            assert!(parse_code_cache(wrong).expect_err(wrong).contains(advice), "{wrong}");
        }
        for wrong in ["", "s", "-1s", "0", "1d", "1e400s", "nan"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    /// Every command in the help texts and in README.md, up to its explanation.
    fn shown_commands() -> Vec<String> {
        let readme = include_str!("../../../README.md");
        let help = [EXAMPLES, RESTORE_EXAMPLES, FETCH_EXAMPLES, DOCTOR_EXAMPLES, BENCH_EXAMPLES];
        let lines = help.into_iter().chain([readme]).flat_map(str::lines);
        let indented = lines.filter_map(|line| line.strip_prefix("  ")).map(str::trim);
        let commands = indented.filter_map(|line| {
            let line = line.split("  ").next()?.split(" #").next()?;
            let from = line.find("gemello").filter(|&at| at == 0 || line[..at].ends_with("| "))?;
            Some(line[from..].split(" > ").next()?.to_owned())
        });
        commands.collect()
    }

    #[test]
    fn every_command_that_is_shown_is_one() {
        let commands = shown_commands();
        assert!(commands.len() > 35, "{commands:?}");
        for line in commands {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
        }
    }

    #[test]
    fn a_command_follows_two_dashes() {
        let cli = Cli::try_parse_from(["gemello", "run", "debian", "--", "ls", "--help"]);
        let Some(Command::Run(run)) = cli.expect("valid").command else { panic!("not run") };
        assert_eq!(run.command, ["ls", "--help"]);
        assert!(Cli::try_parse_from(["gemello", "run", "debian", "--kernel", "x"]).is_err());
    }
}
