//! Shared folders whose host's side has changed: the guest's kernel looks anew at names that
//! gemello tells.
//!
//! A name is looked at by making a folder of that name, where the file system can only be read: the
//! kernel asks the host what is there now, whatever it believes, and then makes nothing.

use agent_job::{FromAgent, ToAgent};
use anyhow::{Context as _, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, StatxFlags, mkdirat, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use vsock::VsockStream;

/// Looks at what comes on `stream`, paths below the shared folder `tag` with a NUL after each, to
/// its end.
pub(crate) fn follow(stream: &mut VsockStream, tag: &str) -> Result<()> {
    let folder = mounted(tag).with_context(|| format!("cannot mount {tag} once more"))?;
    FromAgent::Ended(0).write(stream)?;
    while let Some(ToAgent::Input(paths)) = ToAgent::read(stream)? {
        let paths = paths.strip_suffix(&[0]).unwrap_or(&paths);
        paths.split(|&byte| byte == 0).for_each(|path| look_anew(&folder, path));
    }
    Ok(())
}

/// The shared folder, to be read only, at no place: nobody who unmounts it meets this one.
fn mounted(tag: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("virtiofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", tag)?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

fn look_anew(folder: &OwnedFd, path: &[u8]) {
    if path.is_empty() {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        let _ = statx(folder, "", flags, StatxFlags::BASIC_STATS);
    } else {
        let _ = mkdirat(folder, path, Mode::empty());
    }
}
