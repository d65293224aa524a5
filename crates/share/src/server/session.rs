//! The session: INIT, FORGET and DESTROY; attributes of files and of the file system.

use super::{Cache, DATA, FOLLOWED, Header, Reply, Share};
use crate::attributes::{Attributes, permissions};
use crate::inodes::{Location, NodeId};
use crate::message::{Answer, Arguments};
use crate::watches::is_local;
use crate::wire::{self, init, opcode, set};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
    fstatvfs, ftruncate, readlinkat, utimensat,
};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sync::lock;

/// Requests that the guest may have under way without anyone waiting, and when it is to slow down.
const BACKGROUND: u16 = 64;
const CONGESTED: u16 = 48;

/// What the server can do.
const ABILITIES: u32 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::NO_OPENDIR_SUPPORT
    | init::HANDLE_KILLPRIV_V2;

impl Share {
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// INIT: which protocol, and what both sides can do.
    pub(super) fn init(&self, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        let (major, minor) = (arguments.u32()?, arguments.u32()?);
        let mut answer = Answer::default();
        if major > wire::MAJOR {
            answer.u32(wire::MAJOR).u32(wire::MINOR);
            answer.0.resize(64, 0);
            return Ok(answer); // the guest asks again
        }
        if major < wire::MAJOR || minor < wire::MINOR_LEAST {
            return Err(Errno::PROTO);
        }
        let (readahead, offered) = (arguments.u32()?, arguments.u32()?);
        let cached = match self.options.cache {
            Cache::Always => 0,
            Cache::Auto | Cache::None => init::AUTO_INVAL_DATA,
        };
        self.forget_all();
        let may = offered & init::NO_OPENDIR_SUPPORT != 0;
        self.opens_no_directory.store(may && self.may_open_no_directory(), Ordering::Relaxed);
        self.ready.store(true, Ordering::Release);
        answer.u32(wire::MAJOR).u32(wire::MINOR).u32(readahead);
        answer.u32(offered & (ABILITIES | cached)).u16(BACKGROUND).u16(CONGESTED);
        answer.u32(DATA as u32).u32(1).u16((DATA / 4096) as u16).u16(0);
        answer.0.resize(64, 0);
        Ok(answer)
    }

    /// Whether what a guest keeps of directories that it reads without asking is as good as what it
    /// keeps of attributes. That goes by the directories' times, which must be the host's own.
    pub(crate) fn may_open_no_directory(&self) -> bool {
        match self.options.cache {
            Cache::Always => true,
            Cache::Auto => is_local(&lock(&self.inodes).root()).unwrap_or(false),
            Cache::None => false,
        }
    }

    /// Whether the guest reads directories without opening them.
    pub(super) fn opens_no_directory(&self) -> bool {
        self.opens_no_directory.load(Ordering::Relaxed)
    }

    /// DESTROY, and a reset: the guest has nothing open and knows nothing.
    pub(super) fn forget_all(&self) -> Answer {
        self.ready.store(false, Ordering::Release);
        let mut inodes = lock(&self.inodes);
        self.handles.clear();
        self.streams.clear();
        inodes.clear();
        Answer::default()
    }

    /// The guest's driver is gone.
    pub fn reset(&self) {
        self.forget_all();
    }

    pub(super) fn forget(
        &self,
        header: &Header,
        mut arguments: Arguments<'_>,
    ) -> Result<Reply, Errno> {
        let mut inodes = lock(&self.inodes);
        if header.opcode == opcode::FORGET {
            if let Ok(count) = arguments.u64() {
                inodes.forget(header.node, count);
            }
        } else if let Ok(count) = arguments.padded() {
            for _ in 0..count {
                let (Ok(node), Ok(count)) = (arguments.u64(), arguments.u64()) else { break };
                inodes.forget(NodeId(node), count);
            }
        }
        Ok(Reply::None)
    }

    pub(super) fn lookup(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let name = arguments.name()?;
        let directory = self.descriptor(node)?;
        self.watch(node, &*directory);
        let hears = lock(&self.inodes).hears_of_name(node, &name);
        let found = Attributes::of_child(&*directory, &name);
        if hears && found.as_ref().err() != Some(&Errno::NOENT) {
            lock(&self.inodes).absent.remove(node, &name);
        }
        let mut answer = Answer::default();
        match found {
            Err(Errno::NOENT) => {
                let lasts = self.absence_lasts(hears).ok_or(Errno::NOENT)?;
                answer.u64(0).u64(0).u64(lasts.as_secs());
                answer.0.resize(wire::ENTRY_OUT, 0);
            }
            found => {
                self.entry(&found?, Some(Location { parent: node, name }), &mut answer)?;
            }
        }
        Ok(answer)
    }

