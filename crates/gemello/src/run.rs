//! `gemello run`: from arguments to a machine, and from its end to an exit code.

use crate::cli::Run;
use crate::debian::quote::Quoter;
use crate::debian::{self, Mode, Session};
use crate::escape::Escape;
use crate::input::{Form, Gate, StandardInput};
use crate::output::{Log, Progress, StandardOutput};
use crate::{disk, engine, exit, nucleus, signals, terminal, trace};
use anyhow::{Context as _, Result, bail};
use machine::console::Line;
use machine::{BootConfig, Config, Disk, End, File, Lines, Machine};
use std::path::{Path, PathBuf};

/// Kernel command line where the user gives none.
const CMDLINE: &str = "console=ttyS0";

/// For Debian's kernel: a panic ends the machine.
const KERNEL_OPTIONS: &str = "panic=-1";

/// Runs what `arguments` ask for, and gives the exit code.
///
/// # Errors
/// Wrong arguments or files, or something this host lacks: nothing was run.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    trace::start(&arguments.trace, arguments.trace_file.as_deref())?;
    let plan = plan(arguments)?;
    let progress = plan.reports.then(|| Progress::new(plan.gate.clone()));
    let log = Log::new(arguments.log.as_deref(), progress.clone())?;
    let input = StandardInput::new(plan.form, plan.gate);
    let lines = Lines {
        com1: Line { input: Some(Box::new(input)), output: Some(Box::new(StandardOutput)) },
        com2: Line { input: None, output: Some(Box::new(log)) },
    };
    // The nucleus pages to a disk: without one of the user's it gets one for this run.
    let swap = match (&arguments.nucleus, arguments.disk.is_empty()) {
        (Some(_), true) => Some(nucleus::Swap::new().context("cannot make a swap disk")?),
        _ => None,
    };
    let mut disks: Vec<Disk> =
        arguments.disk.iter().map(|text| disk::parse(text)).collect::<Result<_>>()?;
    disks.extend(swap.iter().map(nucleus::Swap::disk));
    let default_memory = if arguments.nucleus.is_some() { nucleus::MEMORY } else { DEFAULT_MEMORY };
    let config = Config {
        memory: arguments.memory.unwrap_or(default_memory),
        cpu: arguments.cpu.as_deref().cloned().unwrap_or_else(engine::default_model),
        boot: plan.boot,
        disks,
        debug_exit: arguments.debug_exit || arguments.nucleus.is_some(),
        timeout: arguments.timeout,
    };
    let choice = engine::Choice {
        engine: arguments.engine,
        tier: arguments.tier,
        code_cache: arguments.code_cache,
        count: arguments.stats,
    };
    let mut machine =
        Machine::build(&config, lines, &|ram, model| engine::new_vcpu(choice, ram, model))?;
    drop(swap); // the file lives on without a name, as long as the machine has it open
    drop(config); // the boot files: they are in the guest's memory now
    if let Some(progress) = &progress {
        progress.ring(machine.bell());
    }
    signals::end_machine(machine.stopper());
    let raw = if plan.raw {
        Some(terminal::Raw::enter().context("cannot make the terminal raw")?)
    } else {
        None
    };
    let end = machine.run();
    drop(raw);
    trace::finish();
    if arguments.stats {
        eprint!("{}", machine.stats());
    }
    explain(&end);
    Ok(code(&end, progress.as_ref()))
}

/// The command's status, where there was a command and it came to its end.
fn code(end: &End, progress: Option<&Progress>) -> u8 {
    match (end, progress) {
        (End::PowerOff | End::Reset, Some(progress)) => progress.status().unwrap_or_else(|| {
            eprintln!(
                "gemello: the guest ended before its command did; --log FILE shows its messages"
            );
            exit::NO_STATUS
        }),
        _ => exit::code(end, signals::received()),
    }
}

/// Says why a run ended, where that is no matter of course.
fn explain(end: &End) {
    match end {
        End::TripleFault(report) => {
            eprint!("gemello: triple fault; the guest's last state:\n{report}");
        }
        End::EngineFailed(text) => {
            eprintln!("gemello: the engine failed, please report this: {text}");
        }
        End::TimedOut => eprintln!("gemello: the time given with --timeout is over"),
        End::PowerOff | End::Reset | End::DebugExit(_) | End::Interrupted | End::OutputClosed => {}
    }
}

