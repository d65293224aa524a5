//! `gemello run`: from settings to machines. `to_its_end.rs` runs them.

use crate::cli::Run;
use crate::control::{self, Name};
use crate::images::Root;
use crate::outfile::{self, InUse};
use crate::output::LogFile;
use crate::place::{self, Place, Pty};
use crate::plan::{self, Plan};
use crate::save::{self, Saver};
use crate::session::SavedSession;
use crate::settings::cloud_init::CloudInitSettings;
use crate::settings::console::ConsolePlace;
use crate::settings::disk::DiskSettings;
use crate::settings::name::MachineName;
use crate::settings::names::Names;
use crate::settings::options::{self, Given};
use crate::settings::values::{Size, Time};
use crate::settings::{self, Settings};
use crate::side::Side;
use crate::template::{Begun, Maker, Template};
use crate::to_its_end::{Ready, Report, to_its_end};
use crate::trace::To;
use crate::{
    advice, cloud_init, detach, engine, exit, host_memory, nucleus, pairs, pipe, several, trace,
};
use anyhow::{Result, bail};
use machine::{
    BootConfig, BuildError, Config, Device, File, Lines, Machine, Paging, Port, Scratch,
};
use std::path::PathBuf;

/// Runs what `arguments` ask for, and gives the exit code.
///
/// # Errors
/// Wrong arguments or files, or something this host lacks: nothing was run.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    let machines = options::gather_all(arguments)?;
    if let [only] = &machines[..]
        && arguments.print_config
    {
        let printed = pairs::check(&only.settings).and_then(|()| options::print(&only.settings));
        print!("{}", told(printed, &only.names)?);
        return Ok(exit::OK);
    }
    let process = several::process(&machines)?;
    let to = if process.trace_file.is_some() { To::File } else { To::StandardError };
    trace::start(&process.trace, to);
    let alone = machines.len() == 1;
    let (mut ready, mut in_use, mut writes) = (Vec::new(), InUse::default(), Vec::new());
    for Given { settings, names, kernel } in machines {
        let checked = pairs::check(&settings).and_then(|()| place(&settings, alone));
        let made = checked.and_then(|place| {
            start(Root::of(&settings)?, &settings, &names, kernel, place, &mut in_use)
        });
        ready.push(told(made, &names)?);
        writes.push((settings.run, names));
    }
    // No file is emptied before it is known what all machines read.
    for (one, (run, names)) in ready.iter().zip(&writes) {
        told(outfile::open(run, &one.log, one.side.place(), &mut in_use), names)?;
        if let Some(path) = &run.pcap {
            let machine = one.machine.handle();
            told(outfile::open_capture(path, &one.capture, &machine, &mut in_use), names)?;
        }
    }
    if let (Some(path), Some((_, names))) = (&process.trace_file, writes.first()) {
        told(outfile::open_trace(path, &mut in_use), names)?;
    }
    if !alone && !place::is_detached() {
        ready.iter().for_each(several::announce);
    }
    to_its_end(ready, &process.sched)
}

/// What went wrong, with each field called as in `names`.
fn told<T>(result: Result<T>, names: &Names) -> Result<T> {
    result.map_err(|error| anyhow::Error::msg(advice::message(&error, names)))
}

/// Where the console of a machine of `settings` is.
fn place(settings: &Settings, alone: bool) -> Result<Place> {
    Ok(match &settings.run.console {
        Some(ConsolePlace::Terminal) if place::is_detached() => bail!(
            "a detached machine has no terminal; leave out the console terminal: gemello console \
             shows it"
        ),
        Some(ConsolePlace::Terminal) => Place::Standard,
        // A detached command has no terminal, and no input.
        None if alone && (!place::is_detached() || settings.boot.has_command()) => Place::Standard,
        None | Some(ConsolePlace::Pty) => Place::Pty(Pty::open()?),
        Some(ConsolePlace::Log(_)) => Place::Log(LogFile::default()),
    })
}

/// Runs the machine of `settings` on this program's own streams, with this root.
///
/// # Errors
/// Something is missing.
pub(crate) fn on(root: Root, settings: &Settings) -> Result<u8> {
    let (names, mut in_use) = (Names::default(), InUse::default());
    let made = start(Some(root), settings, &names, None, Place::Standard, &mut in_use);
    to_its_end(vec![told(made, &names)?], &settings.sched)
}

