//! A guest's kernel, as far as a share sees it: requests made of bytes, answers taken apart.

use crate::message::Message;
use rustix::io::Errno;
use share::{Options, Share};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of this test's own, gone with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-share-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A request, and room for its answer, which may write anywhere in a file.
pub(crate) fn message(request: Vec<u8>, room: usize) -> Message {
    Message::bounded(request, room, u64::MAX)
}

/// A request's arguments.
#[derive(Clone, Default)]
pub(crate) struct Words(pub(crate) Vec<u8>);

impl Words {
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.extend(text.bytes());
        self.0.push(0);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

pub(crate) fn words() -> Words {
    Words::default()
}

/// The number at byte `at` of an answer.
pub(crate) fn u32_at(answer: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(answer[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(answer: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(answer[at..at + 8].try_into().expect("eight bytes"))
}

/// What a guest is told of a file (`fuse_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) fn attr(bytes: &[u8]) -> Attr {
    Attr {
        ino: u64_at(bytes, 0),
        size: u64_at(bytes, 8),
        mode: u32_at(bytes, 60),
        links: u32_at(bytes, 64),
        uid: u32_at(bytes, 68),
        gid: u32_at(bytes, 72),
    }
}

pub(crate) const ROOT: u64 = 1;

/// A guest with a mounted share.
pub(crate) struct Guest {
    pub(crate) share: Arc<Share>,
}

impl Guest {
    pub(crate) fn new(path: &Path, options: Options) -> Self {
        let share = Share::open(path, options).expect("shared");
        let guest = Self { share: share.into() };
        guest.init();
        guest
    }

    pub(crate) fn init(&self) {
        self.init_with(u32::MAX);
    }

    /// With what this guest's kernel can do.
    pub(crate) fn init_with(&self, abilities: u32) {
        let arguments = words().u32(7).u32(38).u32(1 << 17).u32(abilities);
        let answer = self.ask(26, 0, arguments.bytes(&[0; 48])).expect("INIT");
        assert_eq!((u32_at(&answer, 0), answer.len()), (7, 64));
    }

    /// Sends a request. The answer's body, or its error.
    pub(crate) fn ask(&self, opcode: u32, node: u64, arguments: Words) -> Result<Vec<u8>, Errno> {
        let len = 40 + arguments.0.len() as u32;
        let header = words().u32(len).u32(opcode).u64(77).u64(node).u32(0).u32(0).u32(1).u32(0);
        let message = message([header.0, arguments.0].concat(), 1 << 17);
        let written = self.share.serve(&message);
        let answer = message.answer.into_inner();
        assert!(written >= 16, "an answer");
        assert_eq!((u32_at(&answer, 0) as usize, u64_at(&answer, 8)), (written, 77));
        match u32_at(&answer, 4) as i32 {
            0 => Ok(answer[16..written].to_vec()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    /// Its number and attributes.
    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Result<(u64, Attr), Errno> {
        let answer = self.ask(1, parent, words().text(name))?;
        let node = u64_at(&answer, 0);
        if node == 0 { Err(Errno::NOENT) } else { Ok((node, attr(&answer[40..]))) }
    }

    pub(crate) fn forget(&self, node: u64, count: u64) {
        let header = words().u32(48).u32(2).u64(1).u64(node).u64(0).u64(0).u64(count);
        assert_eq!(self.share.serve(&message(header.0, 0)), 0);
    }

    pub(crate) fn getattr(&self, node: u64) -> Result<Attr, Errno> {
        let answer = self.ask(3, node, words().u64(0).u64(0))?;
        Ok(attr(&answer[16..]))
    }

    /// Sets what `valid` says.
    pub(crate) fn setattr(&self, node: u64, valid: u32, set: Set) -> Result<Attr, Errno> {
        let Set { handle, size, mtime, mode, uid, gid } = set;
        let times = words().u64(0).u64(mtime).u64(0).u32(0).u32(0).u32(0);
        let arguments = words().u64(valid.into()).u64(handle).u64(size).u64(0).bytes(&times.0);
        let answer = self.ask(4, node, arguments.u32(mode).u32(0).u32(uid).u32(gid).u32(0))?;
        Ok(attr(&answer[16..]))
    }

    /// The handle, and the flags of the answer.
    pub(crate) fn open(&self, node: u64, flags: i32) -> Result<(u64, u32), Errno> {
        let answer = self.ask(14, node, words().u32(flags as u32).u32(0))?;
        Ok((u64_at(&answer, 0), u32_at(&answer, 8)))
    }

    pub(crate) fn release(&self, handle: u64) -> Result<(), Errno> {
        self.ask(18, 0, words().u64(handle).u64(0).u64(0)).map(drop)
    }

    /// The number and the handle.
    pub(crate) fn create(&self, parent: u64, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let flags = (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) as u32;
        let arguments = words().u32(flags).u32(mode).u64(0).text(name);
        let answer = self.ask(35, parent, arguments)?;
        Ok((u64_at(&answer, 0), u64_at(&answer, 128)))
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &str) -> Result<u64, Errno> {
        let answer = self.ask(9, parent, words().u32(0o755).u32(0).text(name))?;
        Ok(u64_at(&answer, 0))
    }

    pub(crate) fn mknod(&self, parent: u64, name: &str, mode: u32) -> Result<u64, Errno> {
        let answer = self.ask(8, parent, words().u32(mode).u32(0x0103).u64(0).text(name))?;
        Ok(u64_at(&answer, 0))
    }

    pub(crate) fn symlink(&self, parent: u64, name: &str, target: &str) -> Result<u64, Errno> {
        let answer = self.ask(6, parent, words().text(name).text(target))?;
        Ok(u64_at(&answer, 0))
    }

    pub(crate) fn link(&self, node: u64, parent: u64, name: &str) -> Result<u64, Errno> {
        let answer = self.ask(13, parent, words().u64(node).text(name))?;
        Ok(u64_at(&answer, 0))
    }

    pub(crate) fn unlink(&self, parent: u64, name: &str) -> Result<(), Errno> {
        self.ask(10, parent, words().text(name)).map(drop)
    }

    pub(crate) fn rmdir(&self, parent: u64, name: &str) -> Result<(), Errno> {
        self.ask(11, parent, words().text(name)).map(drop)
    }

    pub(crate) fn rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        flags: u32,
    ) -> Result<(), Errno> {
        let arguments = words().u64(to.0).u64(flags.into()).text(from.1).text(to.1);
        self.ask(45, from.0, arguments).map(drop)
    }

    pub(crate) fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.ask(15, 0, words().u64(handle).u64(offset).u64(size.into()).u64(0).u64(0))
    }

    pub(crate) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        self.write_with(handle, offset, data, 0)
    }

    /// With the file's flags.
    pub(crate) fn write_with(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
    ) -> Result<u32, Errno> {
        let arguments = words().u64(handle).u64(offset).u64(data.len() as u64).u64(0);
        let answer = self.ask(16, 0, arguments.u64(flags as u64).bytes(data))?;
        Ok(u32_at(&answer, 0))
    }

    /// The handle; 0 if the guest's kernel is to do without.
    pub(crate) fn opendir(&self, node: u64) -> Result<u64, Errno> {
        match self.ask(27, node, words().u64(0)) {
            Err(Errno::NOSYS) => Ok(0),
            answer => Ok(u64_at(&answer?, 0)),
        }
    }

    pub(crate) fn closedir(&self, handle: u64) {
        if handle > 0 {
            self.release(handle).expect("open");
        }
    }

    /// All names in the directory `node`, which is open by `handle`, with their numbers, read in
    /// pieces of `size` bytes; 0 where the guest was not told of the file.
    pub(crate) fn names(
        &self,
        (node, handle): (u64, u64),
        size: u32,
        opcode: u32,
    ) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        while self.more_names((node, handle), size, opcode, &mut found) {}
        found.into_iter().map(|(name, node, _)| (name, node)).collect()
    }

    /// Reads on behind the last of what was `found`: name, number, and where the next one is.
    /// False: that is all.
    pub(crate) fn more_names(
        &self,
        (node, handle): (u64, u64),
        size: u32,
        opcode: u32,
        found: &mut Vec<(String, u64, u64)>,
    ) -> bool {
        let offset = found.last().map_or(0, |(_, _, next)| *next);
        let arguments = words().u64(handle).u64(offset).u64(size.into()).u64(0).u64(0);
        let answer = self.ask(opcode, node, arguments).expect("entries");
        assert!(answer.len() <= size as usize);
        let (mut at, before) = (0, if opcode == 44 { 128 } else { 0 });
        while at < answer.len() {
            let node = if before > 0 { u64_at(&answer, at) } else { 0 };
            let entry = at + before;
            let next = u64_at(&answer, entry + 8);
            let len = u32_at(&answer, entry + 16) as usize;
            let name = &answer[entry + 24..entry + 24 + len];
            found.push((String::from_utf8(name.to_vec()).expect("text"), node, next));
            at = (entry + 24 + len).next_multiple_of(8);
        }
        !answer.is_empty()
    }
}

/// What SETATTR sets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Set {
    pub(crate) handle: u64,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}
