//! All that a run can be told, as one value: the options of `gemello run` and the file that
//! `gemello run FILE.toml` reads are two spellings of it. docs/config.md describes the file.
//!
//! A value that is not said is `None` or empty; what it then is, is decided where it is used.
//! [`Settings::over`] lays the command line over a file. [`names`] knows how each field is called
//! in either spelling, [`file`] reads one, [`options`] the other.

pub(crate) mod cloud_init;
mod commas;
pub(crate) mod console;
pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod image;
pub(crate) mod module;
pub(crate) mod name;
pub(crate) mod names;
pub(crate) mod net;
mod optional;
pub(crate) mod options;
pub(crate) mod rootfs;
pub(crate) mod sched;
pub(crate) mod share;
pub(crate) mod values;
pub(crate) mod vsock;

#[cfg(test)]
mod tests;

use crate::debian::{Flavour, Release};
use crate::engine::{self, Choice, Options};
use crate::trace::Topic;
use cloud_init::CloudInitSettings;
use console::ConsolePlace;
use disk::DiskSettings;
use engine_soft::Tier;
use image::ImageName;
use machine::{Share, Transport, Vsock};
use module::{ModuleSettings, Word};
use name::MachineName;
use net::{NetChoice, NetSettings};
use sched::SchedSettings;
use serde::{Deserialize, Serialize};
use share::ShareSettings;
use std::path::{Path, PathBuf};
use values::{CodeCache, Size, Time};
use vsock::VsockSettings;
use x86::cpuid::CpuModel;

/// All that a run can be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The machine as the guest sees it.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) machine: MachineSettings,
    /// What it boots.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) boot: BootSettings,
    /// Its disks, in the order in which the guest counts them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) disk: Vec<DiskSettings>,
    /// What cloud-init finds on a disk behind them.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) cloud_init: Option<CloudInitSettings>,
    /// Its sockets to the host.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) vsock: Option<VsockSettings>,
    /// Folders of the host's that it can mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) share: Vec<ShareSettings>,
    /// What runs it.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) engine: EngineSettings,
    /// How its processors get the host's.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) sched: SchedSettings,
    /// How it is run and watched.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) run: RunSettings,
}

/// The machine as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MachineSettings {
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) name: Option<MachineName>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) memory: Option<Size>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) resident: Option<Size>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) swap: Option<PathBuf>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) cpu: Option<Box<CpuModel>>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) vcpus: Option<u32>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) transport: Option<Transport>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) net: Option<NetChoice>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) rng: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) balloon: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) hvc: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) debug_exit: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) deterministic: Option<bool>,
}

/// What is booted: one of `debian`, `busybox`, `image`, `rootfs`, `system`, `nucleus` and `kernel`,
/// and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BootSettings {
    /// A whole system.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) debian: Option<Release>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) busybox: Option<Flavour>,
    /// An image whose files become the root, by Debian's kernel.
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) image: Option<ImageName>,
    /// A folder of the host's that becomes the root, by `kernel` or Debian's.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Folders that a guest with such a root may write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rw: Vec<PathBuf>,
    /// The first disk's own system becomes the guest, by Debian's kernel; with `debian`, its init
    /// is started before a command, too.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) system: Option<bool>,
    /// What these guests run in place of a shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<Word>,
    /// A word for the nucleus; empty for its shell.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) nucleus: Option<String>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) initrd: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) cmdline: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) module: Vec<ModuleSettings>,
}

/// What runs guest instructions, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EngineSettings {
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) name: Option<Choice>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) tier: Option<Tier>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) code_cache: Option<CodeCache>,
}

/// How the machine is run, and what is written down about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunSettings {
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) timeout: Option<Time>,
    #[serde(with = "optional", skip_serializing_if = "is_unsaid")]
    pub(crate) console: Option<ConsolePlace>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) log: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) pcap: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trace: Vec<Topic>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) trace_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) stats: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) digest: Option<bool>,
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) save: Option<PathBuf>,
    /// What a machine of an image writes is thrown away, also where it has a name.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) rm: Option<bool>,
    /// A guest that gemello makes boots, also where a template of it is there.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub(crate) cold: Option<bool>,
}