    /// How long the guest goes by it that a name is not there. It `hears` when it is.
    fn absence_lasts(&self, hears: bool) -> Option<Duration> {
        match self.options.cache {
            Cache::Always => Some(self.options.cache.lasts()),
            Cache::Auto => hears.then_some(FOLLOWED),
            Cache::None => None,
        }
    }

    pub(super) fn getattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (flags, number) = (arguments.padded()?, arguments.u64()?);
        let attributes = if flags & wire::GETATTR_FH != 0 {
            Attributes::of(self.handles.get(number)?.file()?)?
        } else {
            let file = self.descriptor(node)?;
            self.watch(node, &*file);
            Attributes::of(&*file)?
        };
        Ok(self.attributes(node, &attributes))
    }

    /// `fuse_attr_out`.
    fn attributes(&self, node: NodeId, attributes: &Attributes) -> Answer {
        let mut inodes = lock(&self.inodes);
        if let Some(inode) = inodes.get_mut(node) {
            (inode.content, inode.told) = (attributes.content(), attributes.told());
        }
        let lasts = self.lasts(&inodes, node, attributes).attributes;
        drop(inodes);
        let mut answer = Answer::default();
        answer.u64(lasts.as_secs()).u32(lasts.subsec_nanos()).u32(0);
        self.put_attributes(attributes, &mut answer);
        answer
    }

    pub(super) fn setattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (valid, number, size) = (arguments.padded()?, arguments.u64()?, arguments.u64()?);
        arguments.take(8)?; // lock_owner
        let (atime, mtime, _ctime) = (arguments.u64()?, arguments.u64()?, arguments.u64()?);
        let (atimensec, mtimensec, _) = (arguments.u32()?, arguments.u32()?, arguments.u32()?);
        let mode = arguments.padded()?;
        let (uid, gid) = (arguments.u32()?, arguments.u32()?);
        let file = self.descriptor(node)?;
        let before = Attributes::of(&*file)?;
        let (folder, name) = (self.files.folder(), self.files.name(&*file));
        if valid & (set::UID | set::GID) != 0 {
            let wanted =
                ((valid & set::UID != 0).then_some(uid), (valid & set::GID != 0).then_some(gid));
            let (uid, gid) = self.ownership.change(before.host_ids(), wanted)?;
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                chownat(&*file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        if valid & set::MODE != 0 {
            let mode = Mode::from_raw_mode(permissions(mode, before.kind()));
            chmodat(&folder, &name, mode, AtFlags::empty())?;
        }
        if valid & set::SIZE != 0 {
            if valid & set::FH != 0 {
                ftruncate(self.handles.get(number)?.file()?, size)?;
            } else {
                before.is_regular()?;
                ftruncate(self.files.open(&*file, OFlags::WRONLY)?, size)?;
            }
        }
        if valid & (set::ATIME | set::MTIME) != 0 {
            let time = |which: u32, now: u32, seconds: u64, nanoseconds: u32| Timespec {
                tv_sec: seconds as i64,
                tv_nsec: match valid {
                    _ if valid & now != 0 => UTIME_NOW,
                    _ if valid & which == 0 => UTIME_OMIT,
                    _ => i64::from(nanoseconds).min(999_999_999),
                },
            };
            let times = Timestamps {
                last_access: time(set::ATIME, set::ATIME_NOW, atime, atimensec),
                last_modification: time(set::MTIME, set::MTIME_NOW, mtime, mtimensec),
            };
            utimensat(&folder, &name, &times, AtFlags::empty())?;
        }
        Ok(self.attributes(node, &Attributes::of(&*file)?))
    }

    pub(super) fn readlink(&self, node: NodeId) -> Result<Answer, Errno> {
        let target = readlinkat(&*self.descriptor(node)?, c"", Vec::new())?;
        Ok(Answer(target.into_bytes()))
    }

    pub(super) fn statfs(&self, node: NodeId) -> Result<Answer, Errno> {
        let found = fstatvfs(&*self.descriptor(node)?)?;
        let mut answer = Answer::default();
        answer.u64(found.f_blocks).u64(found.f_bfree).u64(found.f_bavail);
        answer.u64(found.f_files).u64(found.f_ffree);
        answer.u32(found.f_bsize as u32).u32(found.f_namemax as u32).u32(found.f_frsize as u32);
        answer.0.resize(80, 0);
        Ok(answer)
    }
}
