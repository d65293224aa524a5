//! What the guest has open.

use crate::inodes::NodeId;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use sync::lock;

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inode: NodeId,
    /// The flags that it was opened with.
    pub(crate) flags: u32,
    /// `None`: it was open in a saved machine, and is not to be had any more.
    file: Option<Arc<OwnedFd>>,
    /// Held while the file's position matters.
    pub(crate) position: Mutex<()>,
}

impl Handle {
    pub(crate) fn new(inode: NodeId, flags: u32, file: Option<Arc<OwnedFd>>) -> Self {
        Self { inode, flags, file, position: Mutex::default() }
    }

    /// The open file.
    ///
    /// # Errors
    /// EIO: there is none any more.
    pub(crate) fn file(&self) -> Result<&OwnedFd, Errno> {
        self.file.as_deref().ok_or(Errno::IO)
    }
}

/// All that is open, each by the guest's number for it.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    open: BTreeMap<u64, Arc<Handle>>,
    last: u64,
}

impl Handles {
    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        lock(&self.0).open.get(&number).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn add(&self, handle: Handle) -> u64 {
        let mut content = lock(&self.0);
        content.last += 1;
        let number = content.last;
        content.open.insert(number, Arc::new(handle));
        number
    }

    /// Puts one back where it was.
    pub(crate) fn put(&self, number: u64, handle: Handle) {
        let mut content = lock(&self.0);
        content.last = content.last.max(number);
        content.open.insert(number, Arc::new(handle));
    }

    pub(crate) fn remove(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        lock(&self.0).open.remove(&number).ok_or(Errno::BADF)
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).open.clear();
    }

    pub(crate) fn all(&self) -> Vec<(u64, Arc<Handle>)> {
        lock(&self.0).open.iter().map(|(number, handle)| (*number, Arc::clone(handle))).collect()
    }
}
