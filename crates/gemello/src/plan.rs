//! What is booted, and how the user's side of it behaves.

use crate::debian::{self, DeviceKind, Drivers, Fetched, Refresh};
use crate::images::Root;
use crate::place::Place;
use crate::settings::disk::DiskSettings;
use crate::settings::module::{ModuleSettings, Word};
use crate::settings::{BootSettings, Settings};
use crate::side::{Errors, Kind, Side};
use crate::{job, nucleus, shell, template, terminal};
use agent_job::Streams;
use anyhow::{Context as _, Result, anyhow, bail};
use disk_image::{DiskAccess, HostCache, Image};
use machine::{BootConfig, File};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// Kernel command line where the user gives none.
const CMDLINE: &str = "console=ttyS0";
/// With a virtio console, which is `/dev/console` from when its driver is there.
const CMDLINE_HVC: &str = "console=ttyS0 console=hvc0";

/// For a kernel with the agent: a panic ends the machine. The kernel's cryptography does not test
/// itself at each boot, of which that is two thirds of all instructions.
const KERNEL_OPTIONS: &str = "panic=-1 cryptomgr.notests";

/// For a system's init: the agent has set up the network by the kernel's names, and the console is
/// no terminal. Of Debian's security modules BPF's is left out: where it is there, systemd reads
/// all types of the kernel's at first, a seventh of its start.
const SYSTEM_OPTIONS: &str =
    "net.ifnames=0 TERM=dumb lsm=landlock,lockdown,yama,integrity,apparmor";

/// What to boot, and how the user's side of it behaves.
pub(crate) struct Plan {
    pub(crate) boot: BootConfig,
    pub(crate) side: Side,
    /// Files that parts of `boot` were made from.
    pub(crate) sources: Vec<PathBuf>,
    /// Whether its agent asks for its job, so that a template will do as well.
    pub(crate) asks: bool,
}

impl Plan {
    /// For a guest that knows nothing of us, its console, a virtio one if `hvc`, at `place`.
    fn of(boot: BootConfig, hvc: bool, place: Place) -> Self {
        let kind = if hvc { Kind::VirtioConsole } else { Kind::Console };
        let side = Side::new(kind, place, terminal::window());
        Self { boot, side, sources: Vec::new(), asks: false }
    }
}

/// What `settings` say to boot, its console at `place`; `kernel` is its kernel, where that has been
/// read already, and `root` its root, where that is an image.
///
/// # Errors
/// They say nothing, or a guest's file cannot be had.
pub(crate) fn plan(
    settings: &Settings,
    kernel: Option<File>,
    root: Option<&Root>,
    place: Place,
) -> Result<Plan> {
    let (boot, hvc) = (&settings.boot, settings.hvc());
    if hvc && (boot.is_made_here() || boot.nucleus.is_some()) {
        bail!(
            "`hvc` is for a kernel or a disk of yours: what gemello makes has its console already; \
             leave it out"
        );
    }
    if boot.is_made_here() {
        return made_here(settings, kernel, root, place);
    }
    if let Some(word) = &boot.nucleus {
        return Ok(Plan::of(nucleus_boot(boot, word), hvc, place));
    }
    match kernel.or_else(|| boot.kernel.clone().map(File::Path)) {
        Some(kernel) => Ok(Plan::of(kernel_boot(boot, kernel, hvc), hvc, place)),
        None if !boot.command.is_empty() => {
            let command = ["gemello", "run", "debian", "--"].map(OsString::from).into_iter();
            let command = shell::command(command.chain(words(&boot.command)));
            bail!("a command needs a guest: {command}")
        }
        None if !settings.disk.is_empty() => disk_plan(settings, place),
        None => bail!(
            "nothing to boot: give debian, oci:PATH, a kernel's image, a machine's file, --disk \
             FILE, or --kernel FILE; see gemello run --help"
        ),
    }
}