/// What a machine with the whole system of `release` is called.
fn system_name(release: Release) -> String {
    if release == Release::default() {
        "debian".to_owned()
    } else {
        format!("debian-{}", release.name())
    }
}

fn is_unsaid<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What `upper` says, else what `lower` says.
fn list<T>(upper: Vec<T>, lower: Vec<T>) -> Vec<T> {
    if upper.is_empty() { lower } else { upper }
}

impl Settings {
    /// These settings, and where they say nothing, those of `lower`. A list that is said replaces
    /// the other whole; so does what is booted.
    pub(crate) fn over(self, lower: Self) -> Self {
        let Self { machine, boot, disk, cloud_init, vsock, share, engine, sched, run } = self;
        Self {
            machine: machine.over(lower.machine),
            boot: boot.over(lower.boot),
            disk: list(disk, lower.disk),
            cloud_init: cloud_init.or(lower.cloud_init),
            vsock: vsock.or(lower.vsock),
            share: list(share, lower.share),
            engine: engine.over(lower.engine),
            sched: sched.over(lower.sched),
            run: run.over(lower.run),
        }
    }

    /// The machine's name: as it is said, else that of the `file` which describes it, else of what
    /// it boots.
    pub(crate) fn name(&self, file: Option<&Path>) -> MachineName {
        let boot = &self.boot;
        let of_release = boot.debian.map(system_name);
        let booted = match &boot.kernel {
            _ if boot.debian.is_some() => Path::new(of_release.as_deref().unwrap_or_default()),
            _ if boot.image.is_some() => {
                boot.image.as_ref().map_or(Path::new(""), ImageName::called)
            }
            _ if boot.rootfs.is_some() => Path::new("rootfs"),
            _ if boot.is_system() => self.disk.first().map_or(Path::new(""), |disk| &disk.path),
            _ if boot.busybox.is_some() => Path::new("busybox"),
            _ if boot.nucleus.is_some() => Path::new("nucleus"),
            kernel => kernel.as_deref().unwrap_or(Path::new("")),
        };
        let by_itself = || MachineName::of_image(file.unwrap_or(booted));
        self.machine.name.clone().unwrap_or_else(by_itself)
    }

    /// Its network, if it has one. Where nobody says so, a guest that gemello makes has the one
    /// behind the host's sockets, if a slot is left, unless it is to be the same each time.
    pub(crate) fn net(&self) -> Option<NetSettings> {
        let alike = self.machine.deterministic.unwrap_or_default();
        let fits = self.slots() < self.transport().slots();
        match &self.machine.net {
            Some(NetChoice::Some(net)) => Some(net.clone()),
            None if self.boot.is_made_here() && fits && !alike => Some(NetSettings::user()),
            Some(NetChoice::None) | None => None,
        }
    }

    /// How many slots are taken by what it is given in any case.
    fn slots(&self) -> usize {
        let ports = self.boot.is_made_here() && self.boot.has_command();
        let vsock = self.vsock.as_ref().is_some_and(|vsock| vsock.vsock().is_some());
        let others = [self.cloud_init.is_some(), self.balloon(), vsock, ports || self.hvc()];
        let others = others.into_iter().filter(|there| *there).count();
        self.disk.len() + self.shares().len() + others
    }

    /// How the guest reaches its disks. The nucleus has no driver for PCI.
    pub(crate) fn transport(&self) -> Transport {
        let unsaid = if self.boot.nucleus.is_some() { Transport::Mmio } else { Transport::Pci };
        self.machine.transport.unwrap_or(unsaid)
    }

    /// Whether it has a source of random bytes. Where nobody says so, a machine whose slots are all
    /// taken has none.
    pub(crate) fn rng(&self) -> bool {
        let others = self.slots() + usize::from(self.net().is_some());
        let fits = others < self.transport().slots();
        let alike = self.machine.deterministic.unwrap_or_default();
        self.machine.rng.unwrap_or(fits && !alike && self.boot.nucleus.is_none())
    }

