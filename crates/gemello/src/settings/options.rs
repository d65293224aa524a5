//! The command line of `gemello run` as settings, laid over a file's.

use super::image::ImageName;
use super::names::Names;
use super::net::{NetChoice, NetSettings, Published};
use super::sched::SchedSettings;
use super::values::Time;
use super::{BootSettings, EngineSettings, MachineSettings, RunSettings, Settings, file};
use crate::cli::{EngineOptions, Run, SchedOptions};
use crate::{hints, pipe, shell};
use anyhow::{Context as _, Result, bail};
use machine::File;
use std::ffi::OsStr;
use std::path::Path;

/// What a run is told, and by whom.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    /// The kernel, where it came through a pipe that is at its end now.
    pub(crate) kernel: Option<File>,
}

/// What the one word of the command line is that is no option.
enum What {
    Nothing,
    Debian,
    Busybox,
    Oci(ImageName),
    Settings(Box<Settings>),
    Image(Option<File>),
}

/// What `arguments` say of each machine, and the files that they name. The options are laid over
/// each of the files.
///
/// # Errors
/// They contradict each other, or a file is refused.
pub(crate) fn gather_all(arguments: &Run) -> Result<Vec<Given>> {
    if arguments.print_config && !arguments.more.is_empty() {
        bail!("--print-config prints one machine's file; leave the others out");
    }
    if !arguments.publish.is_empty() && !arguments.more.is_empty() {
        bail!("--publish is for one machine, and there are several; say it in each one's file");
    }
    let mut machines = vec![gather(arguments)?];
    for path in &arguments.more {
        let settings = file::read(path)?.unwrap_or_default(); // its name says that it is one
        let options = Settings::from(arguments);
        let names =
            Names { options: options.clone(), file: Some((path.clone(), settings.clone())) };
        machines.push(Given { settings: options.over(settings), names, kernel: None });
    }
    Ok(machines)
}

/// What `arguments` say of the first machine, and the file that they name.
///
/// # Errors
/// They contradict each other, or the file is refused.
pub(crate) fn gather(arguments: &Run) -> Result<Given> {
    let what = match &arguments.what {
        Some(what) => look(what, arguments)?,
        None => What::Nothing,
    };
    let mut options = Settings::from(arguments);
    let (mut file, mut kernel) = (None, None);
    match what {
        // By one of Debian's kernels, which may be said.
        What::Nothing if !options.boot.stays_inside() && options.boot.kernel.is_none() => {
            options.boot.busybox = arguments.flavour;
        }
        What::Nothing => {}
        What::Debian => options.boot.debian = Some(arguments.release.unwrap_or_default()),
        What::Busybox => options.boot.busybox = Some(arguments.flavour.unwrap_or_default()),
        What::Oci(image) => options.boot.image = Some(image),
        What::Settings(settings) => {
            if settings.boot.busybox.is_some() && !options.boot.replaces(&settings.boot) {
                options.boot.busybox = arguments.flavour;
            }
            if settings.boot.debian.is_some() && !options.boot.replaces(&settings.boot) {
                options.boot.debian = arguments.release;
            }
            file = arguments.what.as_ref().map(|path| (path.into(), *settings));
        }
        What::Image(image) => {
            options.boot.kernel = arguments.what.as_ref().map(Into::into);
            kernel = image;
        }
    }
    if arguments.flavour.is_some() && options.boot.busybox.is_none() {
        bail!(
            "--flavour chooses among the kernels of small guests; leave it out, or boot: gemello \
             run busybox"
        );
    }
    if arguments.release.is_some() && options.boot.debian.is_none() {
        bail!("--release chooses among Debian's; leave it out, or boot: gemello run debian");
    }
    let lower = file.as_ref().map(|(_, settings)| settings.clone()).unwrap_or_default();
    if !arguments.publish.is_empty() {
        let said = options.machine.net.take().or_else(|| lower.machine.net.clone());
        options.machine.net = Some(published(said, &arguments.publish)?);
    }
    let settings = options.clone().over(lower);
    Ok(Given { settings, names: Names { options, file }, kernel })
}

/// `net`, which is one behind the host's sockets if nothing is said, with these ports.
fn published(net: Option<NetChoice>, ports: &[Published]) -> Result<NetChoice> {
    let mut net = match net {
        None => NetSettings::user(),
        Some(NetChoice::Some(net)) => net,
        Some(NetChoice::None) => bail!("--publish needs a network; leave out --net none"),
    };
    net.publish(ports)?;
    Ok(NetChoice::Some(net))
}