/// The kernel that lies on the first disk which has one.
fn disk_plan(settings: &Settings, place: Place) -> Result<Plan> {
    let mut failed = None;
    for disk in &settings.disk {
        match found(disk) {
            Ok(boot) => {
                return Ok(Plan::of(disk_boot(settings, boot, disk), settings.hvc(), place));
            }
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    Err(failed.unwrap_or_else(|| anyhow!("no disk to boot from")))
}

fn found(disk: &DiskSettings) -> Result<disk_boot::Boot> {
    let image = disk.disk().map_err(anyhow::Error::msg)?.image();
    let image = Image { cache: HostCache::Used, ..image };
    // Closed again, and unlocked, before the machine opens it.
    let storage = Arc::from(image.open(DiskAccess::ReadOnly)?);
    disk_boot::find(&storage).with_context(|| shell::shown(disk.path.as_os_str()))
}

fn disk_boot(settings: &Settings, boot: disk_boot::Boot, disk: &DiskSettings) -> BootConfig {
    let disk_boot::Boot { title, kernel, initrd, cmdline } = boot;
    tracing::info!(target: "boot", %title, kernel = %kernel.path, %cmdline, "found on the disk");
    let name = |path: &str| format!("{path} of {}", disk.path.display());
    let file =
        |it: disk_boot::DiskFile| File::Bytes { name: name(&it.path), bytes: it.bytes.into() };
    BootConfig {
        kernel: file(kernel),
        initrd: initrd.map(file),
        cmdline: settings.boot.cmdline.clone().unwrap_or(cmdline),
        modules: Vec::new(),
    }
}

fn words(words: &[Word]) -> Vec<OsString> {
    words.iter().map(|Word(word)| word.clone()).collect()
}

fn nucleus_boot(boot: &BootSettings, word: &str) -> BootConfig {
    let cmdline = match &boot.cmdline {
        Some(more) => format!("{word} {more}"),
        None => word.to_owned(),
    };
    BootConfig {
        kernel: File::Bytes { name: "the nucleus".into(), bytes: nucleus::IMAGE.into() },
        initrd: None,
        cmdline,
        modules: Vec::new(),
    }
}

fn kernel_boot(boot: &BootSettings, kernel: File, hvc: bool) -> BootConfig {
    let module = |ModuleSettings { path, arguments }: &ModuleSettings| {
        (File::Path(path.clone()), arguments.clone())
    };
    let cmdline = if hvc { CMDLINE_HVC } else { CMDLINE };
    BootConfig {
        kernel,
        initrd: boot.initrd.clone().map(File::Path),
        cmdline: boot.cmdline.clone().unwrap_or_else(|| cmdline.into()),
        modules: boot.module.iter().map(module).collect(),
    }
}

/// For a guest that gemello makes: Debian's small system, a root of the host's, or an image.
fn made_here(
    settings: &Settings,
    kernel: Option<File>,
    root: Option<&Root>,
    place: Place,
) -> Result<Plan> {
    let own = matches!(place, Place::Standard);
    let streams = streams(&settings.boot, own);
    let errors = if own { errors(streams) } else { Errors::WithOutput };
    let side = Side::new(kind(streams, errors), place, terminal::window());
    let side = if root.is_some() { side.asked_by_signal() } else { side };
    let shown = settings.boot.starts_init() && own && terminal::error_is_terminal();
    let side = if shown { side.shows_how_far() } else { side };
    let apart = match errors {
        Errors::Apart => agent_job::Errors::Apart,
        Errors::WithOutput => agent_job::Errors::WithOutput,
    };
    let job = job::job(settings, root.map(Root::note), streams, apart)?;
    let asks = template::may_serve(settings);
    let side = if asks { side.with_job(job.encode()) } else { side };
    let devices = devices(settings, !side.ports().is_empty());
    let own = root.and_then(Root::kernel);
    let Parts { kernel, busybox, drivers } = parts(settings, kernel, own, &devices)?;
    let Drivers { at_boot, bus, later } = &drivers;
    let told = (!asks).then_some(&job);
    let initrd = debian::initramfs(busybox.as_deref(), &drivers, told)?;
    Ok(Plan {
        boot: BootConfig {
            kernel,
            initrd: Some(File::Bytes { name: "gemello's initramfs".into(), bytes: initrd.into() }),
            cmdline: our_cmdline(settings),
            modules: Vec::new(),
        },
        side,
        sources: at_boot
            .iter()
            .chain(bus)
            .chain(later)
            .cloned()
            .chain(busybox)
            .chain(root.map(Root::source))
            .collect(),
        asks,
    })
}

/// What a guest is made of.
struct Parts {
    kernel: File,
    /// For a guest that stays in its initial file system.
    busybox: Option<PathBuf>,
    drivers: Drivers,
}

/// With the root's `own` kernel, if it brings one.
fn parts(
    settings: &Settings,
    kernel: Option<File>,
    own: Option<Fetched>,
    devices: &[DeviceKind],
) -> Result<Parts> {
    let BootSettings { busybox, rootfs, kernel: named, .. } = &settings.boot;
    let transport = settings.transport();
    // The agent's own sockets have theirs once somebody wants it.
    let later: &[DeviceKind] = match (&settings.vsock, settings.vsock()) {
        (None, Some(_)) => &[DeviceKind::Vsock],
        _ => &[],
    };
    if let (Some(root), Some(path)) = (rootfs, named) {
        let read =
            || std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let image = match &kernel {
            Some(File::Bytes { bytes, .. }) => bytes.to_vec(),
            _ => read()?,
        };
        let find = |names: &[_]| debian::modules::find(&image, path, root, names);
        let (own, bus) = debian::driver_names(transport, devices);
        let at_boot = find(&own)?;
        let mut bus = find(&bus)?;
        bus.retain(|driver| !at_boot.contains(driver));
        let later = find(&debian::driver_names(transport, later).0)?;
        let drivers = Drivers { at_boot, bus, later };
        let kernel = kernel.unwrap_or_else(|| File::Path(path.clone()));
        return Ok(Parts { kernel, busybox: None, drivers });
    }
    let fetched = match own {
        Some(own) => own,
        None => debian::fetch(busybox.unwrap_or_default(), Refresh::IfMissing)?,
    };
    let find = |devices: &[DeviceKind], of_bus: bool| {
        let drivers = fetched.drivers.iter().filter(|driver| driver.serves(transport, devices));
        let drivers = drivers.filter(|driver| driver.is_of_bus() == of_bus);
        drivers.map(|driver| driver.path.clone()).collect()
    };
    let (at_boot, bus) = (find(devices, false), find(devices, true));
    let drivers = Drivers { at_boot, bus, later: find(later, false) };
    Ok(Parts {
        kernel: File::Path(fetched.kernel),
        drivers,
        busybox: settings.boot.stays_inside().then_some(fetched.busybox),
    })
}

/// The kinds of devices whose drivers are wanted; one has `ports`.
fn devices(settings: &Settings, ports: bool) -> Vec<DeviceKind> {
    let all = [
        (DeviceKind::Disk, !settings.disk.is_empty() || settings.cloud_init.is_some()),
        (DeviceKind::Net, settings.net().is_some()),
        (DeviceKind::Console, ports),
        (DeviceKind::Balloon, settings.balloon()),
        (DeviceKind::Vsock, settings.vsock.is_some() && settings.vsock().is_some()),
        (DeviceKind::Share, !settings.shares().is_empty()),
        (DeviceKind::Overlay, settings.boot.rootfs.is_some()),
        (DeviceKind::Rng, settings.rng()),
    ];
    all.into_iter().filter_map(|(kind, there)| there.then_some(kind)).collect()
}

fn kind(streams: Streams, errors: Errors) -> Kind {
    match streams {
        Streams::Shell => Kind::Shell,
        Streams::Terminal => Kind::Terminal(errors),
        Streams::Pipes => Kind::Pipes(errors),
    }
}

/// A command has a terminal where both its input and its output are one, as in a pipeline of the
/// host's. They are this program's own where `own` is.
fn streams(boot: &BootSettings, own: bool) -> Streams {
    let terminal = !own || terminal::input_is_terminal() && terminal::output_is_terminal();
    match (boot.has_command(), terminal) {
        (false, _) => Streams::Shell,
        (true, true) => Streams::Terminal,
        (true, false) => Streams::Pipes,
    }
}

/// Standard error is apart from the output unless both are one place: then they keep their order.
fn errors(streams: Streams) -> Errors {
    let together = match streams {
        Streams::Shell => true,
        Streams::Terminal => terminal::error_is_terminal(),
        Streams::Pipes => terminal::output_is_error(),
    };
    if together { Errors::WithOutput } else { Errors::Apart }
}

/// The kernel's messages go to the terminal of a shell, and keep out of a command's output.
fn our_cmdline(settings: &Settings) -> String {
    let console = match (settings.boot.has_command(), settings.run.log.is_some()) {
        (false, _) => "console=ttyS0 quiet",
        (true, false) => "console=ttyS1 quiet",
        (true, true) => "console=ttyS1",
    };
    let more = settings.boot.cmdline.as_deref().unwrap_or_default();
    let system = if settings.boot.starts_init() { SYSTEM_OPTIONS } else { "" };
    let words = [console, KERNEL_OPTIONS, system, more];
    words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
}
