//! The server: a request in, an answer out.

mod create;
mod data;
mod directory;
pub(crate) mod files;
mod names;
mod session;
mod xattr;

use crate::attributes::{Attributes, Told};
use crate::confined::OpenFiles;
use crate::exchange::Exchange;
use crate::handles::Handles;
use crate::inodes::{Inodes, Location, NodeId};
use crate::message::{Answer, Arguments};
use crate::owner::{Owner, Ownership};
use crate::stats::{Counters, ShareStats};
use crate::streams::Streams;
use crate::wire::{self, opcode};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sync::lock;

/// Bytes of a request at the most, the data of a WRITE aside.
const ARGUMENTS: usize = 128 << 10;
/// How long the guest goes by what it has been told while it hears of changes. What it does not
/// hear of has this end: a file that was changed by another name outside of the folder.
const FOLLOWED: Duration = Duration::from_secs(3600);
/// Bytes of data in a request at the most.
pub(crate) const DATA: usize = 1 << 20;

/// How a folder is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// Who the guest is shown as owner.
    pub owner: Owner,
    /// How long the guest goes by what it has been told.
    pub cache: Cache,
}

/// How long a guest goes by what it has been told of names, attributes and contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// A second; the content of a file as long as size and time are the same when it is opened,
    /// that of a directory as long as its time is.
    #[default]
    Auto,
    /// For ever: nobody else changes the folder.
    Always,
    /// Not at all: what the host changes is seen at once.
    None,
}

impl Cache {
    fn lasts(self) -> Duration {
        match self {
            Self::Auto => Duration::from_secs(1),
            Self::Always => Duration::from_secs(365 * 86400),
            Self::None => Duration::ZERO,
        }
    }
}

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("cannot share {}: {}; name a folder that this user can open",
        path.display(), std::io::Error::from(*source))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// There is no /proc.
    #[error("cannot share {}: cannot open /proc/self/fd: {}; mount /proc",
        path.display(), std::io::Error::from(*source))]
    Proc {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
}

/// A folder, shared with one guest.
#[derive(Debug)]
pub struct Share {
    options: Options,
    pub(crate) path: PathBuf,
    ownership: Ownership,
    pub(crate) files: OpenFiles,
    /// What the host takes from the permissions of new files.
    umask: u32,
    pub(crate) inodes: Mutex<Inodes>,
    pub(crate) handles: Handles,
    streams: Streams,
    /// The guest reads directories without opening them.
    pub(crate) opens_no_directory: AtomicBool,
    /// The devices of the files that were told of; the folder's is the first.
    devices: Mutex<Vec<u64>>,
    /// The guest has said INIT.
    pub(crate) ready: AtomicBool,
    counters: Counters,
}

/// What a request is answered with.
enum Reply {
    /// Nothing: the guest waits for none.
    None,
    /// This.
    Body(Answer),
    /// So many bytes that are in their place already.
    Data(usize),
}

/// How long the guest goes by what it is told.
struct Lasts {
    entry: Duration,
    attributes: Duration,
}

/// Who asks, and for what.
struct Header {
    opcode: u32,
    unique: u64,
    node: NodeId,
}

