//! `gemello run`: from arguments to a machine, and from its end to an exit code.

use crate::cli::Run;
use crate::debian::quote::Quoter;
use crate::debian::{self, Errors, Mode, Session};
use crate::escape::Escape;
use crate::input::{Form, Gate, StandardInput};
use crate::output::{Log, LogFile, Progress, Standard};
use crate::window::{self, Window};
use crate::{
    disk, engine, exit, hints, nucleus, outfile, pairs, pipe, save, shell, signals, terminal, trace,
};
use anyhow::{Context as _, Result, bail};
use machine::console::{Input, Line};
use machine::{BootConfig, Config, Device, Disk, End, File, Lines, Machine};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
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
    trace::start(&arguments.trace, arguments.trace_file.is_some());
    pairs::check(arguments)?;
    let mut plan = plan(arguments)?;
    let default_memory = if arguments.nucleus.is_some() { nucleus::MEMORY } else { DEFAULT_MEMORY };
    let memory = arguments.memory.unwrap_or(default_memory);
    pipe::read_all(&mut plan.boot, memory, arguments.timeout)?;
    let log = LogFile::default();
    let second = Log::new(log.clone(), plan.progress.clone());
    let window_follows = plan.window.is_some();
    let lines = Lines {
        com1: Line { input: Some(plan.input), output: Some(Box::new(Standard::Output)) },
        com2: Line { input: plan.window, output: Some(Box::new(second)) },
        com3: Line { input: None, output: plan.errors },
    };
    // The nucleus pages to a disk: without one of the user's it gets one for this run.
    let swap = match (&arguments.nucleus, arguments.disk.is_empty()) {
        (Some(_), true) => Some(nucleus::Swap::new().context("cannot make a swap disk")?),
        _ => None,
    };
    let mut disks: Vec<Disk> =
        arguments.disk.iter().map(|text| disk::parse(text)).collect::<Result<_>>()?;
    disks.extend(swap.iter().map(nucleus::Swap::disk));
    let config = Config {
        memory,
        cpu: arguments.cpu.as_deref().cloned().unwrap_or_else(engine::default_model),
        boot: plan.boot,
        devices: disks.into_iter().map(Device::Disk).collect(),
        debug_exit: arguments.debug_exit || arguments.nucleus.is_some(),
        timeout: arguments.timeout,
    };
    let machine = Machine::build(&config, lines, &*engine::make(arguments.engine, arguments.stats))
        .map_err(|error| match engine::advice(&error) {
            Some(advice) => anyhow::anyhow!("{error}; {advice}"),
            None => error.into(),
        })?;
    if let Some(path) = &arguments.save {
        let kind = match (plan.command, window_follows) {
            (true, _) => bail!("--save is not for a command; give it with a shell or a kernel"),
            (false, true) => save::Kind::DebianShell,
            (false, false) => save::Kind::Console,
        };
        if swap.is_some() {
            bail!("--save needs disks that last; give the nucleus one: --disk FILE");
        }
        save::arm(path, machine.handle(), save::lasting(config.hardware())?, kind)?;
    }
    drop(swap); // the file lives on without a name, as long as the machine has it open
    outfile::open(arguments, &log, &config, &plan.sources)?;
    drop(config); // the boot files: they are in the guest's memory now
    if let Some(progress) = &plan.progress {
        progress.notify_through(machine.notifier());
        window::notify_through(machine.notifier());
    }
    let command = plan.progress.filter(|_| plan.command);
    to_its_end(machine, &Running { raw: plan.raw, stats: arguments.stats, command, log })
}

/// How a machine is run, beside what it is.
pub(crate) struct Running {
    /// The user's terminal becomes the guest's.
    pub(crate) raw: bool,
    /// Print counters at the end.
    pub(crate) stats: bool,
    /// The command whose status is this program's.
    pub(crate) command: Option<Progress>,
    /// Where the second serial line goes.
    pub(crate) log: LogFile,
}