fn look(what: &OsStr, arguments: &Run) -> Result<What> {
    let path = Path::new(what);
    let found = if what == "debian" {
        What::Debian
    } else if what == "busybox" {
        What::Busybox
    } else if let Some(image) = ImageName::of_word(what) {
        What::Oci(image.map_err(anyhow::Error::msg)?)
    } else if let Some(hint) = hints::no_such_guest(what) {
        bail!("{hint}");
    } else if let Some(bytes) =
        pipe::read(path, arguments.memory.map(|size| size.0), limit(arguments))?
    {
        let name = path.display().to_string();
        match file::piped(&bytes, &name)? {
            Some(settings) => What::Settings(Box::new(settings)),
            None => What::Image(Some(File::Bytes { name, bytes: bytes.into() })),
        }
    } else {
        match file::read(path)? {
            Some(settings) => What::Settings(Box::new(settings)),
            None => What::Image(None),
        }
    };
    let other = if arguments.kernel.is_some() { "--kernel" } else { "--nucleus" };
    let twice = arguments.kernel.is_some() || arguments.nucleus.is_some();
    if twice && !matches!(found, What::Settings(_)) {
        let what = shell::shown(what);
        bail!("{what} and {other} both say what to boot; leave one of them out");
    }
    Ok(found)
}

fn limit(arguments: &Run) -> Option<std::time::Duration> {
    arguments.timeout.map(|Time(time)| time)
}

/// A flag can be put up, not taken down.
fn flag(up: bool) -> Option<bool> {
    up.then_some(true)
}

/// What the options say of what is booted.
fn boot(arguments: &Run) -> BootSettings {
    let Run { command, kernel, rootfs, rw, system, nucleus, initrd, cmdline, module, .. } =
        arguments;
    BootSettings {
        debian: None,
        busybox: None,
        image: None,
        rootfs: rootfs.clone(),
        rw: rw.clone(),
        system: flag(*system),
        command: command.iter().cloned().map(super::module::Word).collect(),
        nucleus: nucleus.clone(),
        kernel: kernel.clone(),
        initrd: initrd.clone(),
        cmdline: cmdline.clone(),
        module: module.clone(),
    }
}

/// What the options say of how the machine is run.
fn run(arguments: &Run) -> RunSettings {
    let Run {
        timeout, console, log, pcap, trace, trace_file, stats, digest, save, rm, cold, ..
    } = arguments;
    RunSettings {
        timeout: *timeout,
        console: console.clone(),
        log: log.clone(),
        pcap: pcap.clone(),
        trace: trace.clone(),
        trace_file: trace_file.clone(),
        stats: flag(*stats),
        digest: flag(*digest),
        save: save.clone(),
        rm: flag(*rm),
        cold: flag(*cold),
    }
}

impl From<&Run> for Settings {
    /// Its options alone.
    fn from(arguments: &Run) -> Self {
        let Run {
            what: _, // `gather`'s
            more: _, // `gather_all`'s
            // `boot`'s, down to `module`.
            command: _,
            kernel: _,
            rootfs: _,
            rw: _,
            system: _,
            nucleus: _,
            initrd: _,
            cmdline: _,
            module: _,
            name,
            disk,
            cloud_init,
            vsock,
            share,
            memory,
            resident,
            swap,
            cpu,
            vcpus,
            transport,
            net,
            rng,
            balloon,
            hvc,
            engine,
            sched,
            // `run`'s, but for two.
            timeout: _,
            console: _,
            log: _,
            pcap: _,
            trace: _,
            trace_file: _,
            stats: _,
            save: _,
            debug_exit,
            deterministic,
            digest: _,
            rm: _,
            cold: _,
            flavour: _, // `gather`'s
            release: _, // `gather`'s
            publish: _, // `gather`'s
            detach: _,  // `main`'s
            print_config: _,
        } = arguments;
        let machine = MachineSettings {
            name: name.clone(),
            memory: *memory,
            resident: *resident,
            swap: swap.clone(),
            cpu: cpu.clone(),
            vcpus: *vcpus,
            transport: *transport,
            net: net.clone(),
            rng: *rng,
            balloon: flag(*balloon),
            hvc: flag(*hvc),
            debug_exit: flag(*debug_exit),
            deterministic: flag(*deterministic),
        };
        Self {
            machine,
            boot: boot(arguments),
            disk: disk.clone(),
            cloud_init: cloud_init.clone(),
            vsock: vsock.clone(),
            share: share.clone(),
            engine: engine.into(),
            sched: sched.into(),
            run: run(arguments),
        }
    }
}

impl From<&EngineOptions> for EngineSettings {
    fn from(options: &EngineOptions) -> Self {
        let EngineOptions { engine, tier, code_cache } = *options;
        Self { name: engine, tier, code_cache }
    }
}

impl From<&SchedOptions> for SchedSettings {
    fn from(options: &SchedOptions) -> Self {
        let SchedOptions { pcpus, quantum, cpu_weight, cpu_limit } = *options;
        Self { pcpus, quantum, cpu_weight, cpu_limit }
    }
}

/// The file that says the same as `settings`, wherever it is put.
///
/// # Errors
/// Something in them is no text.
pub(crate) fn print(settings: &Settings) -> Result<String> {
    let mut settings = settings.clone();
    let here = std::env::current_dir().context("cannot tell the working directory")?;
    settings.resolve(&here);
    toml::to_string(&settings).context("cannot write these settings as a file")
}
