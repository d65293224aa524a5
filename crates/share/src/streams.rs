//! Directories that a guest reads without having opened them.
//!
//! Where it goes on is a number of the host's, which on some file systems (overlayfs, tmpfs before
//! Linux 6.6) is good only for the descriptor that it came from, once a name is removed. So the
//! descriptor is kept from a directory's begin to its end.

use crate::handles::Handle;
use crate::inodes::NodeId;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use sync::lock;

/// Kept at the most; the one that was begun first goes first.
const MOST: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<VecDeque<Arc<Handle>>>);

impl Streams {
    /// That of `directory`, if it is being read.
    pub(crate) fn get(&self, directory: NodeId) -> Option<Arc<Handle>> {
        lock(&self.0).iter().find(|stream| stream.inode == directory).cloned()
    }

    /// `stream` is read from its begin on.
    pub(crate) fn begin(&self, stream: Arc<Handle>) {
        let mut streams = lock(&self.0);
        streams.retain(|other| other.inode != stream.inode);
        streams.push_back(stream);
        if streams.len() > MOST {
            streams.pop_front();
        }
    }

    /// `directory` is read to its end.
    pub(crate) fn end(&self, directory: NodeId) {
        lock(&self.0).retain(|stream| stream.inode != directory);
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}
