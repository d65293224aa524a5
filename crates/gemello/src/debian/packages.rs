//! Which of Debian's packages, and what of them is kept.
//!
//! ```text
//! <cache>/debian/apt/             apt's private state
//! <cache>/debian/<flavour>/       vmlinuz, busybox, devices' drivers, RELEASE: complete, made by
//!                                 one rename
//! ```

use super::apt::{self, Apt};
use super::cache::{self, Draft, Lock};
use anyhow::{Context as _, Result, bail};
use machine::Transport;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flavour {
    /// linux-image-cloud-amd64: small, made for virtual machines.
    #[default]
    Cloud,
    /// linux-image-amd64: the one for physical machines.
    Full,
}

impl Flavour {
    fn package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Full => "linux-image-amd64",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Full => "full",
        }
    }
}

/// A kind of device with a driver of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Disk,
    Net,
    Console,
    Rng,
    Balloon,
    Vsock,
    Share,
    /// No device: what is written above a root that is only read.
    Overlay,
}

/// What a driver is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Any,
    Transport(Transport),
    Device(DeviceKind),
}

/// The drivers that gemello's devices need, below the kernel's folder of modules, in the order in
/// which they are loaded: the bus comes last, and with it the devices.
const DRIVERS: [(&str, For); 19] = [
    ("drivers/virtio/virtio_ring.ko", For::Any),
    ("drivers/virtio/virtio.ko", For::Any),
    ("drivers/block/virtio_blk.ko", For::Device(DeviceKind::Disk)),
    ("net/core/failover.ko", For::Device(DeviceKind::Net)),
    ("drivers/net/net_failover.ko", For::Device(DeviceKind::Net)),
    ("drivers/net/virtio_net.ko", For::Device(DeviceKind::Net)),
    ("drivers/char/virtio_console.ko", For::Device(DeviceKind::Console)),
    ("drivers/char/hw_random/virtio-rng.ko", For::Device(DeviceKind::Rng)),
    ("drivers/virtio/virtio_balloon.ko", For::Device(DeviceKind::Balloon)),
    ("fs/fuse/fuse.ko", For::Device(DeviceKind::Share)),
    ("fs/fuse/virtiofs.ko", For::Device(DeviceKind::Share)),
    ("fs/overlayfs/overlay.ko", For::Device(DeviceKind::Overlay)),
    ("net/vmw_vsock/vsock.ko", For::Device(DeviceKind::Vsock)),
    ("net/vmw_vsock/vmw_vsock_virtio_transport_common.ko", For::Device(DeviceKind::Vsock)),
    ("net/vmw_vsock/vmw_vsock_virtio_transport.ko", For::Device(DeviceKind::Vsock)),
    ("drivers/virtio/virtio_pci_legacy_dev.ko", For::Transport(Transport::Pci)),
    ("drivers/virtio/virtio_pci_modern_dev.ko", For::Transport(Transport::Pci)),
    ("drivers/virtio/virtio_pci.ko", For::Transport(Transport::Pci)),
    ("drivers/virtio/virtio_mmio.ko", For::Transport(Transport::Mmio)),
];

/// A driver in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) path: PathBuf,
    serves: For,
}

impl Driver {
    /// Whether a machine with these devices needs it.
    pub(crate) fn serves(&self, transport: Transport, devices: &[DeviceKind]) -> bool {
        self.serves.serves(transport, devices)
    }

    /// Whether it is one of a bus, and brings the devices up.
    pub(crate) fn is_of_bus(&self) -> bool {
        matches!(self.serves, For::Transport(_))
    }
}

impl For {
    fn serves(self, transport: Transport, devices: &[DeviceKind]) -> bool {
        match self {
            Self::Any => !devices.is_empty(),
            Self::Transport(own) => !devices.is_empty() && own == transport,
            Self::Device(kind) => devices.contains(&kind),
        }
    }
}

/// What the drivers are called that a machine with these devices needs, with whatever kernel: the
/// devices', and the bus's.
pub(crate) fn driver_names(
    transport: Transport,
    devices: &[DeviceKind],
) -> (Vec<&'static str>, Vec<&'static str>) {
    let wanted = DRIVERS.into_iter().filter(|(_, serves)| serves.serves(transport, devices));
    let (bus, own): (Vec<_>, Vec<_>) =
        wanted.partition(|(_, serves)| matches!(serves, For::Transport(_)));
    let names = |drivers: Vec<(&'static str, For)>| {
        drivers.into_iter().map(|(path, _)| base_name(path).trim_end_matches(".ko")).collect()
    };
    (names(own), names(bus))
}

/// What a fetch leaves in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The kernel, a bzImage.
    pub(crate) kernel: PathBuf,
    /// busybox, a static executable.
    pub(crate) busybox: PathBuf,
    /// Drivers for devices, in the order in which they are loaded.
    pub(crate) drivers: Vec<Driver>,
    /// The kernel package's name and version, then busybox's.
    pub(crate) release: String,
}

impl Fetched {
    /// What is at `place`, if all of it is there.
    pub(crate) fn at(place: &Path) -> Option<Self> {
        let release = fs::read_to_string(place.join("RELEASE")).ok()?;
        let driver = |(name, serves)| Driver { path: place.join(base_name(name)), serves };
        let fetched = Self {
            kernel: place.join("vmlinuz"),
            busybox: place.join("busybox"),
            drivers: DRIVERS.into_iter().map(driver).collect(),
            release,
        };
        let others = [&fetched.kernel, &fetched.busybox];
        let drivers = fetched.drivers.iter().map(|driver| &driver.path);
        let complete = drivers.chain(others).all(|file| file.is_file());
        complete.then_some(fetched)
    }