    /// Its sockets to the host. Where nobody says so, a guest that gemello makes has some, for the
    /// agent, if a slot is left, unless it is to be the same each time.
    pub(crate) fn vsock(&self) -> Option<Vsock> {
        let others = self.slots() + usize::from(self.net().is_some()) + usize::from(self.rng());
        let fits = others < self.transport().slots();
        let alike = self.machine.deterministic.unwrap_or_default();
        match &self.vsock {
            Some(vsock) => vsock.vsock(),
            None if self.boot.is_made_here() && fits && !alike => VsockSettings::USUAL.vsock(),
            None => None,
        }
    }

    /// Folders of the host's that it has, those of its root included.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let named = self.share.iter().map(ShareSettings::share);
        rootfs::shares(self.boot.rootfs.as_deref(), &self.boot.rw)
            .into_iter()
            .chain(named)
            .collect()
    }

    /// What a machine that writes over a root is kept as: its name, if it was given one or has a
    /// whole system.
    pub(crate) fn kept_as(&self) -> Option<MachineName> {
        let thrown_away = self.run.rm.unwrap_or_default();
        let own = || self.boot.debian.map(|_| self.name(None));
        self.machine.name.clone().or_else(own).filter(|_| !thrown_away)
    }

    /// These settings, with `root` as the first disk.
    pub(crate) fn with_root(&self, root: Option<DiskSettings>) -> Self {
        let disk = root.into_iter().chain(self.disk.iter().cloned()).collect();
        Self { disk, ..self.clone() }
    }

    /// Whether its memory can be given back while it runs.
    pub(crate) fn balloon(&self) -> bool {
        self.machine.balloon.unwrap_or_default()
    }

    /// Whether its console is a virtio one.
    pub(crate) fn hvc(&self) -> bool {
        self.machine.hvc.unwrap_or_default()
    }

    /// Has relative paths begin at `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        let at = |path: &mut PathBuf| *path = base.join(&*path);
        self.paths().into_iter().for_each(at);
    }

    /// Every path in it.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let Self { machine, boot, disk, cloud_init, vsock, share, engine: _, sched: _, run } = self;
        let BootSettings {
            debian: _,
            busybox: _,
            image,
            rootfs,
            rw,
            system: _,
            command: _,
            nucleus: _,
            kernel,
            initrd,
            cmdline: _,
            module,
        } = boot;
        let RunSettings {
            timeout: _,
            console,
            log,
            pcap,
            trace: _,
            trace_file,
            stats: _,
            digest: _,
            save,
            rm: _,
            cold: _,
        } = run;
        let console = console.as_mut().and_then(ConsolePlace::path);
        let net = match &mut machine.net {
            Some(NetChoice::Some(net)) => net.path(),
            Some(NetChoice::None) | None => None,
        };
        let single = [&mut machine.swap, rootfs, kernel, initrd, log, pcap, trace_file, save];
        let modules = module.iter_mut().map(|module| &mut module.path);
        single
            .into_iter()
            .flatten()
            .chain(rw)
            .chain(image.as_mut().and_then(ImageName::file_mut))
            .chain(console)
            .chain(net)
            .chain(modules)
            .chain(vsock.as_mut().and_then(|vsock| vsock.path.as_mut()))
            .chain(share.iter_mut().map(|share| &mut share.path))
            .chain(disk.iter_mut().flat_map(DiskSettings::paths))
            .chain(cloud_init.iter_mut().flat_map(CloudInitSettings::paths))
            .collect()
    }
}

impl MachineSettings {
    fn over(self, lower: Self) -> Self {
        Self {
            name: self.name.or(lower.name),
            memory: self.memory.or(lower.memory),
            resident: self.resident.or(lower.resident),
            swap: self.swap.or(lower.swap),
            cpu: self.cpu.or(lower.cpu),
            vcpus: self.vcpus.or(lower.vcpus),
            transport: self.transport.or(lower.transport),
            net: self.net.or(lower.net),
            rng: self.rng.or(lower.rng),
            balloon: self.balloon.or(lower.balloon),
            hvc: self.hvc.or(lower.hvc),
            debug_exit: self.debug_exit.or(lower.debug_exit),
            deterministic: self.deterministic.or(lower.deterministic),
        }
    }
}

