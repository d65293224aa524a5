//! OPEN and its kin: what the guest has open.

use super::directory::NOT_OPEN;
use super::{Cache, Share};
use crate::attributes::Attributes;
use crate::handles::Handle;
use crate::inodes::{Inode, NodeId};
use crate::message::{Answer, Arguments};
use crate::wire;
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, fdatasync, fsync, syncfs};
use rustix::io::Errno;
use std::sync::Arc;
use sync::lock;

/// Flags of the guest's that the host's file gets, too. `O_APPEND` is each write's
/// ([`crate::exchange::Place::End`]): the guest writes cached pages by any handle.
const FLAGS: OFlags = OFlags::ACCMODE.union(OFlags::TRUNC).union(OFlags::SYNC).union(OFlags::DSYNC);

/// What of the guest's `flags` the host is asked for.
pub(crate) fn host_flags(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags) & FLAGS
}

impl Share {
    pub(super) fn open_file(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let flags = arguments.u32()?;
        let host = host_flags(flags);
        let changes = host & OFlags::ACCMODE != OFlags::RDONLY || host.contains(OFlags::TRUNC);
        if self.options.read_only && changes {
            return Err(Errno::ROFS);
        }
        let file = self.descriptor(node)?;
        let attributes = Attributes::of(&*file)?;
        attributes.is_regular()?;
        let opened = self.files.open(&*file, host)?;
        let content = attributes.content();
        let told = lock(&self.inodes).get(node)?.content;
        let keeps = match self.options.cache {
            Cache::Always => true,
            Cache::Auto => told.holds(&content),
            Cache::None => false,
        };
        let number = self.hold(node, flags, opened)?;
        Ok(open_out(number, if keeps { wire::FOPEN_KEEP_CACHE } else { 0 }))
    }

    /// ENOSYS: no guest's kernel that can do without asks again.
    pub(super) fn opendir(&self, node: NodeId) -> Result<Answer, Errno> {
        if self.opens_no_directory() {
            return Err(Errno::NOSYS);
        }
        let opened = self.open_directory(node)?;
        self.watch(node, &opened);
        let flags = match self.options.cache {
            Cache::Always => wire::FOPEN_KEEP_CACHE | wire::FOPEN_CACHE_DIR,
            Cache::Auto => self.directory_caches(node, &Attributes::of(&opened)?),
            Cache::None => 0,
        };
        let number = self.hold(node, 0, opened)?;
        Ok(open_out(number, flags))
    }

    /// What the guest may keep of the content of the directory `node`, which has these attributes:
    /// what it has, as long as the directory is as it was told.
    fn directory_caches(&self, node: NodeId, attributes: &Attributes) -> u32 {
        let inodes = lock(&self.inodes);
        let holds = |inode: &Inode| inode.content.holds(&attributes.content());
        match inodes.hears_of(node, attributes) {
            false => 0,
            true if inodes.get(node).is_ok_and(holds) => {
                wire::FOPEN_KEEP_CACHE | wire::FOPEN_CACHE_DIR
            }
            true => wire::FOPEN_CACHE_DIR,
        }
    }

    /// The guest has `file`, which is `node`, open from now on. Its number.
    pub(super) fn hold(&self, node: NodeId, flags: u32, file: OwnedFd) -> Result<u64, Errno> {
        let file = Arc::new(file);
        let mut inodes = lock(&self.inodes);
        inodes.take_handle()?;
        inodes.opened(node, &file);
        Ok(self.handles.add(Handle::new(node, flags, Some(file))))
    }

    pub(super) fn release(&self, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        self.handles.remove(arguments.u64()?)?;
        lock(&self.inodes).give_handle();
        Ok(Answer::default())
    }

    pub(super) fn fsync(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (number, flags) = (arguments.u64()?, arguments.u32()?);
        let handle = match number {
            NOT_OPEN => self.directory(node)?,
            _ => self.handles.get(number)?,
        };
        if flags & wire::FSYNC_DATA == 0 {
            fsync(handle.file()?)?;
        } else {
            fdatasync(handle.file()?)?;
        }
        Ok(Answer::default())
    }

    pub(super) fn syncfs(&self) -> Result<Answer, Errno> {
        let root = lock(&self.inodes).root();
        syncfs(self.files.open(&*root, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        Ok(Answer::default())
    }
}

/// `fuse_open_out`.
pub(super) fn open_out(number: u64, flags: u32) -> Answer {
    let mut answer = Answer::default();
    answer.u64(number).u32(flags).u32(0);
    answer
}