    /// Copies it to the folder `place`, which is not there yet, and flushes it.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn copy_to(&self, place: &Path) -> std::io::Result<()> {
        fs::create_dir(place)?;
        let drivers = self.drivers.iter().map(|driver| &driver.path);
        for file in drivers.chain([&self.kernel, &self.busybox]) {
            let to = place.join(file.file_name().unwrap_or_default());
            fs::copy(file, &to)?;
            fs::File::open(&to)?.sync_all()?;
        }
        fs::write(place.join("RELEASE"), &self.release)
    }

    /// What the kernel calls itself: the folder of its modules.
    pub(crate) fn kernel_version(&self) -> &str {
        let package = self.release.split_whitespace().next().unwrap_or_default();
        package.trim_start_matches("linux-image-")
    }
}

/// Which files are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// Those of the cache, if they are there.
    IfMissing,
    /// The newest.
    Always,
}

/// The cached files, fetched as far as `refresh` asks for that.
///
/// # Errors
/// No apt, no network, a full disk, a signature that does not verify.
pub(crate) fn fetch(flavour: Flavour, refresh: Refresh) -> Result<Fetched> {
    let root = cache::directory()?.join("debian");
    let place = root.join(flavour.name());
    if let Some(fetched) = Fetched::at(&place).filter(|_| refresh == Refresh::IfMissing) {
        return Ok(fetched);
    }
    let _lock = Lock::acquire(&root)?;
    if let Some(fetched) = Fetched::at(&place).filter(|_| refresh == Refresh::IfMissing) {
        return Ok(fetched); // another process was faster
    }
    let apt = Apt::new(&root.join("apt"))?;
    eprintln!("gemello: fetching Debian's package lists");
    // A source of the host's that fails matters only if the packages are not to be had without it.
    let updated = apt.update();
    let (kernel, release) = match (newest(&apt, flavour), updated) {
        (Ok(newest), _) => newest,
        (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
    };
    if let Some(fetched) = Fetched::at(&place).filter(|f| f.release == release) {
        eprintln!("gemello: {kernel} is up to date");
        return Ok(fetched);
    }
    build(&apt, &kernel, &release, &root, &place)?;
    Fetched::at(&place).with_context(|| format!("{} is incomplete", place.display()))
}

/// The kernel's package, and what [`Fetched::release`] would be.
fn newest(apt: &Apt, flavour: Flavour) -> Result<(String, String)> {
    let kernel = apt.dependency(flavour.package(), "linux-image-")?;
    let (version, busybox) = (apt.version(&kernel)?, apt.version("busybox-static")?);
    let release = format!("{kernel} {version}\nbusybox-static {busybox}\n");
    Ok((kernel, release))
}

/// The last part of a driver's path.
fn base_name(driver: &str) -> &str {
    driver.rsplit('/').next().unwrap_or(driver)
}

/// Downloads, unpacks, keeps a few files, publishes.
fn build(apt: &Apt, kernel: &str, release: &str, root: &Path, place: &Path) -> Result<()> {
    let work = Draft::new(root, "download")?;
    eprintln!("gemello: fetching {kernel} and busybox-static");
    apt.download(&[kernel, "busybox-static"], work.path())?;
    let files = work.path().join("files");
    for package in packages_in(work.path())? {
        eprintln!("gemello: unpacking {}", file_name(&package));
        apt::unpack(&package, &files)?;
    }
    let image = find(&files.join("boot"), "vmlinuz-")?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|p| files.join(p));
    let Some(busybox) = busybox.iter().find(|p| p.is_file()) else {
        bail!("the package busybox-static holds no bin/busybox");
    };
    let version = kernel.trim_start_matches("linux-image-");
    let modules = files.join("lib/modules").join(version).join("kernel");
    let draft = Draft::new(root, "publish")?;
    let keep = || -> std::io::Result<()> {
        fs::rename(&image, draft.path().join("vmlinuz"))?;
        fs::rename(busybox, draft.path().join("busybox"))?;
        for (driver, _) in DRIVERS {
            fs::rename(modules.join(driver), draft.path().join(base_name(driver)))?;
        }
        fs::write(draft.path().join("RELEASE"), release)
    };
    keep().map_err(|error| {
        cache::refused(&format!("cannot fill {}", draft.path().display()), &error)
    })?;
    draft.publish(place)?;
    eprintln!("gemello: ready: {}", place.display());
    Ok(())
}

pub(super) fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|p| p.extension().is_some_and(|e| e == "deb")).collect())
}

fn find(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("the kernel's package holds no {}", directory.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .find(|p| file_name(p).starts_with(prefix))
        .with_context(|| format!("the kernel's package holds no {prefix}* in /boot"))
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in the cache, one line for each.
pub(crate) fn releases() -> Vec<String> {
    let Ok(root) = cache::directory() else { return Vec::new() };
    let place = |flavour: Flavour| root.join("debian").join(flavour.name());
    [Flavour::Cloud, Flavour::Full]
        .into_iter()
        .filter_map(|flavour| Fetched::at(&place(flavour)))
        .map(|fetched| fetched.release.trim().replace('\n', ", "))
        .collect()
}
