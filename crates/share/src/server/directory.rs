//! READDIR and READDIRPLUS: what is in an open directory.
//!
//! An entry's offset is the host's own cookie, so the server remembers nothing of where the guest
//! is.

use super::Share;
use crate::attributes::Attributes;
use crate::inodes::{Location, NodeId};
use crate::message::{Answer, Arguments};
use crate::wire;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use sync::lock;

/// Bytes that the host is asked for at once.
const BUFFER: usize = 32 << 10;

/// Whether the guest is told of each file in the directory, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    No,
    Yes,
}

/// An entry of the host's.
struct Entry<'a> {
    name: &'a CStr,
    number: u64,
    kind: FileType,
    cookie: u64,
}

impl Share {
    pub(super) fn readdir(
        &self,
        mut arguments: Arguments<'_>,
        room: usize,
        plus: Plus,
    ) -> Result<Answer, Errno> {
        let (number, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
        let room = room.min(size as usize);
        let handle = self.handles.get(number)?;
        let (file, node) = (handle.file()?, handle.inode);
        self.watch(node, file);
        let _alone = lock(&handle.position);
        seek(file, SeekFrom::Start(offset))?;
        let mut answer = Answer::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(file, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let entry = Entry {
                name: entry.file_name(),
                number: entry.ino(),
                kind: entry.file_type(),
                cookie: entry.next_entry_cookie(),
            };
            if !self.put_entry(node, file, &entry, room, plus, &mut answer) {
                break;
            }
        }
        Ok(answer)
    }

    /// Appends an entry. False: there is no room for it.
    fn put_entry(
        &self,
        node: NodeId,
        directory: &OwnedFd,
        entry: &Entry<'_>,
        room: usize,
        plus: Plus,
        answer: &mut Answer,
    ) -> bool {
        let name = entry.name.to_bytes();
        let plain = wire::DIRENT + name.len();
        let more = if plus == Plus::Yes { wire::ENTRY_OUT } else { 0 };
        if answer.0.len() + (plain + more).next_multiple_of(8) > room {
            return false;
        }
        if plus == Plus::Yes {
            let before = answer.0.len();
            let told = !matches!(name, b"." | b"..")
                && self.put_file(node, directory, entry.name, answer).is_ok();
            if !told {
                // The guest asks for it if it needs it.
                answer.0.truncate(before);
                answer.0.resize(before + wire::ENTRY_OUT, 0);
            }
        }
        answer.u64(entry.number).u64(entry.cookie).u32(name.len() as u32);
        answer.u32(entry.kind.as_raw_mode() >> 12).bytes(name).align();
        true
    }

    fn put_file(
        &self,
        node: NodeId,
        directory: &OwnedFd,
        name: &CStr,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let attributes = Attributes::of_child(directory, name)?;
        let location = Location { parent: node, name: name.to_owned() };
        self.entry(&attributes, Some(location), answer).map(drop)
    }
}