/// Runs the machine to its end, and gives the exit code.
///
/// # Errors
/// The terminal cannot be had: nothing was run.
pub(crate) fn to_its_end(mut machine: Machine, how: &Running) -> Result<u8> {
    confine();
    save::check()?;
    signals::end_machine(machine.stopper());
    let raw = if how.raw {
        Some(terminal::Raw::enter().context("cannot make the terminal raw")?)
    } else {
        None
    };
    let end = machine.run();
    drop(raw);
    if how.stats {
        eprint!("{}", machine.stats());
    }
    explain(&end);
    let code = code(&end, how.command.as_ref());
    Ok(if outfile::are_whole(&how.log) || code != exit::OK { code } else { exit::FAILED })
}

/// Everything is open: what the guest runs on, and whatever this thread starts, has no privileges.
/// The machine's other threads have given up theirs.
fn confine() {
    if let Err(error) = host::give_up_privileges() {
        eprintln!(
            "gemello: the host keeps this program's privileges, which it wants to give up: {error}"
        );
    }
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
        End::GuestPanic(lines) => {
            eprintln!("gemello: the guest's kernel panicked; its last lines:\n{lines}");
        }
        End::TimedOut => eprintln!("gemello: the time given with --timeout is over"),
        End::OutputFailed(text) => {
            eprintln!("gemello: cannot write the guest's output: {text}");
        }
        End::NotStarted(text) => eprintln!("gemello: this host cannot run the machine: {text}"),
        End::PowerOff | End::Reset | End::DebugExit(_) | End::Interrupted | End::OutputClosed => {}
    }
}

/// A guest's memory unless the user says otherwise.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// What to boot, and how the user's side of it behaves.
struct Plan {
    boot: BootConfig,
    input: Box<dyn Input>,
    /// Whether the user's terminal becomes the guest's.
    raw: bool,
    /// What the guest's init reports on the second line, if it does.
    progress: Option<Progress>,
    /// Whether it runs a command, whose status is this program's.
    command: bool,
    /// What the guest hears on the second line.
    window: Option<Box<dyn Input>>,
    /// Where the third line goes.
    errors: Option<Box<dyn Write + Send>>,
    /// Files that parts of `boot` were made from.
    sources: Vec<PathBuf>,
}

impl Plan {
    /// For a guest that has the first line, and knows nothing of us.
    fn of(boot: BootConfig) -> Self {
        let raw = terminal::input_is_terminal();
        let form = if raw { Form::Terminal(Escape::default()) } else { Form::Bytes };
        Self {
            boot,
            input: Box::new(StandardInput::new(form, Gate::new(true))),
            raw,
            progress: None,
            command: false,
            window: None,
            errors: None,
            sources: Vec::new(),
        }
    }
}

fn plan(arguments: &Run) -> Result<Plan> {
    if let Some(word) = &arguments.nucleus {
        return Ok(nucleus_plan(arguments, word));
    }
    match (&arguments.what, &arguments.kernel) {
        (Some(what), _) if what == "debian" => debian_plan(arguments),
        (Some(file), _) => match hints::no_such_guest(file) {
            Some(hint) => bail!("{hint}"),
            None => kernel_plan(arguments, Path::new(file)),
        },
        (None, Some(kernel)) => kernel_plan(arguments, kernel),
        (None, None) if !arguments.command.is_empty() => {
            let command = ["gemello", "run", "debian", "--"].map(OsString::from).into_iter();
            let command = shell::command(command.chain(arguments.command.clone()));
            bail!("a command needs a guest: {command}")
        }
        (None, None) => bail!(
            "nothing to boot: give debian, an image, or --kernel FILE; see gemello run --help"
        ),
    }
}

fn nucleus_plan(arguments: &Run, word: &str) -> Plan {
    let cmdline = match &arguments.cmdline {
        Some(more) => format!("{word} {more}"),
        None => word.to_owned(),
    };
    Plan::of(BootConfig {
        kernel: File::Bytes { name: "the nucleus".into(), bytes: nucleus::IMAGE.to_vec() },
        initrd: None,
        cmdline,
        modules: Vec::new(),
    })
}

fn kernel_plan(arguments: &Run, kernel: &Path) -> Result<Plan> {
    if !arguments.command.is_empty() {
        bail!("a command after -- is for `run debian`; give this kernel --cmdline and --initrd");
    }
    Ok(Plan::of(BootConfig {
        kernel: File::Path(kernel.to_owned()),
        initrd: arguments.initrd.clone().map(File::Path),
        cmdline: arguments.cmdline.clone().unwrap_or_else(|| CMDLINE.into()),
        modules: arguments.module.iter().map(|text| module(text)).collect::<Result<_>>()?,
    }))
}