/// Builds the machine of `settings`, which boots what they say, with this root if it has one, its
/// console at `place`. What it reads is `in_use` then.
fn start(
    root: Option<Root>,
    settings: &Settings,
    names: &Names,
    kernel: Option<File>,
    place: Place,
    in_use: &mut InUse,
) -> Result<Ready> {
    let settings = &settings.with_root(root.as_ref().map(Root::disk));
    let Plan { boot, side, mut sources, asks } =
        plan::plan(settings, kernel, root.as_ref(), place)?;
    sources.extend(settings.cloud_init.iter().flat_map(CloudInitSettings::files));
    let name = settings.name(names.file.as_ref().map(|(path, _)| &**path));
    // What is kept is kept by its name.
    let said = root.as_ref().is_some_and(Root::is_kept) || settings.machine.name.is_some();
    let (name, claim) =
        control::claim(&if said { Name::Said(name) } else { Name::ByDefault(name) })?;
    detach::check(&name, &claim)?;
    let config = config(settings, &name, boot, side.ports())?;
    if config.paging.is_none() {
        host_memory::warn(config.memory);
    }
    let log = LogFile::default();
    let machine = match asks {
        true => begin(&config, &side, &log, settings)?,
        false => build(&config, side.lines(&log), settings)?,
    };
    tracing::debug!(target: "boot", %name, "built");
    settings::net::announce(&config, &machine.forwards());
    if let Some(path) = &settings.run.save {
        let hardware = save::lasting(config.hardware())?;
        let session = SavedSession::teller(&name, &side);
        side.wishes().arm_save(Saver::new(path, machine.handle(), hardware, session)?);
    }
    in_use.add_machine(&config, &sources);
    drop(config); // the boot files: they are in the guest's memory now
    drop(root); // the machine has it open
    let report = Report { stats: settings.run.stats(), digest: settings.run.digest() };
    let sched = settings.sched;
    let capture = LogFile::of("capture");
    Ok(Ready { name, claim: claim.ok(), machine, side, report, log, capture, sched })
}

/// The machine of `settings`, which is called `name`, with a console device if it has `ports`. Boot
/// files that come through pipes are read here.
fn config(
    settings: &Settings,
    name: &MachineName,
    mut boot: BootConfig,
    ports: Vec<Port>,
) -> Result<Config> {
    let nucleus = settings.boot.nucleus.is_some();
    let default_memory = if nucleus { nucleus::MEMORY } else { DEFAULT_MEMORY };
    let memory = settings.machine.memory.map_or(default_memory, |Size(bytes)| bytes);
    let timeout = settings.run.timeout.map(|Time(time)| time);
    pipe::read_all(&mut boot, memory, timeout)?;
    let disks = settings.disk.iter().map(DiskSettings::disk);
    let disks = disks.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg)?;
    let disks = disks.into_iter().map(Device::Disk);
    // The nucleus pages to a disk: without one of the user's it gets one for this run.
    let swap = (nucleus && settings.disk.is_empty()).then(|| Scratch::zeros(nucleus::SWAP));
    let seed = settings.cloud_init.as_ref().map(|seed| cloud_init::disk(seed, name, timeout));
    let own = seed.transpose()?.into_iter().chain(swap).map(Device::Scratch);
    let balloon = settings.balloon().then_some(Device::Balloon);
    let vsock = settings.vsock().map(Device::Vsock);
    let shares = settings.shares().into_iter().map(Device::Share);
    let rng = settings.rng().then_some(Device::Entropy);
    let ports = (!ports.is_empty()).then_some(Device::Console(ports));
    let console = ports.or(settings.hvc().then_some(Device::Hvc));
    let net = settings.net().map(|net| net.network(name)).transpose()?.map(Device::Net);
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
        devices: disks
            .chain(own)
            .chain(console)
            .chain(net)
            .chain(balloon)
            .chain(vsock)
            .chain(shares)
            .chain(rng)
            .collect(),
        transport: settings.transport(),
        debug_exit: settings.machine.debug_exit.unwrap_or(nucleus),
        deterministic: settings.machine.deterministic.unwrap_or_default(),
        timeout,
    })
}

/// Where what does not fit the budget goes, unless the user says where.
fn swap_folder() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// The machine of a guest whose agent asks for its job: from a template, if there is one; else one
/// is made of it.
fn begin(config: &Config, side: &Side, log: &LogFile, settings: &Settings) -> Result<Machine> {
    let lines = || side.lines(log);
    let template = match Template::of(config) {
        Ok(template) => template,
        Err(error) => {
            tracing::debug!(target: "boot", %error, "no template");
            return build(config, lines(), settings);
        }
    };
    let begun =
        template.begin(config, lines, &*engine::make(options(settings))).map_err(advised)?;
    let (machine, begun) = match begun {
        Some(begun) => begun,
        None => (build(config, lines(), settings)?, Begun::AtTheKernel),
    };
    match begun {
        Begun::AtItsJob => side.tell_job(),
        Begun::AtTheKernel => {
            let maker = Maker::new(template, machine.handle(), config.hardware());
            side.wishes().arm_template(maker);
        }
    }
    Ok(machine)
}

fn build(config: &Config, lines: Lines, settings: &Settings) -> Result<Machine> {
    Machine::build(config, lines, &*engine::make(options(settings))).map_err(advised)
}

fn options(settings: &Settings) -> engine::Options {
    let count = settings.run.stats() || settings.run.digest();
    engine::Options { count, ..settings.engine.options() }
}

fn advised(error: BuildError) -> anyhow::Error {
    match engine::advice(&error) {
        Some(advice) => anyhow::anyhow!("{error}; {advice}"),
        None => error.into(),
    }
}

/// A guest's memory unless the user says otherwise.
const DEFAULT_MEMORY: u64 = 512 << 20;
