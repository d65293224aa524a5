//! Names of which the guest was told that they are not there, and by which it goes until it hears
//! otherwise ([`crate::follower`]).

use crate::inodes::NodeId;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};

/// Names at the most: what bounds the memory that a guest takes.
const MOST: usize = 1 << 17;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    directories: HashMap<NodeId, HashSet<CString>>,
    count: usize,
}

impl Absent {
    /// The guest goes by `name` not being in `directory`. False: there is no room for more.
    pub(crate) fn add(&mut self, directory: NodeId, name: &CStr) -> bool {
        if self.has(directory, name) {
            return true;
        }
        if self.count >= MOST {
            return false;
        }
        self.directories.entry(directory).or_default().insert(name.to_owned());
        self.count += 1;
        true
    }

    pub(crate) fn has(&self, directory: NodeId, name: &CStr) -> bool {
        self.directories.get(&directory).is_some_and(|names| names.contains(name))
    }

    /// It does not any more.
    pub(crate) fn remove(&mut self, directory: NodeId, name: &CStr) {
        let Some(names) = self.directories.get_mut(&directory) else { return };
        self.count -= usize::from(names.remove(name));
        if names.is_empty() {
            self.directories.remove(&directory);
        }
    }

    /// The guest has forgotten the directory.
    pub(crate) fn forget(&mut self, directory: NodeId) {
        self.count -= self.directories.remove(&directory).map_or(0, |names| names.len());
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, &CStr)> {
        let of = |(id, names): (&NodeId, _)| (*id, names);
        let names = self.directories.iter().map(of);
        names.flat_map(|(id, names): (_, &HashSet<CString>)| {
            names.iter().map(move |name| (id, name.as_c_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_guest_fills_the_hosts_memory() {
        let mut absent = Absent::default();
        let name = |n: usize| CString::new(n.to_string()).expect("text");
        let added = |absent: &mut Absent, n| absent.add(NodeId(n as u64 % 9), &name(n));
        assert!((0..MOST).all(|n| added(&mut absent, n)) && !added(&mut absent, MOST));
        assert!(added(&mut absent, 5), "it is there");
        absent.remove(NodeId(5), &name(5));
        assert!(!absent.has(NodeId(5), &name(5)) && added(&mut absent, MOST));
        absent.forget(NodeId(3));
        assert_eq!(absent.all().count(), absent.count);
        (0..9).for_each(|id| absent.forget(NodeId(id)));
        assert_eq!((absent.count, absent.all().count()), (0, 0));
    }
}