/// A guest's memory unless the user says otherwise.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// What to boot, and how the user's side of it behaves.
struct Plan {
    boot: BootConfig,
    form: Form,
    /// Whether the user's terminal becomes the guest's.
    raw: bool,
    gate: Gate,
    /// Whether the guest's init reports on the second line.
    reports: bool,
}

fn plan(arguments: &Run) -> Result<Plan> {
    if let Some(word) = &arguments.nucleus {
        return Ok(nucleus_plan(arguments, word));
    }
    match (&arguments.what, &arguments.kernel) {
        (Some(what), _) if what == "debian" => debian_plan(arguments),
        (Some(file), _) => kernel_plan(arguments, Path::new(file)),
        (None, Some(kernel)) => kernel_plan(arguments, kernel),
        (None, None) => bail!(
            "nothing to boot: give `debian`, an image, or --kernel FILE; see gemello run --help"
        ),
    }
}

fn nucleus_plan(arguments: &Run, word: &str) -> Plan {
    let raw = terminal::input_is_terminal();
    let cmdline = match &arguments.cmdline {
        Some(more) => format!("{word} {more}"),
        None => word.to_owned(),
    };
    Plan {
        boot: BootConfig {
            kernel: File::Bytes { name: "the nucleus".into(), bytes: nucleus::IMAGE.to_vec() },
            initrd: None,
            cmdline,
            modules: Vec::new(),
        },
        form: if raw { Form::Terminal(Escape::default()) } else { Form::Bytes },
        raw,
        gate: Gate::new(true),
        reports: false,
    }
}

fn kernel_plan(arguments: &Run, kernel: &Path) -> Result<Plan> {
    if !arguments.command.is_empty() {
        bail!("a command after -- is for `run debian`; give this kernel --cmdline and --initrd");
    }
    let raw = terminal::input_is_terminal();
    Ok(Plan {
        boot: BootConfig {
            kernel: File::Path(kernel.to_owned()),
            initrd: arguments.initrd.clone().map(File::Path),
            cmdline: arguments.cmdline.clone().unwrap_or_else(|| CMDLINE.into()),
            modules: arguments.module.iter().map(|text| module(text)).collect(),
        },
        form: if raw { Form::Terminal(Escape::default()) } else { Form::Bytes },
        raw,
        gate: Gate::new(true),
        reports: false,
    })
}

fn debian_plan(arguments: &Run) -> Result<Plan> {
    if arguments.initrd.is_some() || !arguments.module.is_empty() {
        bail!(
            "`run debian` brings its own initial file system; use --kernel with --initrd or --module"
        );
    }
    let fetched = debian::fetch(arguments.flavour, false)?;
    let input = terminal::input_is_terminal();
    let command = arguments.command.clone();
    let mode = match (command.is_empty(), input && terminal::output_is_terminal()) {
        (true, _) => Mode::Shell,
        (false, true) => Mode::Command(command),
        (false, false) => Mode::Pipe(command),
    };
    let (form, raw) = match &mode {
        Mode::Pipe(_) => (Form::Stream(Quoter::default()), false),
        _ if input => (Form::Terminal(Escape::default()), true),
        _ => (Form::Bytes, false),
    };
    let reports = mode != Mode::Shell;
    let console = match (reports, arguments.log.is_some()) {
        (false, _) => "console=ttyS0 quiet",
        (true, false) => "console=ttyS1 quiet",
        (true, true) => "console=ttyS1",
    };
    let mut cmdline = format!("{console} {KERNEL_OPTIONS}");
    if let Some(more) = &arguments.cmdline {
        cmdline = format!("{cmdline} {more}");
    }
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let disks = !arguments.disk.is_empty();
    let session = Session { mode, window: terminal::window(), term, disks };
    let initrd = debian::initramfs(&fetched, &session)?;
    Ok(Plan {
        boot: BootConfig {
            kernel: File::Path(fetched.kernel),
            initrd: Some(File::Bytes { name: "gemello's initramfs".into(), bytes: initrd }),
            cmdline,
            modules: Vec::new(),
        },
        form,
        raw,
        gate: Gate::new(!reports),
        reports,
    })
}

/// `FILE[=ARGS]`; a file whose name holds `=` is taken whole if it exists.
fn module(text: &str) -> (File, String) {
    match text.split_once('=') {
        Some((file, args)) if !Path::new(text).exists() => (File::Path(file.into()), args.into()),
        _ => (File::Path(PathBuf::from(text)), String::new()),
    }
}
