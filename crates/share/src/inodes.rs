//! The files that the guest knows: by its number for each, by what the host tells them apart by,
//! and by where they were last seen.
//!
//! A file that is looked at often is kept open by `O_PATH`; of the others no more is kept than the
//! name and the directory, and they are found again by these. What is found there must be the same
//! file. So a million files need no more descriptors than the budget has. A directory is closed
//! only when no file can be: what the guest stands in stays good when the host moves it. Last goes
//! what has lost its name, which nothing finds again.
//!
//! One lock around all of it, held while a file is found again and never for its data.

use crate::absent::Absent;
use crate::attributes::{Attributes, Content, Key, Told};
use crate::confined::find_child;
use crate::descriptors::Budget;
use crate::watches::Watches;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Files that a guest may know at once: what bounds the memory that it takes.
const INODES: usize = 1 << 21;
/// Directories above a file at the most.
const DEPTH: usize = 4096;

/// The guest's number for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NodeId(pub(crate) u64);

/// The folder that is shared.
pub(crate) const ROOT: NodeId = NodeId(1);

/// Where a file was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) parent: NodeId,
    pub(crate) name: CString,
}

/// A file.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) key: Key,
    pub(crate) kind: FileType,
    /// How often the guest has been told of it, less how often it has forgotten it.
    pub(crate) lookups: u64,
    /// Files that were last seen in this directory.
    children: u64,
    pub(crate) location: Option<Location>,
    /// Kept open by `O_PATH`.
    kept: Option<Arc<OwnedFd>>,
    /// It was used since its turn to be closed came.
    used: bool,
    /// Where the guest has it open.
    open: Vec<Weak<OwnedFd>>,
    /// As the guest was last told.
    pub(crate) content: Content,
    /// What it goes by.
    pub(crate) told: Told,
    /// By what the directory is watched, and since when.
    pub(crate) watch: Option<(i32, Instant)>,
}

/// What is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    File,
    Directory,
    Lost,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Inodes {
    inodes: HashMap<NodeId, Inode>,
    by_key: HashMap<Key, NodeId>,
    /// Whose turn it is to be closed, for each [`Rank`].
    turns: [VecDeque<NodeId>; 3],
    /// Files that are kept open.
    kept: usize,
    /// Descriptors of what the guest has open.
    handles: usize,
    next: u64,
    root: Arc<OwnedFd>,
    budget: Budget,
    pub(crate) absent: Absent,
    /// While somebody tells the guest of changes.
    pub(crate) watches: Option<Watches>,
}

impl Inode {
    fn new(key: Key, kind: FileType) -> Self {
        Self {
            key,
            kind,
            lookups: 0,
            children: 0,
            location: None,
            kept: None,
            used: false,
            open: Vec::new(),
            content: Content::default(),
            told: Told::Nothing,
            watch: None,
        }
    }

    fn rank(&self) -> Rank {
        match self.kind {
            _ if self.location.is_none() => Rank::Lost,
            FileType::Directory => Rank::Directory,
            _ => Rank::File,
        }
    }

    /// A descriptor of it that there is anyway.
    fn descriptor(&mut self) -> Option<Arc<OwnedFd>> {
        self.used = true;
        self.kept.clone().or_else(|| {
            self.open.retain(|open| open.strong_count() > 0);
            self.open.iter().find_map(Weak::upgrade)
        })
    }
}

impl Inodes {
    /// Of the folder `root`.
    pub(crate) fn new(root: OwnedFd) -> Result<Self, Errno> {
        let mut inode = Inode::new(Attributes::of(&root)?.key(), FileType::Directory);
        let root = Arc::new(root);
        inode.kept = Some(Arc::clone(&root));
        Ok(Self {
            by_key: HashMap::from([(inode.key, ROOT)]),
            inodes: HashMap::from([(ROOT, inode)]),
            turns: Default::default(),
            kept: 0,
            handles: 0,
            next: ROOT.0 + 1,
            root,
            budget: Budget::new(),
            absent: Absent::default(),
            watches: None,
        })
    }

    /// Forgets all but the root.
    pub(crate) fn clear(&mut self) {
        let Some(mut root) = self.inodes.remove(&ROOT) else { return };
        (root.children, root.open) = (0, Vec::new());
        (root.told, root.watch) = (Told::Nothing, None);
        self.watches.iter_mut().for_each(Watches::clear);
        self.absent = Absent::default();
        self.by_key = HashMap::from([(root.key, ROOT)]);
        self.inodes = HashMap::from([(ROOT, root)]);
        self.turns = Default::default();
        (self.kept, self.handles) = (0, 0);
    }

