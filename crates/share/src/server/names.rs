//! Names that go, and names that change.

use super::Share;
use crate::attributes::Attributes;
use crate::confined::find_child;
use crate::inodes::{Location, NodeId};
use crate::message::{Answer, Arguments};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use sync::lock;

/// A file that the guest knows, held open.
type Known = Option<(NodeId, Arc<OwnedFd>)>;

impl Share {
    pub(super) fn unlink(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
        flags: AtFlags,
    ) -> Result<Answer, Errno> {
        let name = arguments.name()?;
        let directory = self.descriptor(node)?;
        let known = self.known(&directory, &name);
        self.removing(node, &name, || unlinkat(&*directory, &name, flags))?;
        if let Some((id, file)) = known {
            self.lose(id, &file, &Location { parent: node, name });
        }
        Ok(Answer::default())
    }

    /// Removes `name` from the directory `node` by `work`. The host will tell of that, too.
    fn removing(
        &self,
        node: NodeId,
        name: &CStr,
        work: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        lock(&self.inodes).removes(node, name);
        work().inspect_err(|_| lock(&self.inodes).keeps(node, name))
    }

    /// The file that `name` is, if the guest knows it: it is held open, because it may be about to
    /// lose its name.
    fn known(&self, directory: &OwnedFd, name: &CStr) -> Known {
        let attributes = Attributes::of_child(directory, name).ok()?;
        let id = lock(&self.inodes).find(&attributes)?;
        // What it is by now, if the host is at work here, too.
        let file = find_child(directory, name).ok()?;
        let same = Attributes::of(&file).ok()?.key() == attributes.key();
        same.then(|| (id, Arc::new(file)))
    }

    /// The file `id` is no longer at `location`. The guest may still use it, by what it has open or
    /// by its number: so it is kept open.
    fn lose(&self, id: NodeId, file: &Arc<OwnedFd>, location: &Location) {
        let mut inodes = lock(&self.inodes);
        if inodes.get(id).is_ok_and(|inode| inode.location.as_ref() == Some(location)) {
            inodes.settle(id, None);
            inodes.keep(id, file);
        }
    }

    pub(super) fn rename(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let to = NodeId(arguments.u64()?);
        self.rename_with(node, to, arguments, RenameFlags::empty())
    }

    pub(super) fn rename2(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (to, flags) = (NodeId(arguments.u64()?), arguments.padded()?);
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
        let flags = RenameFlags::from_bits(flags).filter(|flags| known.contains(*flags));
        self.rename_with(node, to, arguments, flags.ok_or(Errno::INVAL)?)
    }

    fn rename_with(
        &self,
        from: NodeId,
        to: NodeId,
        mut arguments: Arguments<'_>,
        flags: RenameFlags,
    ) -> Result<Answer, Errno> {
        let (old, new): (CString, CString) = (arguments.name()?, arguments.name()?);
        let (source, target) = (self.descriptor(from)?, self.descriptor(to)?);
        let (moved, replaced) = (self.known(&source, &old), self.known(&target, &new));
        let rename = || self.changing(to, || renameat_with(&*source, &old, &*target, &new, flags));
        if flags.contains(RenameFlags::EXCHANGE) {
            self.removing(from, &old, || self.removing(to, &new, rename))?;
        } else {
            self.removing(from, &old, rename)?;
        }
        let (old, new) = (Location { parent: from, name: old }, Location { parent: to, name: new });
        let one = match (&moved, &replaced) {
            // Two names of one file: nothing has happened.
            (Some((moved, _)), Some((replaced, _))) if moved == replaced => {
                lock(&self.inodes).keeps(from, &old.name);
                return Ok(Answer::default());
            }
            (moved, _) => moved,
        };
        match &replaced {
            Some((id, _)) if flags.contains(RenameFlags::EXCHANGE) => {
                lock(&self.inodes).settle(*id, Some(old));
            }
            Some((id, file)) => self.lose(*id, file, &new),
            None => {}
        }
        if let Some((id, _)) = one {
            lock(&self.inodes).settle(*id, Some(new));
        }
        Ok(Answer::default())
    }
}