impl BootSettings {
    /// Whether it says what is booted.
    fn names_a_guest(&self) -> bool {
        self.is_made_here() || self.nucleus.is_some() || self.kernel.is_some()
    }

    /// Whether it says what is booted in place of what `lower` says. `system` says more of a
    /// Debian.
    fn replaces(&self, lower: &Self) -> bool {
        let more = lower.debian.is_some() && self.system == Some(true);
        let others = Self { system: self.system.filter(|_| !more), ..self.clone() };
        others.names_a_guest()
    }

    /// Whether gemello makes the guest: its process 1 is the agent.
    pub(crate) fn is_made_here(&self) -> bool {
        let Self { busybox, rootfs, image, .. } = self;
        busybox.is_some() || rootfs.is_some() || image.is_some() || self.is_system()
    }

    /// Whether such a guest's root is a system, which has an init.
    pub(crate) fn is_system(&self) -> bool {
        self.system == Some(true) || self.debian.is_some()
    }

    /// Whether that init is started. A command in Debian does without, unless it is asked for.
    pub(crate) fn starts_init(&self) -> bool {
        self.system == Some(true) || self.debian.is_some() && self.command.is_empty()
    }

    /// Whether such a guest stays in its initial file system.
    pub(crate) fn stays_inside(&self) -> bool {
        self.rootfs.is_none() && self.image.is_none() && !self.is_system()
    }

    /// Whether such a guest runs a command, rather than a shell for who looks on.
    pub(crate) fn has_command(&self) -> bool {
        !self.command.is_empty() || self.image.is_some()
    }

    fn over(self, lower: Self) -> Self {
        let other_guest = self.replaces(&lower);
        let Self {
            debian,
            busybox,
            image,
            rootfs,
            rw,
            system,
            command,
            nucleus,
            kernel,
            initrd,
            cmdline,
            module,
        } = self;
        let of_guest = if other_guest { Self::default() } else { lower.clone() };
        Self {
            debian: debian.or(of_guest.debian),
            busybox: busybox.or(of_guest.busybox),
            image: image.or(of_guest.image),
            rootfs: rootfs.or(of_guest.rootfs),
            rw: list(rw, of_guest.rw),
            system: system.or(of_guest.system),
            nucleus: nucleus.or(of_guest.nucleus),
            kernel: kernel.or(of_guest.kernel),
            command: list(command, lower.command),
            initrd: initrd.or(lower.initrd),
            cmdline: cmdline.or(lower.cmdline),
            module: list(module, lower.module),
        }
    }
}

impl EngineSettings {
    /// As an engine is made, with what is not said filled in. Nothing is counted.
    pub(crate) fn options(&self) -> Options {
        Options {
            choice: self.name.unwrap_or_default(),
            tier: self.tier.unwrap_or(engine::TIER),
            code_cache: self
                .code_cache
                .map_or(engine_soft::CODE_CACHE, |CodeCache(bytes)| bytes as usize),
            count: false,
        }
    }

    fn over(self, lower: Self) -> Self {
        let Self { name, tier, code_cache } = self;
        Self {
            name: name.or(lower.name),
            tier: tier.or(lower.tier),
            code_cache: code_cache.or(lower.code_cache),
        }
    }
}

impl RunSettings {
    /// Whether counters are printed at the end.
    pub(crate) fn stats(&self) -> bool {
        self.stats.unwrap_or_default()
    }

    /// Whether a digest of the machine is printed at the end.
    pub(crate) fn digest(&self) -> bool {
        self.digest.unwrap_or_default()
    }

    fn over(self, lower: Self) -> Self {
        let Self { timeout, console, log, pcap, trace, trace_file, stats, digest, save, rm, cold } =
            self;
        Self {
            timeout: timeout.or(lower.timeout),
            console: console.or(lower.console),
            log: log.or(lower.log),
            pcap: pcap.or(lower.pcap),
            trace: list(trace, lower.trace),
            trace_file: trace_file.or(lower.trace_file),
            stats: stats.or(lower.stats),
            digest: digest.or(lower.digest),
            save: save.or(lower.save),
            rm: rm.or(lower.rm),
            cold: cold.or(lower.cold),
        }
    }
}
