//! Locks on image files, against other machines and against QEMU.
//!
//! They are open-file-description locks (fcntl(2)): held by what was opened, by whichever process,
//! and gone with it. QEMU's scheme is kept: who uses an image in some way holds a read lock on byte
//! 100 + n, who allows nobody else that use holds one on byte 200 + n, and each looks for locks of
//! the opposite kind before going on. A writer uses all of it alone; readers share it.

use super::DiskAccess;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;

/// Uses, as QEMU numbers them (include/block/block-common.h).
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;
/// The first byte of the uses, and of what nobody else may do.
const USED: i64 = 100;
const UNSHARED: i64 = 200;

/// Whether a file is now ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    /// It is.
    Yes,
    /// Another has it.
    Busy,
}

/// Locks `file` for `access`, until it is closed.
///
/// # Errors
/// The host cannot lock this file at all.
pub(crate) fn lock(file: &File, access: DiskAccess) -> io::Result<Locked> {
    let uses: &[i64] = match access {
        DiskAccess::ReadOnly => &[READ],
        DiskAccess::ReadWrite => &[READ, WRITE, RESIZE],
    };
    let unshared = [WRITE, RESIZE];
    let mine = uses.iter().map(|n| USED + n).chain(unshared.iter().map(|n| UNSHARED + n));
    for byte in mine {
        let held = fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte)));
        match held {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Locked::Busy),
            Err(error) => return Err(error.into()),
        }
    }
    let theirs = uses.iter().map(|n| UNSHARED + n).chain(unshared.iter().map(|n| USED + n));
    for byte in theirs {
        // Our own locks do not count.
        let mut probe = range(libc::F_WRLCK, byte);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe))?;
        if i32::from(probe.l_type) != libc::F_UNLCK {
            return Ok(Locked::Busy);
        }
    }
    Ok(Locked::Yes)
}

/// Locks `file`, which can be written and is no image, against all who would use it as one, until
/// it is closed. False: somebody does.
///
/// # Errors
/// The host cannot lock this file at all.
pub fn claim(file: &File) -> io::Result<bool> {
    let all = libc::flock { l_len: 2 * (UNSHARED - USED), ..range(libc::F_WRLCK, USED) };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&all)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A lock of `kind` on one byte.
fn range(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}
