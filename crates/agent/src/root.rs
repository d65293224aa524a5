//! The guest's root: the host's files, a shared folder that is only read, and above it, in memory,
//! what the guest writes; or a disk.

use crate::{bare, mounts};
use agent_job::{Program, Root};
use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount_move};
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

/// Where the parts of it are in the initial file system.
const LOWER: &str = "/gemello/lower";
const ABOVE: &str = "/gemello/above";
const ROOT: &str = "/gemello/root";

/// Makes `root` the root, for this `program`'s user.
pub(crate) fn enter(root: &Root, program: &Program) -> Result<()> {
    match root {
        Root::Folder(tag) => folder(tag, program),
        Root::Disk(device) => {
            mounts::disk(device, Path::new(ROOT))?;
            become_root(Path::new(ROOT))
        }
        Root::Bare(device) => {
            mounts::disk(device, Path::new(ROOT))?;
            become_root(Path::new(ROOT))?;
            bare::settle()
        }
        Root::System(device) => {
            mounts::disk(device, Path::new(ROOT))?;
            leave_initial();
            become_root(Path::new(ROOT))?;
            mounts::run()
        }
    }
}

/// Makes the shared folder `tag` the root.
fn folder(tag: &str, program: &Program) -> Result<()> {
    let (lower, above, root) = (Path::new(LOWER), Path::new(ABOVE), Path::new(ROOT));
    mounts::lower(tag, lower)?;
    mounts::at(above, "tmpfs", MountFlags::empty(), "mode=0700")?;
    let upper = above.join("upper");
    for folder in [&upper, &above.join("work")] {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    same_attributes(lower, &upper)?;
    let options = format!("lowerdir={LOWER},upperdir={ABOVE}/upper,workdir={ABOVE}/work");
    mounts::at(root, "overlay", MountFlags::empty(), &options)?;
    become_root(root)?;
    run_folder(program)?;
    synthesize(program.uid)
}

/// Gives back the memory of the initial file system, which nobody sees any more.
fn leave_initial() {
    let _ = fs::remove_file("/init");
    let _ = fs::remove_dir_all("/etc");
}

/// Makes what is mounted at `root` the root, with what the kernel tells, and devices.
fn become_root(root: &Path) -> Result<()> {
    for folder in ["proc", "sys", "dev"] {
        let place = root.join(folder);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        mount_move(Path::new("/").join(folder), &place)
            .with_context(|| format!("cannot move /{folder}"))?;
    }
    std::env::set_current_dir(root).context("cannot enter the new root")?;
    mount_move(".", "/").context("cannot make the new root the root")?;
    rustix::process::chroot(".").context("cannot make the new root the root")?;
    std::env::set_current_dir("/").context("cannot enter the new root")
}

/// An overlay's root is as its upper folder is.
fn same_attributes(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        let found = fs::metadata(from)?;
        chown(to, Some(found.uid()), Some(found.gid()))?;
        fs::set_permissions(to, found.permissions())
    };
    copy().with_context(|| format!("cannot make {} like {}", to.display(), from.display()))
}

/// What runs on the host has its files in /run; nothing of it runs here.
fn run_folder(program: &Program) -> Result<()> {
    mounts::run()?;
    let user = format!("/run/user/{}", program.uid);
    let make = || {
        fs::create_dir("/run/lock")?;
        fs::set_permissions("/run/lock", Permissions::from_mode(0o1777))?;
        fs::create_dir_all(&user)?;
        fs::set_permissions(&user, Permissions::from_mode(0o700))?;
        chown(&user, Some(program.uid), Some(program.gid))
    };
    make().context("cannot fill /run")
}

/// Files that the host's user may not read, and without which nobody becomes another user: made
/// anew, so that `su` and `sudo` make the guest's user the guest's root. On the host it is still
/// the same user.
fn synthesize(uid: u32) -> Result<()> {
    let names = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split(':').next());
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let shadow = || names("/etc/passwd").iter().map(|name| format!("{name}:*:::::::\n")).collect();
    let groups = || names("/etc/group").iter().map(|name| format!("{name}:*::\n")).collect();
    let sudoers = || format!("root ALL=(ALL:ALL) ALL\n#{uid} ALL=(ALL:ALL) NOPASSWD: ALL\n");
    replace_unreadable("/etc/shadow", 0o600, shadow)?;
    replace_unreadable("/etc/gshadow", 0o600, groups)?;
    replace_unreadable("/etc/sudoers", 0o440, sudoers)
}

fn replace_unreadable(path: &str, mode: u32, content: impl Fn() -> String) -> Result<()> {
    let refused = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    if !File::open(path).err().is_some_and(refused) {
        return Ok(());
    }
    let replace = || {
        fs::remove_file(path)?;
        fs::write(path, content())?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    replace().with_context(|| format!("cannot replace {path}"))
}