    pub(crate) fn get(&self, id: NodeId) -> Result<&Inode, Errno> {
        self.inodes.get(&id).ok_or(Errno::STALE)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Inode> {
        self.inodes.get_mut(&id)
    }

    /// How many the guest knows, how many of them are kept open, and how many are watched.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let watched = self.watches.as_ref().map_or(0, Watches::count);
        [self.inodes.len(), self.kept, watched]
    }

    /// The file that has these attributes, if the guest knows it.
    pub(crate) fn find(&self, attributes: &Attributes) -> Option<NodeId> {
        self.by_key.get(&attributes.key()).copied()
    }

    /// The guest is told of a file with these attributes, seen at `location`.
    pub(crate) fn tell(
        &mut self,
        attributes: &Attributes,
        location: Option<Location>,
    ) -> Result<NodeId, Errno> {
        let key = attributes.key();
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => self.add(Inode::new(key, attributes.kind()))?,
        };
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.lookups = inode.lookups.saturating_add(1);
            inode.content = attributes.content();
            inode.told = attributes.told();
        }
        if location.is_some() {
            self.settle(id, location);
        }
        Ok(id)
    }

    fn add(&mut self, inode: Inode) -> Result<NodeId, Errno> {
        if self.inodes.len() >= INODES {
            return Err(Errno::NFILE);
        }
        let id = NodeId(self.next);
        self.next += 1;
        self.by_key.insert(inode.key, id);
        self.inodes.insert(id, inode);
        Ok(id)
    }

    /// The file is now at `location`, or nowhere.
    pub(crate) fn settle(&mut self, id: NodeId, location: Option<Location>) {
        let Some(inode) = self.inodes.get_mut(&id).filter(|_| id != ROOT) else { return };
        if inode.location == location {
            return;
        }
        let (to, rank) = (location.as_ref().map(|place| place.parent), inode.rank());
        let from = std::mem::replace(&mut inode.location, location).map(|place| place.parent);
        if inode.kept.is_some() && inode.rank() != rank {
            self.turns[inode.rank() as usize].push_back(id);
        }
        if let Some(parent) = to.and_then(|id| self.inodes.get_mut(&id)) {
            parent.children += 1;
        }
        if let Some(parent) = from {
            self.leave(parent);
        }
    }

    /// One file less is in the directory `id`.
    fn leave(&mut self, id: NodeId) {
        if let Some(parent) = self.inodes.get_mut(&id) {
            parent.children = parent.children.saturating_sub(1);
            self.drop_unused(id);
        }
    }

    /// The guest forgets the file `count` times.
    pub(crate) fn forget(&mut self, id: NodeId, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.lookups = inode.lookups.saturating_sub(count);
            self.drop_unused(id);
        }
    }

    /// Drops the file if neither the guest nor another file needs it; and then the directories
    /// above that this frees.
    fn drop_unused(&mut self, id: NodeId) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let unused = |inode: &Inode| inode.lookups == 0 && inode.children == 0 && id != ROOT;
            if !self.inodes.get(&id).is_some_and(unused) {
                return;
            }
            let Some(inode) = self.inodes.remove(&id) else { return };
            if self.by_key.get(&inode.key) == Some(&id) {
                self.by_key.remove(&inode.key);
            }
            self.kept -= usize::from(inode.kept.is_some());
            self.absent.forget(id);
            if let (Some((watch, _)), Some(watches)) = (inode.watch, &mut self.watches) {
                watches.remove(watch);
            }
            let parent = inode.location.map(|place| place.parent);
            if let Some(above) = parent.and_then(|id| self.inodes.get_mut(&id)) {
                above.children = above.children.saturating_sub(1);
                next = parent;
            }
        }
    }

    /// The guest has the file open by `descriptor`.
    pub(crate) fn opened(&mut self, id: NodeId, descriptor: &Arc<OwnedFd>) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.open.retain(|open| open.strong_count() > 0);
            inode.open.push(Arc::downgrade(descriptor));
        }
    }

    /// A descriptor of the file, for `*at` calls and for `/proc/self/fd`: never for its data.
    ///
    /// # Errors
    /// ESTALE: it is not where it was last seen.
    pub(crate) fn descriptor(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        // Up to what is open, and down again.
        let (mut path, mut at) = (Vec::new(), id);
        let mut directory = loop {
            let inode = self.inodes.get_mut(&at).ok_or(Errno::STALE)?;
            if let Some(found) = inode.descriptor() {
                break found;
            }
            let Location { parent, .. } = inode.location.as_ref().ok_or(Errno::STALE)?;
            path.push(at);
            at = *parent;
            if path.len() > DEPTH {
                return Err(Errno::STALE);
            }
        };
        for id in path.into_iter().rev() {
            let inode = self.inodes.get(&id).ok_or(Errno::STALE)?;
            let Location { name, .. } = inode.location.as_ref().ok_or(Errno::STALE)?;
            directory = Arc::new(found_again(&directory, name, &inode.key)?);
            self.keep(id, &directory);
        }
        Ok(directory)
    }

    /// Keeps the file open by `descriptor`, as long as there are enough.
    pub(crate) fn keep(&mut self, id: NodeId, descriptor: &Arc<OwnedFd>) {
        let Some(inode) = self.inodes.get_mut(&id).filter(|inode| inode.kept.is_none()) else {
            return;
        };
        (inode.kept, inode.used) = (Some(Arc::clone(descriptor)), true);
        let turns = &mut self.turns[inode.rank() as usize];
        turns.push_back(id);
        if turns.len() > 2 * self.kept + 1024 {
            // Those that were forgotten.
            let inodes = &self.inodes;
            turns.retain(|id| inodes.get(id).is_some_and(|inode| inode.kept.is_some()));
        }
        self.kept += 1;
        self.make_room();
    }

    /// The guest is about to have something open.
    ///
    /// # Errors
    /// ENFILE: it has as much open as the budget allows.
    pub(crate) fn take_handle(&mut self) -> Result<(), Errno> {
        if self.handles + 1 >= self.budget.most() {
            return Err(Errno::NFILE);
        }
        self.handles += 1;
        self.make_room();
        Ok(())
    }

    /// It has not, or no longer.
    pub(crate) fn give_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    /// Closes files that are kept open until no more than the budget are open.
    fn make_room(&mut self) {
        let most = self.budget.most();
        while self.kept + self.handles > most && self.close_one() {}
    }

    /// Closes the file whose turn it is. False: none is kept open.
    fn close_one(&mut self) -> bool {
        for rank in [Rank::File, Rank::Directory, Rank::Lost] {
            while let Some(id) = self.turns[rank as usize].pop_front() {
                let Some(inode) = self.inodes.get_mut(&id) else { continue };
                if inode.kept.is_none() || inode.rank() != rank {
                    continue;
                }
                if std::mem::take(&mut inode.used) {
                    self.turns[rank as usize].push_back(id);
                    continue;
                }
                inode.kept = None;
                self.kept -= 1;
                return true;
            }
        }
        false
    }

    /// All that the guest knows, the folder aside.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &Inode)> {
        self.inodes.iter().filter(|(id, _)| **id != ROOT).map(|(id, inode)| (*id, inode))
    }

    /// Where a file is below the folder, as it was last seen.
    pub(crate) fn path(&self, id: NodeId) -> Option<Vec<u8>> {
        let (mut names, mut at) = (Vec::new(), id);
        while at != ROOT {
            let Location { parent, name } = self.inodes.get(&at)?.location.as_ref()?;
            names.push(name.as_bytes());
            at = *parent;
            if names.len() > DEPTH {
                return None;
            }
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// What it may have of the host.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The folder's device.
    pub(crate) fn device(&self) -> u64 {
        self.inodes.get(&ROOT).map_or(0, |root| root.key.dev)
    }

    /// Puts a file back that the guest knew in a saved machine. [`Inodes::settle`] says where.
    pub(crate) fn put(&mut self, id: NodeId, key: Key, kind: FileType, lookups: u64) -> bool {
        let new = !self.inodes.contains_key(&id) && !self.by_key.contains_key(&key);
        if new && self.inodes.len() < INODES && id > ROOT && id.0 < u64::MAX {
            let told = Told::Unsure; // whatever the guest was told then
            self.inodes.insert(id, Inode { lookups, told, ..Inode::new(key, kind) });
            self.by_key.insert(key, id);
            self.next = self.next.max(id.0 + 1);
            return true;
        }
        false
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.root)
    }
}

/// Opens what `name` is in `directory` by `O_PATH` if it is the file `key`.
fn found_again(directory: &OwnedFd, name: &CStr, key: &Key) -> Result<OwnedFd, Errno> {
    let found = find_child(directory, name).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => Errno::STALE,
        other => other,
    })?;
    if Attributes::of(&found)?.key() == *key { Ok(found) } else { Err(Errno::STALE) }
}
