//! A system without its own process 1, as a container has it: what that would have done, as far as
//! programs notice. Of its disk nothing changes but an identity that it has not yet.

use crate::{mounts, nodes};
use anyhow::{Context as _, Result};
use rustix::mount::MountFlags;
use rustix::system::sethostname;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Each installation's own, 32 digits; empty where it is to be made (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// Makes the root, which is the system's already, ready for a program.
pub(crate) fn settle() -> Result<()> {
    let program_free = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mounts::run()?;
    let lock = Path::new("/run/lock");
    let make = || fs::create_dir(lock).and_then(|()| fs::set_permissions(lock, open_to_all()));
    make().context("cannot make /run/lock")?;
    // Empty after each boot, as for the system itself.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mounts::at(Path::new("/tmp"), "tmpfs", flags, "mode=1777")?;
    mounts::at(Path::new("/sys/fs/cgroup"), "cgroup2", program_free, "nsdelegate")?;
    mounts::at(Path::new("/dev/mqueue"), "mqueue", program_free, "")?;
    nodes::make();
    identify().with_context(|| format!("cannot write {MACHINE_ID}"))?;
    match own_name(&fs::read_to_string("/etc/hostname").unwrap_or_default()) {
        Some(name) => sethostname(name.as_bytes()).context("cannot set the host's name"),
        None => Ok(()),
    }
}

fn open_to_all() -> Permissions {
    Permissions::from_mode(0o1777)
}

/// The system's own process 1 keeps what it finds here, when it comes.
fn identify() -> io::Result<()> {
    if !fs::metadata(MACHINE_ID).is_ok_and(|file| file.len() == 0) {
        return Ok(());
    }
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    fs::write(MACHINE_ID, random.replace('-', ""))
}

/// What hostname(5) says, if it says something.
fn own_name(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_line_that_is_no_comment() {
        for (text, name) in
            [("debian\n", Some("debian")), ("# why\n\n a.b \nc\n", Some("a.b")), ("#\n", None)]
        {
            assert_eq!(own_name(text), name, "{text:?}");
        }
    }
}
