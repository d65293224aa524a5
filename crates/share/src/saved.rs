//! Saved state of a share: what the guest knows, and what it has open, by name.
//!
//! The folder is not part of it. What the guest knew is found again by its name, and must be the
//! same file: else the guest is told ESTALE, and its kernel looks the name up anew. What it had
//! open is opened again; where that fails, reads and writes fail with EIO, and a message says so.

use crate::attributes::{Attributes, Key};
use crate::handles::Handle;
use crate::inodes::{Inode, Location, NodeId, ROOT};
use crate::message::component;
use crate::server::Share;
use crate::server::files::host_flags;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sync::lock;

/// Files that are saved at the most. Directories and what is open come first: the guest's kernel
/// finds the rest again by itself.
const MOST: usize = 50_000;

/// The state of a share, version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareState {
    /// [`ShareState::VERSION`] of the writer.
    pub version: u32,
    /// The guest has said INIT.
    ready: bool,
    /// The folder's device, as the host counted then.
    device: u64,
    inodes: Vec<SavedInode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    absent: Vec<SavedAbsent>,
    handles: Vec<SavedHandle>,
}

/// A file that the guest knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedInode {
    id: NodeId,
    key: Key,
    /// Its type, as in a mode.
    kind: u32,
    lookups: u64,
    parent: NodeId,
    /// Its name, a character for each byte.
    name: String,
}

/// A name of which the guest was told that it is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAbsent {
    parent: NodeId,
    /// A character for each byte.
    name: String,
}

/// What the guest has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedHandle {
    number: u64,
    inode: NodeId,
    flags: u32,
}

impl ShareState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

impl Share {
    /// Its state, while nothing is served.
    pub fn save(&self) -> ShareState {
        let handles: Vec<_> = self.handles.all();
        let inodes = lock(&self.inodes);
        let open: BTreeSet<_> = handles.iter().map(|(_, handle)| handle.inode).collect();
        let mut known: Vec<_> = inodes.all().filter_map(saved).collect();
        // In their order: a directory before what is in it, mostly; and alike for alike states.
        known.sort_by_key(|inode| {
            let directory = inode.kind == FileType::Directory.as_raw_mode();
            (!directory && !open.contains(&inode.id), inode.id)
        });
        known.truncate(MOST);
        let kept: BTreeSet<_> = known.iter().map(|inode| inode.id).chain([ROOT]).collect();
        let absent = inodes.absent.all().filter(|(parent, _)| kept.contains(parent));
        let mut absent: Vec<_> =
            absent.map(|(parent, name)| SavedAbsent { parent, name: written(name) }).collect();
        absent.sort();
        let handle = |(number, handle): (u64, Arc<Handle>)| SavedHandle {
            number,
            inode: handle.inode,
            flags: handle.flags,
        };
        ShareState {
            version: ShareState::VERSION,
            ready: self.ready.load(Ordering::Acquire),
            device: inodes.device(),
            inodes: known,
            absent,
            handles: handles.into_iter().map(handle).collect(),
        }
    }

    /// Goes on from `state`, while nothing is served. What cannot be had again is said.
    pub fn restore(&self, state: &ShareState) {
        self.reset();
        let ShareState { version: _, ready, device, inodes: known, absent, handles } = state;
        {
            let mut inodes = lock(&self.inodes);
            let here = inodes.device();
            let good: Vec<_> = known
                .iter()
                .filter(|saved| {
                    let mut key = saved.key;
                    key.dev = if key.dev == *device { here } else { key.dev };
                    let kind = FileType::from_raw_mode(saved.kind);
                    inodes.put(saved.id, key, kind, saved.lookups)
                })
                .collect();
            for saved in good {
                inodes.settle(saved.id, location(saved));
            }
            for SavedAbsent { parent, name } in absent {
                if let Some(name) = read(name).filter(|_| inodes.get(*parent).is_ok()) {
                    inodes.absent.add(*parent, &name);
                }
            }
        }
        let mut lost = 0;
        for saved in handles {
            let file = self.reopened(saved);
            lost += usize::from(file.is_err());
            let file = file.ok().map(Arc::new);
            let mut inodes = lock(&self.inodes);
            if inodes.take_handle().is_err() {
                continue;
            }
            if let Some(file) = &file {
                inodes.opened(saved.inode, file);
            }
            self.handles.put(saved.number, Handle::new(saved.inode, saved.flags, file));
        }
        if lost > 0 {
            let folder = self.path.display();
            tracing::warn!(
                target: "virtio",
                "{lost} files that the guest had open in {folder} are not there any more: what it \
                 does with them fails"
            );
        }
        // What it has open it asks for by handles; the rest it can do without.
        self.opens_no_directory.store(self.may_open_no_directory(), Ordering::Relaxed);
        self.ready.store(*ready, Ordering::Release);
    }

    /// The file that the guest had open.
    fn reopened(&self, saved: &SavedHandle) -> Result<rustix::fd::OwnedFd, Errno> {
        let file = lock(&self.inodes).descriptor(saved.inode)?;
        let flags = match Attributes::of(&*file)?.kind() {
            FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
            FileType::RegularFile => host_flags(saved.flags) - OFlags::TRUNC,
            _ => return Err(Errno::ACCESS),
        };
        if self.options().read_only && flags & OFlags::ACCMODE != OFlags::RDONLY {
            return Err(Errno::ROFS);
        }
        self.files.open(&*file, flags)
    }
}

/// The file, if it has a place.
fn saved((id, inode): (NodeId, &Inode)) -> Option<SavedInode> {
    let Location { parent, name } = inode.location.as_ref()?;
    Some(SavedInode {
        id,
        key: inode.key,
        kind: inode.kind.as_raw_mode(),
        lookups: inode.lookups,
        parent: *parent,
        name: written(name),
    })
}

/// A name as it is saved.
fn written(name: &CStr) -> String {
    name.to_bytes().iter().copied().map(char::from).collect()
}

/// A saved name, if it is one.
fn read(name: &str) -> Option<CString> {
    let bytes: Result<Vec<_>, _> = name.chars().map(u8::try_from).collect();
    CString::new(bytes.ok()?).ok().and_then(|name| component(name).ok())
}

/// Where it is; nowhere if the name is none.
fn location(saved: &SavedInode) -> Option<Location> {
    let name = read(&saved.name)?;
    Some(Location { parent: saved.parent, name })
}
