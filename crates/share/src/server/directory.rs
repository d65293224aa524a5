//! READDIR and READDIRPLUS: what is in an open directory.
//!
//! An entry's offset is the host's own cookie, so the server remembers nothing of where the guest
//! is, but for a descriptor ([`crate::streams`]) where the guest opens no directories: OPENDIR and
//! RELEASEDIR are two requests for each directory, however well the guest knows what is in it.
//!
//! Such a guest keeps what it has read as long as the directory's time of change is the same. So a
//! directory is read only when its next change has another time.

use super::Share;
use crate::attributes::Attributes;
use crate::handles::Handle;
use crate::inodes::{Location, NodeId};
use crate::message::{Answer, Arguments};
use crate::wire;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom, Timespec, seek};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use sync::lock;

/// The handle of a directory that the guest has not opened.
pub(super) const NOT_OPEN: u64 = 0;
/// A tick of the clock that file systems have their times from is no longer than this.
const TICK: Duration = Duration::from_millis(11);
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

/// Waits until the next change of `directory` has another time than the last: the clock that gives
/// it has gone on. A time that lies ahead was set by somebody; the next change does not lie there.
fn settle(directory: &OwnedFd) -> Result<(), Errno> {
    let changed = Attributes::of(directory)?.modified();
    let now = || {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::RealtimeCoarse);
        (tv_sec, tv_nsec as u32)
    };
    let began = Instant::now();
    let ahead = changed.0 > now().0 + 1;
    while !ahead && now() <= changed && began.elapsed() < TICK {
        sleep(Duration::from_micros(500));
    }
    Ok(())
}

impl Share {
    pub(super) fn readdir(
        &self,
        directory: NodeId,
        mut arguments: Arguments<'_>,
        room: usize,
        plus: Plus,
    ) -> Result<Answer, Errno> {
        let (number, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
        let room = room.min(size as usize);
        let handle = match number {
            NOT_OPEN => self.stream(directory, offset)?,
            _ => self.handles.get(number)?,
        };
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
        if number == NOT_OPEN && answer.0.is_empty() {
            self.streams.end(node);
        }
        Ok(answer)
    }

    /// The directory `node` for a guest that has not opened it, to be read from `offset` on.
    fn stream(&self, node: NodeId, offset: u64) -> Result<Arc<Handle>, Errno> {
        if offset > 0
            && let Some(stream) = self.streams.get(node)
        {
            return Ok(stream);
        }
        let stream = self.directory(node)?;
        if offset == 0 {
            settle(stream.file()?)?;
        }
        self.streams.begin(Arc::clone(&stream));
        Ok(stream)
    }

    /// The directory `node`, open, as if the guest had opened it.
    pub(super) fn directory(&self, node: NodeId) -> Result<Arc<Handle>, Errno> {
        let opened = self.open_directory(node)?;
        Ok(Arc::new(Handle::new(node, 0, Some(Arc::new(opened)))))
    }

    /// Opens the directory `node`.
    pub(super) fn open_directory(&self, node: NodeId) -> Result<OwnedFd, Errno> {
        let file = self.descriptor(node)?;
        self.files.open(&*file, OFlags::RDONLY | OFlags::DIRECTORY)
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
