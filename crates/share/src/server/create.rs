//! New files, of every kind that there may be.
//!
//! The guest's kernel has applied its umask already, so the host's must not apply: where it did,
//! the permissions are set again.

use super::Share;
use super::files::{host_flags, open_out};
use crate::attributes::{Attributes, permissions};
use crate::confined::{find_child, open_child};
use crate::inodes::{Location, NodeId};
use crate::message::{Answer, Arguments};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmodat, fchmod, linkat, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;
use std::ffi::CString;

const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL);

impl Share {
    /// The permissions of a new file, and whether the host's umask has to be made good for.
    fn permissions(&self, mode: u32, kind: FileType) -> (Mode, bool) {
        let mode = permissions(mode, kind);
        (Mode::from_raw_mode(mode), mode & self.umask != 0)
    }

    /// A new regular file, open.
    fn new_file(
        &self,
        directory: impl AsFd,
        name: &CString,
        flags: OFlags,
        mode: u32,
    ) -> Result<OwnedFd, Errno> {
        let (mode, again) = self.permissions(mode, FileType::RegularFile);
        let file = open_child(directory, name, flags | NEW, mode)?;
        if again {
            fchmod(&file, mode)?;
        }
        Ok(file)
    }

    pub(super) fn create(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (flags, mode) = (arguments.u32()?, arguments.u32()?);
        arguments.take(8)?; // umask, open_flags
        let name = arguments.name()?;
        let directory = self.descriptor(node)?;
        self.watch(node, &*directory);
        let host = host_flags(flags);
        let file = match self.new_file(&*directory, &name, host, mode) {
            // Somebody was faster.
            Err(Errno::EXIST) if !OFlags::from_bits_retain(flags).contains(OFlags::EXCL) => {
                let found = find_child(&*directory, &name)?;
                Attributes::of(&found)?.is_regular().map_err(|_| Errno::EXIST)?;
                self.files.open(found, host)?
            }
            other => other?,
        };
        self.told_open(node, name, flags, file)
    }

    /// Answers with a file that is open: `fuse_entry_out`, `fuse_open_out`.
    fn told_open(
        &self,
        node: NodeId,
        name: CString,
        flags: u32,
        file: OwnedFd,
    ) -> Result<Answer, Errno> {
        let mut answer = Answer::default();
        let location = (!name.is_empty()).then_some(Location { parent: node, name });
        let id = self.entry(&Attributes::of(&file)?, location, &mut answer)?;
        let number = self.hold(id, flags, file).inspect_err(|_| self.untell(id))?;
        answer.bytes(&open_out(number, 0).0);
        Ok(answer)
    }

    /// The guest will not hear of it after all.
    fn untell(&self, id: NodeId) {
        sync::lock(&self.inodes).forget(id, 1);
    }

    /// A file without a name, until a LINK gives it one.
    pub(super) fn tmpfile(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (flags, mode) = (arguments.u32()?, arguments.u32()?);
        let directory = self.descriptor(node)?;
        let (mode, again) = self.permissions(mode, FileType::RegularFile);
        let host = (host_flags(flags) - OFlags::TRUNC) | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = openat(&*directory, c".", host, mode)?;
        if again {
            fchmod(&file, mode)?;
        }
        self.told_open(node, CString::default(), flags, file)
    }

    /// Answers with what `name` is now.
    fn told(&self, node: NodeId, directory: impl AsFd, name: CString) -> Result<Answer, Errno> {
        self.watch(node, &directory);
        let attributes = Attributes::of_child(directory, &name)?;
        let mut answer = Answer::default();
        self.entry(&attributes, Some(Location { parent: node, name }), &mut answer)?;
        Ok(answer)
    }

    pub(super) fn mknod(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let mode = arguments.u32()?;
        arguments.take(12)?; // rdev, umask, padding
        let name = arguments.name()?;
        let directory = self.descriptor(node)?;
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => {
                drop(self.new_file(&*directory, &name, OFlags::WRONLY, mode)?);
            }
            kind @ (FileType::Fifo | FileType::Socket) => {
                let (mode, again) = self.permissions(mode, kind);
                mknodat(&*directory, &name, kind, mode, 0)?;
                self.again(again, &*directory, &name, mode)?;
            }
            _ => return Err(Errno::PERM),
        }
        self.told(node, &*directory, name)
    }

    pub(super) fn mkdir(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let mode = arguments.padded()?;
        let name = arguments.name()?;
        let directory = self.descriptor(node)?;
        let (mode, again) = self.permissions(mode, FileType::Directory);
        mkdirat(&*directory, &name, mode)?;
        self.again(again, &*directory, &name, mode)?;
        self.told(node, &*directory, name)
    }

    /// Sets the permissions of what is new, if they have to be set `again`.
    fn again(
        &self,
        again: bool,
        directory: impl AsFd,
        name: &CString,
        mode: Mode,
    ) -> Result<(), Errno> {
        if again {
            let file = find_child(directory, name)?;
            // A directory keeps the group bit that it has from the one above.
            let kept = Attributes::of(&file)?.set_group();
            let mode = mode | kept;
            chmodat(self.files.folder(), self.files.name(&file), mode, AtFlags::empty())?;
        }
        Ok(())
    }

    pub(super) fn symlink(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (name, target) = (arguments.name()?, arguments.text()?);
        let directory = self.descriptor(node)?;
        symlinkat(&target, &*directory, &name)?;
        self.told(node, &*directory, name)
    }

    pub(super) fn link(&self, node: NodeId, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        let (old, name) = (NodeId(arguments.u64()?), arguments.name()?);
        let (file, directory) = (self.descriptor(old)?, self.descriptor(node)?);
        let own = self.files.name(&*file);
        linkat(self.files.folder(), own, &*directory, &name, AtFlags::SYMLINK_FOLLOW)?;
        self.told(node, &*directory, name)
    }
}
