//! What the host changes in a folder, for somebody who tells the guest.
//!
//! FUSE over virtio has no way to tell a guest that what it was told is so no longer: Linux has no
//! driver for the notification queue (virtio 1.2, 5.11). So a program of the guest's looks anew at
//! the names that this gives. As long as there is a [`Follower`], the guest may go for long by what
//! it has been told; when it is dropped, what it is told from then on lasts as usual.
//!
//! An event is told only if the guest goes by something else than what is there now: most events
//! are of what the guest itself does.

use crate::attributes::{Attributes, Told};
use crate::inodes::{Inodes, NodeId, ROOT};
use crate::server::Share;
use crate::watches::Watches;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{ReadFlags, Reader};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::Arc;
use sync::lock;

/// Bytes of events that are read at once.
const EVENTS: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Follower {
    share: Arc<Share>,
    events: Arc<OwnedFd>,
    /// What has happened is not known: all is compared.
    unsure: bool,
}

/// What has happened to a name.
#[derive(Clone, Copy, Default)]
struct Happened {
    /// It was removed that often.
    removed: u32,
    /// Something came in place of what was there.
    replaced: bool,
    /// Something else than its content has changed: permissions, say.
    attributes: bool,
}

/// All that has happened, by directory and name; the name is empty where it is the directory.
type Events = BTreeMap<(NodeId, CString), Happened>;

impl Follower {
    /// Follows what the host does to `share`, of which there is no other follower.
    ///
    /// # Errors
    /// The host does not tell of changes of these files, or has no more watches.
    pub fn new(share: Arc<Share>) -> Result<Self, Errno> {
        let mut inodes = lock(&share.inodes);
        let watches = Watches::new(&inodes.root(), inodes.device(), inodes.budget())?;
        let events = watches.events();
        inodes.unfollow();
        inodes.watches = Some(watches);
        drop(inodes);
        Ok(Self { share, events, unsure: true })
    }

    /// The names, as paths below the folder, of which the guest goes by something that is so no
    /// longer. The empty one is the folder itself. Does not wait.
    pub fn changes(&mut self) -> BTreeSet<Vec<u8>> {
        let events = self.read();
        let mut inodes = lock(&self.share.inodes);
        if std::mem::take(&mut self.unsure) {
            inodes.watches.iter_mut().for_each(Watches::forget_own);
            return all(&mut inodes);
        }
        let mut paths = BTreeSet::new();
        for ((directory, name), happened) in &events {
            let itself = if name.is_empty() { *happened } else { Happened::default() };
            if let Some(path) = changed(&mut inodes, *directory, name, *happened) {
                paths.insert(path);
            }
            if let Some(path) = directory_changed(&mut inodes, *directory, itself) {
                paths.insert(path);
            }
        }
        paths
    }

    fn read(&mut self) -> Events {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut reader = Reader::new(&*self.events, &mut buffer);
        let mut events = Events::new();
        // Until there are no more, or it is better to look at everything.
        while let Ok(event) = reader.next() {
            let flags = event.events();
            let mut inodes = lock(&self.share.inodes);
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.unsure = true;
            } else if flags.contains(ReadFlags::IGNORED) {
                inodes.unwatched(event.wd());
            } else if let Some(id) = inodes.watches.as_ref().and_then(|it| it.directory(event.wd()))
            {
                let name = event.file_name().unwrap_or_default().to_owned();
                let happened = events.entry((id, name)).or_default();
                let removed = flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
                happened.removed += u32::from(removed);
                happened.replaced |= flags.contains(ReadFlags::MOVED_TO);
                happened.attributes |= flags.contains(ReadFlags::ATTRIB);
            }
        }
        events
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        lock(&self.share.inodes).unfollow();
    }
}

impl AsFd for Follower {
    /// Readable when there may be [changes](Follower::changes).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The path of `name` in `directory` if the guest goes by something else than what is there.
fn changed(
    inodes: &mut Inodes,
    directory: NodeId,
    name: &CStr,
    happened: Happened,
) -> Option<Vec<u8>> {
    if name.is_empty() {
        return None;
    }
    let watches = inodes.watches.as_mut()?;
    let removed = happened.removed;
    let by_others = removed > 0 && !watches.takes_own(directory, name, removed);
    let differs = by_others || {
        let there = inodes.descriptor(directory).ok()?;
        match Attributes::of_child(&*there, name) {
            Ok(now) => is_told_otherwise(inodes, directory, name, &now, happened),
            Err(_) => false, // its removal is an event of its own
        }
    };
    differs.then(|| inside(inodes, directory, name)).flatten()
}

/// Whether the guest goes by something else than that `name` in `directory` is the file `now`.
fn is_told_otherwise(
    inodes: &mut Inodes,
    directory: NodeId,
    name: &CStr,
    now: &Attributes,
    Happened { replaced, attributes, .. }: Happened,
) -> bool {
    let elsewhere = replaced || inodes.absent.has(directory, name);
    let Some(inode) = inodes.find(now).and_then(|id| inodes.get(id).ok()) else {
        return elsewhere;
    };
    let place = inode.location.as_ref();
    let here = place.is_some_and(|at| at.parent == directory && *at.name == *name);
    let unknown = attributes && inode.told == Told::Nothing;
    let differs = unknown || !inode.told.holds(now) || (elsewhere && !here);
    if here {
        inodes.absent.remove(directory, name); // the guest has made it
    }
    differs
}

/// The path of `directory` if the guest goes by attributes of it that it has no longer.
fn directory_changed(
    inodes: &mut Inodes,
    directory: NodeId,
    Happened { attributes, .. }: Happened,
) -> Option<Vec<u8>> {
    let told = inodes.get(directory).ok()?.told;
    if told == Told::Nothing && !attributes {
        return None;
    }
    let now = inodes.descriptor(directory).and_then(Attributes::of);
    let differs = attributes || now.map_or(true, |now| !told.holds(&now));
    differs.then(|| inodes.path(directory)).flatten()
}

/// The paths of all that the guest knows and goes by what is so no longer, or what nobody will
/// hear of.
fn all(inodes: &mut Inodes) -> BTreeSet<Vec<u8>> {
    let known: Vec<_> = inodes
        .all()
        .filter(|(_, inode)| inode.told != Told::Nothing)
        .filter_map(|(id, inode)| Some((id, inode.location.clone()?)))
        .collect();
    let mut paths: BTreeSet<_> =
        directory_changed(inodes, ROOT, Happened::default()).into_iter().collect();
    for (id, place) in known {
        let there = inodes.descriptor(place.parent);
        let now = there.and_then(|there| Attributes::of_child(&*there, &place.name));
        let same = now.is_ok_and(|now| {
            inodes.get(id).is_ok_and(|it| it.key == now.key() && it.told.holds(&now))
        });
        if !same {
            paths.extend(inodes.path(id));
        }
    }
    let absent: Vec<_> =
        inodes.absent.all().map(|(directory, name)| (directory, name.to_owned())).collect();
    for (directory, name) in absent {
        let there = inodes.descriptor(directory);
        let found = there.and_then(|there| Attributes::of_child(&*there, &name));
        if found.is_ok() || !inodes.is_watched(directory) {
            paths.extend(inside(inodes, directory, &name));
        }
    }
    paths
}

/// The path of `name` in `directory`.
fn inside(inodes: &Inodes, directory: NodeId, name: &CStr) -> Option<Vec<u8>> {
    let mut path = inodes.path(directory)?;
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name.to_bytes());
    Some(path)
}
