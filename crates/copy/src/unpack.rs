//! From entries to a tree below one folder.

use crate::entry::{Entry, Kind, carry};
use crate::{at, wrong};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A folder is opened as itself.
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Which bits of a mode are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Those of a file whose sender is trusted.
    All,
    /// No set-user-ID, set-group-ID and sticky bits.
    Permissions,
}

/// Where entries go: a folder, or one name in it.
#[derive(Debug)]
pub struct Target {
    folder: OwnedFd,
    /// What the first of each entry's names becomes.
    renamed: Option<OsString>,
    bits: Bits,
    /// Folders that have been made, and what they are to be once everything is in them.
    folders: Vec<(Vec<OsString>, u32, i64)>,
}

impl Target {
    /// Into `path` if that is a folder; else what comes is called `path`.
    ///
    /// # Errors
    /// There is no folder to put it in.
    pub fn new(path: &Path, bits: Bits) -> io::Result<Self> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, path, flags, Mode::empty()).map_err(|error| {
                let error = io::Error::from(error);
                let shown = path.display();
                io::Error::new(error.kind(), format!("cannot write to {shown}: {error}"))
            })
        };
        let made = |folder, renamed| Self { folder, renamed, bits, folders: Vec::new() };
        let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = path.file_name().filter(|_| !is_folder);
        let Some(name) = name else { return Ok(made(open(path)?, None)) };
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        Ok(made(open(parent.unwrap_or(Path::new(".")))?, Some(name.to_owned())))
    }

    /// Makes what `from` says, up to its end.
    ///
    /// # Errors
    /// What is read; the host's; or an entry would lead outside: what came before is there.
    pub fn unpack(mut self, from: &mut impl Read) -> io::Result<()> {
        while let Some(entry) = Entry::read(from)? {
            self.entry(entry, from)?;
        }
        let folders = std::mem::take(&mut self.folders);
        for (path, mode, seconds) in folders.into_iter().rev() {
            let settle = || -> Result<(), Errno> {
                let folder = self.walk(&path)?;
                fchmod(&folder, self.mode(mode))?;
                futimens(&folder, &times(seconds))
            };
            settle().map_err(|error| at(error, "set the mode of", &path))?;
        }
        Ok(())
    }

    fn mode(&self, mode: u32) -> Mode {
        Mode::from_raw_mode(mode & if self.bits == Bits::All { 0o7777 } else { 0o777 })
    }

    /// Opens the folder at `path`, which is there, one name after the other.
    fn walk(&self, path: &[OsString]) -> Result<OwnedFd, Errno> {
        let mut folder = openat(&self.folder, c".", FOLDER, Mode::empty())?;
        for name in path {
            folder = openat(&folder, &**name, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    fn entry(&mut self, entry: Entry, from: &mut impl Read) -> io::Result<()> {
        let Entry { mut path, mode, seconds, kind } = entry;
        if let (Some(renamed), Some(first)) = (&self.renamed, path.first_mut()) {
            first.clone_from(renamed);
        }
        let Some((name, parents)) = path.split_last() else {
            return match kind {
                Kind::Folder => Ok(()), // the target itself
                _ => Err(wrong("an entry has no name")),
            };
        };
        let parent = self.walk(parents).map_err(|error| at(error, "enter", parents))?;
        match kind {
            Kind::Folder => {
                make_folder(&parent, name).map_err(|error| at(error, "make the folder", &path))?;
                self.folders.push((path, mode, seconds));
            }
            Kind::Link(target) => {
                let make = || {
                    make_way(&parent, name)?;
                    symlinkat(&*target, &parent, &**name)?;
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    utimensat(&parent, &**name, &times(seconds), flags)
                };
                make().map_err(|error| at(error, "make the link", &path))?;
            }
            Kind::File(size) => {
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let flags = new | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let make = || {
                    make_way(&parent, name)?;
                    openat(&parent, &**name, flags, Mode::RUSR | Mode::WUSR)
                };
                let file = make().map_err(|error| at(error, "make", &path))?;
                let mut file = File::from(file);
                carry(from, &mut file, size).map_err(|error| at(error, "write", &path))?;
                let settle = || {
                    fchmod(&file, self.mode(mode))?;
                    futimens(&file, &times(seconds))
                };
                settle().map_err(|error| at(error, "set the mode of", &path))?;
            }
        }
        Ok(())
    }
}

/// A folder of this name, which only its owner can use for now; or the one that is there.
fn make_folder(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match mkdirat(&parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => openat(&parent, name, FOLDER, Mode::empty()).map(drop),
        made => made,
    }
}

/// Removes what a file or link replaces. A folder stays, and is in the way.
fn make_way(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn times(seconds: i64) -> Timestamps {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Timestamps { last_access: now, last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 } }
}