impl Share {
    /// The folder at `path`.
    ///
    /// # Errors
    /// The host refuses, or lacks what is needed.
    pub fn open(path: &Path, options: Options) -> Result<Self, ShareError> {
        let folder = |source| ShareError::Folder { path: path.to_owned(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(folder)?;
        let device = Attributes::of(&root).map_err(folder)?.key().dev;
        let files = OpenFiles::new();
        let files = files.map_err(|source| ShareError::Proc { path: path.to_owned(), source })?;
        Ok(Self {
            options,
            path: path.to_owned(),
            ownership: Ownership::new(options.owner),
            files,
            umask: umask(),
            inodes: Mutex::new(Inodes::new(root).map_err(folder)?),
            handles: Handles::default(),
            streams: Streams::default(),
            opens_no_directory: AtomicBool::new(false),
            devices: Mutex::new(vec![device]),
            ready: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    /// How it is shared.
    pub fn options(&self) -> Options {
        self.options
    }

    /// What it has done.
    pub fn stats(&self) -> ShareStats {
        let [known, kept, watched] = lock(&self.inodes).counts();
        let Counters { requests, errors, read, written, .. } = &self.counters;
        ShareStats {
            tag: String::new(),
            requests: Counters::value(requests),
            kinds: self.counters.kinds(),
            errors: Counters::value(errors),
            read: Counters::value(read),
            written: Counters::value(written),
            known: known as u64,
            kept: kept as u64,
            watched: watched as u64,
        }
    }

    /// Answers a request. How many bytes the answer has; 0 where the guest waits for none, or has
    /// not said enough to be answered.
    pub fn serve(&self, exchange: &impl Exchange) -> usize {
        let mut header = [0; wire::IN_HEADER];
        if exchange.read(0, &mut header).is_err() {
            return 0;
        }
        let Ok(header) = parse(&header) else { return 0 };
        self.counters.request(header.opcode);
        let reply = self.execute(&header, exchange);
        if let Err(error) = &reply {
            Counters::count(&self.counters.errors, 1);
            tracing::trace!(target: "virtio", "request {} of a share: {error}", header.opcode);
        }
        answer(&header, reply, exchange)
    }

    fn execute(&self, header: &Header, exchange: &impl Exchange) -> Result<Reply, Errno> {
        let most = match header.opcode {
            opcode::WRITE => wire::WRITE_IN,
            _ => ARGUMENTS,
        };
        let len = exchange.size().saturating_sub(wire::IN_HEADER);
        if len > most && header.opcode != opcode::WRITE {
            return Err(Errno::TOOBIG);
        }
        let mut bytes = vec![0; len.min(most)];
        exchange.read(wire::IN_HEADER, &mut bytes).map_err(|_| Errno::FAULT)?;
        let arguments = Arguments(&bytes);
        if header.opcode == opcode::INIT {
            return self.init(arguments).map(Reply::Body);
        }
        if !self.is_ready() {
            return Err(Errno::IO);
        }
        if self.options.read_only && changes(header.opcode) {
            return Err(Errno::ROFS);
        }
        if changes_directory(header.opcode) {
            return self.changing(header.node, || self.obey(header, arguments, exchange));
        }
        self.obey(header, arguments, exchange)
    }

    fn obey(
        &self,
        header: &Header,
        arguments: Arguments<'_>,
        exchange: &impl Exchange,
    ) -> Result<Reply, Errno> {
        match header.opcode {
            opcode::READ => self.read(arguments, exchange).map(Reply::Data),
            opcode::WRITE => self.write(arguments, exchange).map(Reply::Body),
            opcode::FORGET | opcode::BATCH_FORGET => self.forget(header, arguments),
            _ => self.answer(header, arguments, exchange.room()).map(Reply::Body),
        }
    }

    /// Requests that neither carry a file's data nor go without an answer.
    fn answer(
        &self,
        header: &Header,
        arguments: Arguments<'_>,
        room: usize,
    ) -> Result<Answer, Errno> {
        let (node, room) = (header.node, room.saturating_sub(wire::OUT_HEADER));
        match header.opcode {
            opcode::LOOKUP => self.lookup(node, arguments),
            opcode::GETATTR => self.getattr(node, arguments),
            opcode::SETATTR => self.setattr(node, arguments),
            opcode::READLINK => self.readlink(node),
            opcode::STATFS => self.statfs(node),
            opcode::SYMLINK => self.symlink(node, arguments),
            opcode::MKNOD => self.mknod(node, arguments),
            opcode::MKDIR => self.mkdir(node, arguments),
            opcode::UNLINK => self.unlink(node, arguments, rustix::fs::AtFlags::empty()),
            opcode::RMDIR => self.unlink(node, arguments, rustix::fs::AtFlags::REMOVEDIR),
            opcode::RENAME => self.rename(node, arguments),
            opcode::RENAME2 => self.rename2(node, arguments),
            opcode::LINK => self.link(node, arguments),
            opcode::OPEN => self.open_file(node, arguments),
            opcode::CREATE => self.create(node, arguments),
            opcode::TMPFILE => self.tmpfile(node, arguments),
            opcode::OPENDIR => self.opendir(node),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(arguments),
            opcode::FSYNC | opcode::FSYNCDIR => self.fsync(node, arguments),
            opcode::SYNCFS => self.syncfs(),
            opcode::READDIR => self.readdir(node, arguments, room, directory::Plus::No),
            opcode::READDIRPLUS => self.readdir(node, arguments, room, directory::Plus::Yes),
            opcode::FALLOCATE => self.fallocate(arguments),
            opcode::LSEEK => self.lseek(arguments),
            opcode::COPY_FILE_RANGE => self.copy_file_range(arguments),
            opcode::GETXATTR => self.getxattr(node, arguments),
            opcode::LISTXATTR => self.listxattr(node, arguments),
            opcode::SETXATTR => self.setxattr(node, arguments),
            opcode::REMOVEXATTR => self.removexattr(node, arguments),
            opcode::DESTROY => Ok(self.forget_all()),
            _ => Err(Errno::NOSYS),
        }
    }

    /// A descriptor of the file `node`.
    fn descriptor(&self, node: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        lock(&self.inodes).descriptor(node)
    }

    /// Changes the file `node` by `work`. Once that is done, the guest's kernel asks how it is.
    fn changing<T>(
        &self,
        node: NodeId,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let goes_by = |told| {
            if let Some(inode) = lock(&self.inodes).get_mut(node) {
                inode.told = told;
            }
        };
        goes_by(Told::Nothing);
        work().inspect_err(|_| goes_by(Told::Unsure))
    }

    /// Watches the directory `node`, which is open by `file`, if anybody wants that. What is looked
    /// at after that, it or what is in it, may be gone by for long.
    fn watch(&self, node: NodeId, file: impl AsFd) {
        if self.options.cache == Cache::Auto {
            lock(&self.inodes).watch(node, || self.files.path(file));
        }
    }

    /// How long the guest goes by what it is told of `node`, which has these attributes.
    fn lasts(&self, inodes: &Inodes, node: NodeId, attributes: &Attributes) -> Lasts {
        let usual = self.options.cache.lasts();
        let followed = |is: bool| if is { FOLLOWED.max(usual) } else { usual };
        let inode = inodes.get(node).ok();
        let place = inode.and_then(|inode| inode.location.as_ref());
        let named = place.is_some_and(|place| inodes.hears_of(place.parent, attributes));
        let itself = match attributes.kind() {
            FileType::Directory => inodes.hears_of(node, attributes),
            _ => named && attributes.links() == 1,
        };
        Lasts { entry: followed(named), attributes: followed(itself) }
    }

    /// The number that the guest is shown for a file: the host's, unless it is on another device
    /// than the folder.
    fn shown_number(&self, device: u64, number: u64) -> u64 {
        let mut devices = lock(&self.devices);
        let index = devices.iter().position(|&known| known == device).unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        number ^ (index as u64) << 48
    }

    /// Tells the guest of the file with these attributes, seen at `location`: `fuse_entry_out`.
    fn entry(
        &self,
        attributes: &Attributes,
        location: Option<Location>,
        answer: &mut Answer,
    ) -> Result<NodeId, Errno> {
        let mut inodes = lock(&self.inodes);
        let id = inodes.tell(attributes, location)?;
        let Lasts { entry, attributes: own } = self.lasts(&inodes, id, attributes);
        drop(inodes);
        answer.u64(id.0).u64(0).u64(entry.as_secs()).u64(own.as_secs());
        answer.u32(entry.subsec_nanos()).u32(own.subsec_nanos());
        self.put_attributes(attributes, answer);
        Ok(id)
    }

    fn put_attributes(&self, attributes: &Attributes, answer: &mut Answer) {
        let number = self.shown_number(attributes.key().dev, attributes.number());
        let (_, mut nanoseconds) = attributes.modified();
        let away = number != attributes.number();
        if away && self.opens_no_directory() && attributes.is_unsettled_directory() {
            // Its time may be of whole seconds: at another time it is told another one, so that
            // nobody goes by what it had in between.
            nanoseconds = (Counters::value(&self.counters.requests) % 1_000_000_000) as u32;
        }
        attributes.put(answer, number, &self.ownership, nanoseconds);
    }
}

/// Whether the request changes the directory that it is about: names in it.
fn changes_directory(code: u32) -> bool {
    matches!(
        code,
        opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
    )
}

/// Whether the request changes something.
fn changes(code: u32) -> bool {
    changes_directory(code)
        || matches!(
            code,
            opcode::SETATTR
                | opcode::WRITE
                | opcode::TMPFILE
                | opcode::FALLOCATE
                | opcode::COPY_FILE_RANGE
                | opcode::SETXATTR
                | opcode::REMOVEXATTR
        )
}

fn parse(bytes: &[u8]) -> Result<Header, Errno> {
    let mut rest = Arguments(bytes);
    rest.u32()?; // len: the exchange knows
    Ok(Header { opcode: rest.u32()?, unique: rest.u64()?, node: NodeId(rest.u64()?) })
}

/// Puts the answer together. Its bytes.
fn answer(header: &Header, reply: Result<Reply, Errno>, exchange: &impl Exchange) -> usize {
    let fits = |len: usize| len <= exchange.room().saturating_sub(wire::OUT_HEADER);
    let (body, len, error) = match reply {
        Ok(Reply::None) => return 0,
        Ok(Reply::Data(len)) => (Vec::new(), len, 0),
        Ok(Reply::Body(Answer(body))) if fits(body.len()) => {
            let len = body.len();
            (body, len, 0)
        }
        Ok(Reply::Body(_)) => (Vec::new(), 0, Errno::RANGE.raw_os_error()),
        Err(error) => (Vec::new(), 0, error.raw_os_error()),
    };
    let len = wire::OUT_HEADER + len;
    let mut bytes = Answer::default();
    bytes.u32(len as u32).u32(error.wrapping_neg() as u32).u64(header.unique).bytes(&body);
    match exchange.write(0, &bytes.0) {
        Ok(()) => len,
        Err(_) => 0,
    }
}

/// What this process's umask takes from the permissions of what it makes; nothing is changed.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}
