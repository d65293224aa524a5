//! A file's attributes: as the host has them, as the guest is shown them, and what tells one file
//! from another.

use crate::message::Answer;
use crate::owner::{Ids, Ownership};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, Statx, StatxFlags, makedev, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Set-user-ID and set-group-ID.
const SET_IDS: u32 = 0o6000;
/// A change is so old before the next one is sure to have another time.
const SETTLED: Duration = Duration::from_secs(2);
/// Of two changes within this, the second may leave the same times: the host's clock of files.
const TICK: Duration = Duration::from_millis(20);

/// What tells a file from any other: its number is used again, but not with its time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) dev: u64,
    ino: u64,
    /// Zero where the file system has none.
    born: (i64, u32),
}

/// What a cache of a file's content goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    size: u64,
    changed: (i64, u32),
    /// A later change may have the same time.
    unsure: bool,
}

impl Content {
    /// Whether what was cached when the file was like this is good now that it is like `now`.
    pub(crate) fn holds(&self, now: &Self) -> bool {
        self == now && !self.unsure
    }
}

/// What a guest goes by of a file's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing of what changes with a file's content: it asks when it needs that.
    #[default]
    Nothing,
    /// It has them, and a change may be one that cannot be seen from here.
    Unsure,
    /// Those of this size and time of change.
    As(u64, (i64, u32)),
}

impl Told {
    /// Whether the guest goes by nothing but what is so `now`.
    pub(crate) fn holds(self, now: &Attributes) -> bool {
        match self {
            Self::Nothing => true,
            Self::Unsure => false,
            Self::As(size, changed) => (size, changed) == (now.0.stx_size, now.changed()),
        }
    }
}

/// A file as the host has it, and when it was looked at.
pub(crate) struct Attributes(Statx, Instant);

impl Attributes {
    /// Of what `name` is in the directory `at`.
    pub(crate) fn of_child(at: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        Self::read(at, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Of `file` itself.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        Self::read(file, c"", AtFlags::EMPTY_PATH)
    }

    fn read(at: impl AsFd, name: &CStr, flags: AtFlags) -> Result<Self, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let before = Instant::now();
        statx(at, name, flags | AtFlags::NO_AUTOMOUNT, wanted).map(|found| Self(found, before))
    }

    /// Whether it was looked at after that.
    pub(crate) fn is_after(&self, event: Instant) -> bool {
        self.1 >= event
    }

    pub(crate) fn key(&self) -> Key {
        let Self(found, _) = self;
        let born = found.stx_btime;
        let has = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        Key {
            dev: makedev(found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
            born: if has { (born.tv_sec, born.tv_nsec) } else { (0, 0) },
        }
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.0.stx_mode.into())
    }

    /// That its content is its own, and opening it does nothing but that.
    ///
    /// # Errors
    /// It is a directory, a device, a pipe or a socket.
    pub(crate) fn is_regular(&self) -> Result<(), Errno> {
        match self.kind() {
            FileType::RegularFile => Ok(()),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::ACCESS),
        }
    }

    /// The host's number for it.
    pub(crate) fn number(&self) -> u64 {
        self.0.stx_ino
    }

    /// Its set-group-ID bit.
    pub(crate) fn set_group(&self) -> Mode {
        Mode::from_raw_mode(self.0.stx_mode.into()) & Mode::SGID
    }

    pub(crate) fn host_ids(&self) -> Ids {
        Ids { uid: self.0.stx_uid, gid: self.0.stx_gid }
    }

    /// How many names it has.
    pub(crate) fn links(&self) -> u32 {
        self.0.stx_nlink
    }

    /// When anything of it has changed last.
    fn changed(&self) -> (i64, u32) {
        (self.0.stx_ctime.tv_sec, self.0.stx_ctime.tv_nsec)
    }

    /// What a guest goes by that is told of them now.
    pub(crate) fn told(&self) -> Told {
        let changed = self.changed();
        match age(changed) {
            Some(age) if age >= TICK => Told::As(self.0.stx_size, changed),
            _ => Told::Unsure,
        }
    }

    pub(crate) fn content(&self) -> Content {
        let changed = self.modified();
        let unsure = age(changed).is_none_or(|age| age < SETTLED);
        Content { size: self.0.stx_size, changed, unsure }
    }

    /// Whether it is a directory that may be changed once more without another time.
    pub(crate) fn is_unsettled_directory(&self) -> bool {
        self.kind() == FileType::Directory && self.content().unsure
    }

    /// When names in it, or its content, have changed last: seconds since 1970, and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, u32) {
        (self.0.stx_mtime.tv_sec, self.0.stx_mtime.tv_nsec)
    }

    /// Appends `fuse_attr`. `ino` is the number that the guest is shown, `nanoseconds` those of the
    /// time of modification.
    pub(crate) fn put(
        &self,
        answer: &mut Answer,
        ino: u64,
        ownership: &Ownership,
        nanoseconds: u32,
    ) {
        let Self(found, _) = self;
        let ids = ownership.shown(self.host_ids());
        answer.u64(ino).u64(found.stx_size).u64(found.stx_blocks);
        let times = [found.stx_atime, found.stx_mtime, found.stx_ctime];
        for time in times {
            answer.u64(time.tv_sec as u64);
        }
        answer.u32(found.stx_atime.tv_nsec).u32(nanoseconds).u32(found.stx_ctime.tv_nsec);
        let rdev = makedev(found.stx_rdev_major, found.stx_rdev_minor) as u32;
        answer.u32(found.stx_mode.into()).u32(found.stx_nlink).u32(ids.uid).u32(ids.gid);
        answer.u32(rdev).u32(found.stx_blksize).u32(0);
    }
}

/// The permissions that a file of the guest's gets on the host: no program of the guest's runs
/// there with the host user's rights for others. A directory's group is no danger.
pub(crate) fn permissions(mode: u32, kind: FileType) -> u32 {
    let mode = mode & 0o7777;
    match kind {
        FileType::Directory => mode & !0o4000,
        _ => mode & !SET_IDS,
    }
}

/// How long ago that was. `None`: it is not over.
fn age((seconds, nanoseconds): (i64, u32)) -> Option<Duration> {
    let since = u64::try_from(seconds).ok()?;
    let since = UNIX_EPOCH + Duration::new(since, nanoseconds);
    SystemTime::now().duration_since(since).ok()
}
