//! File systems that every guest has.

use crate::init;
use agent_job::Folder;
use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// busybox, where the initial file system has it.
const BUSYBOX: &str = "/bin/busybox";

/// Mounts a file system of `kind` at `place`, which is made if need be.
pub(crate) fn at(place: &Path, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    from(kind, place, kind, flags, options)
}

/// The same with a source.
fn from(source: &str, place: &Path, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    let shown = place.display();
    fs::create_dir_all(place).with_context(|| format!("cannot make {shown}"))?;
    let options = CString::new(options).context("options with a NUL")?;
    mount(source, place, kind, flags, Some(&*options))
        .with_context(|| format!("cannot mount {source} as {kind} at {shown}"))
}

/// What the kernel tells, and devices.
pub(crate) fn system() -> Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    at(Path::new("/proc"), "proc", quiet, "")?;
    at(Path::new("/sys"), "sysfs", quiet, "")?;
    at(Path::new("/dev"), "devtmpfs", MountFlags::NOSUID, "mode=0755")?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    at(Path::new("/dev/pts"), "devpts", terminals, "mode=0620,gid=5,ptmxmode=0666")?;
    at(Path::new("/dev/shm"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777")?;
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, Path::new("/dev").join(name)).with_context(|| format!("no /dev/{name}"))?;
    }
    Ok(())
}

/// What lasts as long as the system runs.
pub(crate) fn run() -> Result<()> {
    at(Path::new("/run"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755")
}

/// Whether the initial file system has busybox, and so is the root.
pub(crate) fn has_busybox() -> bool {
    Path::new(BUSYBOX).exists()
}

/// What else a root needs that is the initial file system itself, with busybox.
pub(crate) fn own_root() -> Result<()> {
    at(Path::new("/tmp"), "tmpfs", MountFlags::empty(), "mode=1777")?;
    at(Path::new("/run"), "tmpfs", MountFlags::empty(), "mode=0755")?;
    for folder in ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/sbin"] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    init::helper(BUSYBOX, &["--install", "-s"])
}

/// A shared folder.
pub(crate) fn share(folder: &Folder) -> Result<()> {
    let access = if folder.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let flags = access | MountFlags::NOSUID | MountFlags::NODEV;
    from(&folder.tag, &folder.place, "virtiofs", flags, "")
}

/// The file system on the disk `device`.
pub(crate) fn disk(device: &str, place: &Path) -> Result<()> {
    from(device, place, "ext4", MountFlags::empty(), "")
}

/// The shared folder `tag`, which the guest can only read; device files in it are none.
pub(crate) fn lower(tag: &str, place: &Path) -> Result<()> {
    from(tag, place, "virtiofs", MountFlags::RDONLY | MountFlags::NODEV, "")
}
