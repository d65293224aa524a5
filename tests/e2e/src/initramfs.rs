//! Initramfs images of the tests' own: busybox, Debian's drivers of virtio disks, a process 1, and
//! what else a test puts in.

use crate::{cache, scratch, succeeds, unpack};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Debian's modules, in the order in which they need each other.
const MODULES: [&str; 7] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
];

/// What process 1 begins with: the applets that it names are busybox's.
const PREFACE: &str = "#!/bin/busybox sh
export PATH=/bin:/usr/bin
busybox mount -t devtmpfs d /dev; busybox mount -t proc p /proc; busybox mount -t sysfs s /sys
";

/// An image in the making.
pub struct Initramfs {
    archive: Vec<u8>,
    /// Commands that load the modules.
    loads: String,
    kernel: PathBuf,
}

impl Initramfs {
    /// With the drivers of virtio disks. Packages are unpacked below `place`.
    pub fn new(place: &str) -> Self {
        let (archive, loads) = (Vec::new(), String::new());
        let mut this = Self { archive, loads, kernel: kernel_modules(Path::new(place)) };
        for directory in ["bin", "dev", "proc", "sys", "mnt", "tmp", "modules"] {
            this.record(directory, 0o40_755, (0, 0), &[]);
        }
        this.record("dev/console", 0o20_600, (5, 1), &[]);
        let busybox = fs::read(cache().join("cloud/busybox")).expect("busybox");
        this.record("bin/busybox", 0o100_755, (0, 0), &busybox);
        MODULES.into_iter().for_each(|module| this.module(module));
        this
    }

    /// Adds a module of the cloud kernel, which is loaded before process 1 goes on.
    pub fn module(&mut self, module: &str) {
        let content = fs::read(self.kernel.join(module).with_extension("ko")).expect("a module");
        let name = format!("modules/{}.ko", module.rsplit('/').next().expect("a name"));
        self.record(&name, 0o100_644, (0, 0), &content);
        self.loads += &format!("busybox insmod /{name}\n");
    }

    /// Adds all that is in the folder `tree`.
    pub fn tree(&mut self, tree: &Path) {
        let mut folders = vec![tree.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(tree).expect("below it").to_str().expect("text");
                let metadata = path.symlink_metadata().expect("it is there");
                if metadata.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    self.record(name, 0o120_777, (0, 0), target.as_os_str().as_bytes());
                } else if metadata.is_dir() {
                    self.record(name, 0o40_755, (0, 0), &[]);
                    folders.push(path);
                } else {
                    let mode = 0o100_000 | metadata.permissions().mode() & 0o777;
                    self.record(name, mode, (0, 0), &fs::read(&path).expect("a file"));
                }
            }
        }
    }

    /// The image, whose process 1 is the shell script `init`.
    pub fn file(mut self, init: &str) -> PathBuf {
        let script = [PREFACE, &self.loads, init].concat();
        self.record("init", 0o100_755, (0, 0), script.as_bytes());
        self.record("TRAILER!!!", 0, (0, 0), &[]);
        scratch("initrd", &self.archive)
    }

    /// One record of the kernel's initramfs format
    /// (Documentation/driver-api/early-userspace/buffer-format.rst).
    fn record(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let archive = &mut self.archive;
        let inode = archive.len() as u32; // any number of its own
        let size = content.len() as u32;
        let fields =
            [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        archive.extend_from_slice(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
}

/// The folder of the cloud kernel's modules: from its package, which gemello's own apt directory
/// can fetch.
fn kernel_modules(place: &Path) -> PathBuf {
    static UNPACKED: Mutex<()> = Mutex::new(());
    let _once = sync::lock(&UNPACKED);
    let release = fs::read_to_string(cache().join("cloud/RELEASE")).expect("Debian is fetched");
    let package = release.split_whitespace().next().expect("a package").to_owned();
    let place = place.join(release.replace([' ', '\n', ':'], "_"));
    let version = package.trim_start_matches("linux-image-");
    let kernel = place.join("lib/modules").join(version).join("kernel");
    if !kernel.join("drivers/block/virtio_blk.ko").exists() {
        unpack(&package, &place);
    }
    kernel
}

/// What Debian's `packages` hold, unpacked together below `place` once, without `usr/share`.
pub fn packages(place: &Path, packages: &[&str]) -> PathBuf {
    static UNPACKED: Mutex<()> = Mutex::new(());
    let _once = sync::lock(&UNPACKED);
    let root = place.join("root");
    if root.exists() {
        return root;
    }
    let draft = place.join("draft");
    fs::create_dir_all(&draft).expect("a scratch directory");
    let mut fetch = Command::new("apt-get");
    fetch.arg("download").args(packages).env("APT_CONFIG", cache().join("apt/apt.conf"));
    succeeds(fetch.current_dir(place));
    for entry in fs::read_dir(place).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "deb") {
            succeeds(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&draft));
            fs::remove_file(path).expect("it is there");
        }
    }
    let _ = fs::remove_dir_all(draft.join("usr/share"));
    fs::rename(draft, &root).expect("a rename");
    root
}
