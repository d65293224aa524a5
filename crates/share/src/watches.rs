//! Directories of the host's that are watched (inotify), while somebody tells the guest what
//! changes in them: [`crate::follower`].
//!
//! A directory is watched from before the guest is told of something in it. So every later change
//! is an event. There are none from file systems that others change, over a network or in a
//! program of their own: these are not watched.

use crate::attributes::Attributes;
use crate::descriptors::Budget;
use crate::inodes::{Inode, Inodes, NodeId};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FileType, fstatfs};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a watched directory's path at the most: those of a path in it have an end, too.
const PATH: usize = 3072;
/// Names that the guest has removed, and of which the host has not told yet.
const OWN: usize = 1 << 14;

/// Kinds of file systems that only this host's kernel changes (statfs(2)): ext4, XFS, btrfs, tmpfs,
/// ramfs, overlayfs, F2FS, ZFS, bcachefs.
const LOCAL: [u64; 9] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0x8584_58F6,
    0x794C_7630,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0xCA45_1A4E,
];

/// Whether only this host's kernel changes what is in the file system of `folder`.
pub(crate) fn is_local(folder: &OwnedFd) -> Result<bool, Errno> {
    Ok(LOCAL.contains(&(fstatfs(folder)?.f_type as u64)))
}

/// What is heard of.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// See the module.
#[derive(Debug)]
pub(crate) struct Watches {
    inotify: Arc<OwnedFd>,
    directories: HashMap<i32, NodeId>,
    /// Names that the guest itself has removed from a directory, and how often: the events are
    /// still to come.
    own: HashMap<(NodeId, CString), u32>,
    /// The folder's: others are not watched.
    device: u64,
    most: usize,
}

impl Watches {
    /// Of the folder `root` on `device`.
    ///
    /// # Errors
    /// The host has none, or does not hear of every change.
    pub(crate) fn new(root: &OwnedFd, device: u64, budget: &Budget) -> Result<Self, Errno> {
        if !is_local(root)? {
            return Err(Errno::OPNOTSUPP);
        }
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let (directories, own) = (HashMap::new(), HashMap::new());
        Ok(Self { inotify: inotify.into(), directories, own, device, most: budget.watches() })
    }

    /// Where its events come from.
    pub(crate) fn events(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.inotify)
    }

    pub(crate) fn count(&self) -> usize {
        self.directories.len()
    }

    /// Which directory that is.
    pub(crate) fn directory(&self, watch: i32) -> Option<NodeId> {
        self.directories.get(&watch).copied()
    }

    fn add(&mut self, id: NodeId, path: &CStr) -> Option<i32> {
        if self.directories.len() >= self.most {
            return None;
        }
        let watch = inotify::add_watch(self.inotify(), path, CHANGES).ok()?;
        self.directories.insert(watch, id);
        Some(watch)
    }

    fn inotify(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// The guest has forgotten the directory.
    pub(crate) fn remove(&mut self, watch: i32) {
        if self.directories.remove(&watch).is_some() {
            let _ = inotify::remove_watch(self.inotify(), watch); // it may be gone
        }
    }

    /// The guest has forgotten all.
    pub(crate) fn clear(&mut self) {
        let all: Vec<_> = self.directories.keys().copied().collect();
        all.into_iter().for_each(|watch| self.remove(watch));
        self.own.clear();
    }

    /// What the guest has removed is not known any more.
    pub(crate) fn forget_own(&mut self) {
        self.own.clear();
    }

    /// Whether the guest itself has removed `name` that often.
    pub(crate) fn takes_own(&mut self, id: NodeId, name: &CStr, times: u32) -> bool {
        let key = (id, name.to_owned());
        let own = self.own.remove(&key).unwrap_or_default();
        if own > times {
            self.own.insert(key, own - times);
        }
        own >= times
    }
}

impl Inodes {
    /// Watches the directory `id`, which is at the path that `open` gives, if anybody wants that.
    pub(crate) fn watch(&mut self, id: NodeId, open: impl FnOnce() -> CString) {
        let Some(on) = self.watches.as_ref().map(|watches| watches.device) else { return };
        let wanted =
            |it: &Inode| it.watch.is_none() && it.key.dev == on && it.kind == FileType::Directory;
        if !self.get(id).is_ok_and(wanted) {
            return;
        }
        if self.path(id).is_none_or(|path| path.len() > PATH) {
            return;
        }
        let watch = self.watches.as_mut().and_then(|watches| watches.add(id, &open()));
        if let Some(inode) = self.get_mut(id) {
            inode.watch = watch.map(|watch| (watch, Instant::now()));
        }
    }

    pub(crate) fn is_watched(&self, id: NodeId) -> bool {
        self.get(id).is_ok_and(|inode| inode.watch.is_some())
    }

    /// Whether every change in the directory `id` is heard of, since before it, or what is in it,
    /// was looked at with this result.
    pub(crate) fn hears_of(&self, id: NodeId, attributes: &Attributes) -> bool {
        let since = self.get(id).ok().and_then(|inode| inode.watch);
        since.is_some_and(|(_, since)| attributes.is_after(since))
    }

    /// The guest may be about to be told that `name` is not in the directory `id`, before that is
    /// looked at. Whether it hears of it when it is there.
    pub(crate) fn hears_of_name(&mut self, id: NodeId, name: &CStr) -> bool {
        self.is_watched(id) && self.absent.add(id, name)
    }

    /// The host does not watch it any more.
    pub(crate) fn unwatched(&mut self, watch: i32) {
        let directory = self.watches.as_mut().and_then(|it| it.directories.remove(&watch));
        if let Some(inode) = directory.and_then(|id| self.get_mut(id)) {
            inode.watch = None;
        }
    }

    /// Nobody tells the guest any more.
    pub(crate) fn unfollow(&mut self) {
        if let Some(watches) = self.watches.take() {
            for id in watches.directories.into_values() {
                if let Some(inode) = self.get_mut(id) {
                    inode.watch = None;
                }
            }
        }
    }

    /// The guest is about to remove `name` from the directory `id`.
    pub(crate) fn removes(&mut self, id: NodeId, name: &CStr) {
        let watched = self.is_watched(id);
        if let Some(watches) = self.watches.as_mut().filter(|it| watched && it.own.len() < OWN) {
            *watches.own.entry((id, name.to_owned())).or_default() += 1;
        }
    }

    /// It has not.
    pub(crate) fn keeps(&mut self, id: NodeId, name: &CStr) {
        if let Some(watches) = &mut self.watches {
            watches.takes_own(id, name, 1);
        }
    }
}
