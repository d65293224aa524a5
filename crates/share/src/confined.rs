//! How the host's files are reached: always one name at a time below a directory that is open, and
//! never through a link.
//!
//! A name is one component, neither `.` nor `..` ([`crate::message::Arguments::name`]), so no step
//! leads up; a link is opened as the link that it is. openat2 is told so again: `RESOLVE_BENEATH`,
//! `RESOLVE_NO_MAGICLINKS`. Where seccomp forbids it, the same steps are made by openat with
//! `O_NOFOLLOW`.
//!
//! A file that is open by `O_PATH` is opened in earnest through `/proc/self/fd`, whose links lead
//! to that very file, wherever its name is by then.

use rustix::fd::{AsFd, AsRawFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::sync::OnceLock;

/// Whether the host's kernel has openat2, and lets this process use it.
fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let probe = || openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).is_ok();
    *HAS.get_or_init(probe)
}

/// Opens what `name`, one component, is in the directory `at`; a link is not followed.
pub(crate) fn open_child(at: impl AsFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if has_openat2() {
        let confined = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        return openat2(at, name, flags, mode, confined);
    }
    openat(at, name, flags, mode)
}

/// As [`open_child`], for what needs no right to the file.
pub(crate) fn find_child(at: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    open_child(at, name, OFlags::PATH, Mode::empty())
}

/// The folder of this process's open files.
#[derive(Debug)]
pub(crate) struct OpenFiles(OwnedFd);

impl OpenFiles {
    pub(crate) fn new() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, c"/proc/self/fd", flags, Mode::empty()).map(Self)
    }

    pub(crate) fn folder(&self) -> impl AsFd {
        &self.0
    }

    /// What `file` is called there.
    pub(crate) fn name(&self, file: impl AsFd) -> CString {
        decimal("", file)
    }

    /// The same as a path, for calls that take no folder.
    pub(crate) fn path(&self, file: impl AsFd) -> CString {
        decimal("/proc/self/fd/", file)
    }

    /// Opens `file`, a regular file or a directory, in earnest.
    pub(crate) fn open(&self, file: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        openat(&self.0, self.name(file), flags, Mode::empty())
    }
}

fn decimal(before: &str, file: impl AsFd) -> CString {
    CString::new(format!("{before}{}", file.as_fd().as_raw_fd())).unwrap_or_default()
}

/// The host's error, as a number for the guest.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
