//! A file whose bytes are the disk's, and the way to it past the host's page cache.

use super::ImageError;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

/// What the host keeps of a disk in its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostCache {
    /// What was read and written.
    #[default]
    Used,
    /// Nothing (`O_DIRECT`).
    Bypassed,
}

/// A file in which each byte of a disk is at its own place.
#[derive(Clone, Debug)]
pub struct Straight {
    /// The file. Past the cache, the host may refuse what is not aligned as it wants
    /// ([`std::io::ErrorKind::InvalidInput`]).
    pub file: Arc<File>,
    /// What the host keeps of it.
    pub cache: HostCache,
}

/// Another opening of `file`, from `path`, past the host's cache.
pub(crate) fn past_the_cache(path: &Path, file: &File) -> Result<File, ImageError> {
    let no = |source: rustix::io::Errno| ImageError::Direct {
        path: path.to_owned(),
        source: source.into(),
    };
    let rights = rustix::fs::fcntl_getfl(file).map_err(no)? & OFlags::RWMODE;
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = rights | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok(rustix::fs::open(same, flags, Mode::empty()).map_err(no)?.into())
}