fn debian_plan(arguments: &Run) -> Result<Plan> {
    if arguments.initrd.is_some() || !arguments.module.is_empty() {
        bail!(
            "`run debian` brings its own initial file system; use --kernel with --initrd or \
             --module"
        );
    }
    let fetched = debian::fetch(arguments.flavour.unwrap_or_default(), false)?;
    let mode = mode(&arguments.command);
    let errors = errors(&mode);
    let window = terminal::window();
    let ready = Gate::new(false);
    let (form, gate, raw) = match &mode {
        Mode::Pipe(_) => (Form::Stream(Quoter::default()), ready.clone(), false),
        Mode::Command(_) => (Form::Terminal(Escape::default()), ready.clone(), true),
        Mode::Shell if terminal::input_is_terminal() => {
            (Form::Terminal(Escape::default()), Gate::new(true), true)
        }
        Mode::Shell => (Form::Bytes, Gate::new(true), false),
    };
    let follow = |size| Box::new(Window::new(size, ready.clone())) as Box<dyn Input>;
    let session = Session {
        errors,
        window,
        term: std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()),
        disks: !arguments.disk.is_empty(),
        mode,
    };
    let initrd = debian::initramfs(&fetched, &session)?;
    let mut sources = fetched.drivers;
    sources.push(fetched.busybox);
    Ok(Plan {
        boot: BootConfig {
            kernel: File::Path(fetched.kernel),
            initrd: Some(File::Bytes { name: "gemello's initramfs".into(), bytes: initrd }),
            cmdline: debian_cmdline(arguments),
            modules: Vec::new(),
        },
        input: Box::new(StandardInput::new(form, gate)),
        raw,
        progress: Some(Progress::new(ready.clone())),
        command: session.mode != Mode::Shell,
        window: (!matches!(session.mode, Mode::Pipe(_))).then(|| follow(window)),
        errors: (errors == Errors::Apart).then(|| Box::new(Standard::Error) as _),
        sources,
    })
}

/// A command has a terminal where both its input and its output are one, as in a pipeline of the
/// host's.
fn mode(command: &[OsString]) -> Mode {
    let terminal = terminal::input_is_terminal() && terminal::output_is_terminal();
    match (command.is_empty(), terminal) {
        (true, _) => Mode::Shell,
        (false, true) => Mode::Command(command.to_vec()),
        (false, false) => Mode::Pipe(command.to_vec()),
    }
}

/// Standard error is apart from the output unless both are one place: then they keep their order.
fn errors(mode: &Mode) -> Errors {
    let together = match mode {
        Mode::Shell => true,
        Mode::Command(_) => terminal::error_is_terminal(),
        Mode::Pipe(_) => terminal::output_is_error(),
    };
    if together { Errors::WithOutput } else { Errors::Apart }
}

/// The kernel's messages go to the terminal of a shell, and keep out of a command's output.
fn debian_cmdline(arguments: &Run) -> String {
    let console = match (arguments.command.is_empty(), arguments.log.is_some()) {
        (true, _) => "console=ttyS0 quiet",
        (false, false) => "console=ttyS1 quiet",
        (false, true) => "console=ttyS1",
    };
    let more = arguments.cmdline.as_deref().unwrap_or_default();
    format!("{console} {KERNEL_OPTIONS} {more}").trim_end().to_owned()
}

/// `FILE[=ARGS]`; a file whose name holds `=` is taken whole if it exists.
fn module(text: &OsStr) -> Result<(File, String)> {
    let bytes = text.as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=');
    let Some(equals) = equals.filter(|_| !Path::new(text).exists()) else {
        return Ok((File::Path(text.into()), String::new()));
    };
    let arguments = std::str::from_utf8(&bytes[equals + 1..]).with_context(|| {
        format!("the arguments of --module {} are no UTF-8 text; change them", shell::shown(text))
    })?;
    Ok((File::Path(OsStr::from_bytes(&bytes[..equals]).into()), arguments.to_owned()))
}
