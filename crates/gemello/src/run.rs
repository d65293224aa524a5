//! `gemello run`: from settings to a machine, and from its end to an exit code.

use crate::cli::Run;
use crate::nucleus;
use crate::output::{LogFile, Progress};
use crate::plan::{self, Plan};
use crate::session::SavedSession;
use crate::settings::Settings;
use crate::settings::disk::DiskSettings;
use crate::settings::name::MachineName;
use crate::settings::options::{self, Given};
use crate::settings::sched::SchedSettings;
use crate::settings::values::{Size, Time};
use crate::side::Side;
use crate::statistics::Table;
use crate::trace::To;
use crate::{
    advice, again, engine, exit, host_memory, outfile, pairs, pipe, save, signals, terminal, trace,
};
use anyhow::{Context as _, Result};
use machine::{BootConfig, Config, Device, End, Lines, Machine, Paging};
use std::path::PathBuf;

/// Runs what `arguments` ask for, and gives the exit code.
///
/// # Errors
/// Wrong arguments or files, or something this host lacks: nothing was run.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    let Given { settings, names, kernel } = options::gather(arguments)?;
    let result = pairs::check(&settings).and_then(|()| {
        if arguments.print_config {
            print!("{}", options::print(&settings)?);
            return Ok(exit::OK);
        }
        let to = if settings.run.trace_file.is_some() { To::File } else { To::StandardError };
        trace::start(&settings.run.trace, to);
        let name = settings.name(names.file.as_ref().map(|(path, _)| &**path));
        start(&settings, &name, plan::plan(&settings, kernel)?)
    });
    result.map_err(|error| anyhow::Error::msg(advice::message(&error, &names)))
}

/// Builds the machine of `settings`, called `name`, which boots what `plan` says, and runs it to
/// its end.
fn start(settings: &Settings, name: &MachineName, plan: Plan) -> Result<u8> {
    let Plan { boot, side, sources } = plan;
    let config = config(settings, boot)?;
    if config.paging.is_none() {
        host_memory::warn(config.memory);
    }
    let log = LogFile::default();
    let machine = build(&config, side.lines(&log), settings)?;
    tracing::debug!(target: "boot", %name, "built");
    if let Some(path) = &settings.run.save {
        let hardware = save::lasting(config.hardware())?;
        save::arm(path, machine.handle(), hardware, SavedSession::teller(name, &side))?;
    }
    outfile::open(&settings.run, &log, &config, &sources)?;
    drop(config); // the boot files: they are in the guest's memory now
    let (stats, sched) = (settings.run.stats(), settings.sched);
    to_its_end(machine, &Running { side, stats, log, sched })
}

/// The machine of `settings`. Boot files that come through pipes are read here.
fn config(settings: &Settings, mut boot: BootConfig) -> Result<Config> {
    let nucleus = settings.boot.nucleus.is_some();
    let default_memory = if nucleus { nucleus::MEMORY } else { DEFAULT_MEMORY };
    let memory = settings.machine.memory.map_or(default_memory, |Size(bytes)| bytes);
    let timeout = settings.run.timeout.map(|Time(time)| time);
    pipe::read_all(&mut boot, memory, timeout)?;
    let disks = settings.disk.iter().map(DiskSettings::disk).map(Device::Disk);
    // The nucleus pages to a disk: without one of the user's it gets one for this run.
    let swap = (nucleus && settings.disk.is_empty()).then_some(Device::Scratch(nucleus::SWAP));
    let paging = settings.machine.resident.map(|Size(resident)| Paging {
        resident,
        swap: settings.machine.swap.clone().unwrap_or_else(swap_folder),
    });
    Ok(Config {
        memory,
        paging,
        cpu: settings.machine.cpu.as_deref().cloned().unwrap_or_else(engine::default_model),
        vcpus: settings.machine.vcpus.unwrap_or(1),
        boot,
        devices: disks.chain(swap).collect(),
        transport: settings.transport(),
        debug_exit: settings.machine.debug_exit.unwrap_or(nucleus),
        timeout,
    })
}

/// Where what does not fit the budget goes, unless the user says where.
fn swap_folder() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

fn build(config: &Config, lines: Lines, settings: &Settings) -> Result<Machine> {
    let options = engine::Options { count: settings.run.stats(), ..settings.engine.options() };
    let told = |error| match engine::advice(&error) {
        Some(advice) => anyhow::anyhow!("{error}; {advice}"),
        None => error.into(),
    };
    Machine::build(config, lines, &*engine::make(options)).map_err(told)
}

/// How a machine is run, beside what it is.
pub(crate) struct Running {
    /// The user's side of it.
    pub(crate) side: Side,
    /// Print counters at the end.
    pub(crate) stats: bool,
    /// Where the second serial line goes.
    pub(crate) log: LogFile,
    /// How its processors get the host's.
    pub(crate) sched: SchedSettings,
}

/// Runs the machine to its end, and gives the exit code.
///
/// # Errors
/// The terminal cannot be had: nothing was run.
pub(crate) fn to_its_end(mut machine: Machine, how: &Running) -> Result<u8> {
    how.side.notify(&machine);
    // What a command has read and written is not to be had again.
    if !how.side.kind().is_command() {
        let side = how.side.clone();
        again::arm(machine.handle(), move || side.begin_anew());
    }
    confine();
    save::check()?;
    signals::end_machine(machine.stopper());
    let raw = if how.side.is_raw() {
        Some(terminal::Raw::enter().context("cannot make the terminal raw")?)
    } else {
        None
    };
    let end = match how.sched.pool(machine.processors()) {
        Ok(pool) => {
            machine.set_pool(pool, how.sched.share());
            machine.run()
        }
        Err(end) => end,
    };
    drop(raw);
    if how.stats {
        eprint!("{}", Table(&machine.stats()));
    }
    explain(&end);
    let code = code(&end, how.side.command().as_ref());
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
        End::MemoryLost(why) => eprintln!(
            "gemello: the guest's memory is lost: {why}; look after the disk that --swap names"
        ),
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
