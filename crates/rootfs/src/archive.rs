//! A tar archive as a list of entries: ustar, with the extensions of pax and GNU tar.
//!
//! The crate `tar` decodes a header's fields. Which records precede an entry, and how long they may
//! be, is decided here: an archive's reader that trusts a header takes as much memory as it says.

use crate::error::LayerError;
use crate::{limits, pax};
use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// What pax and GNU tar call an extended attribute.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
/// The last second that ext4 can tell.
const LAST_SECOND: i64 = 0x3_7fff_ffff;

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub user: u32,
    /// The group's.
    pub group: u32,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its first byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// A further name of the file that has this one.
    Link(Vec<u8>),
    /// A symbolic link that reads so.
    Symlink(Vec<u8>),
    /// A folder.
    Directory,
    /// A character device's major and minor number.
    Character(u32, u32),
    /// A block device's.
    Block(u32, u32),
    /// A named pipe.
    Pipe,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it is written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The permissions, with set-user-ID and its like.
    pub mode: u16,
    /// Whose it is.
    pub owner: Owner,
    /// When it was last written.
    pub modified: Time,
    /// Extended attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive in a file, read in order.
#[derive(Debug)]
pub struct Archive<'f> {
    file: &'f File,
    at: u64,
    end: u64,
    entries: usize,
}

/// What the records before an entry say of it.
#[derive(Debug, Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    user: Option<u64>,
    group: Option<u64>,
    modified: Option<Time>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'f> Archive<'f> {
    /// That in the part `content` of `file`.
    pub fn new(file: &'f File, content: Content) -> Self {
        let Content { offset, bytes } = content;
        Self { file, at: offset, end: offset.saturating_add(bytes), entries: 0 }
    }

    /// The next entry.
    ///
    /// # Errors
    /// It is damaged, or of a kind that no root file system has.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut records = Records::default();
        loop {
            let begin = self.at;
            let Some(header) = self.header()? else { return Ok(None) };
            let damaged = |why| LayerError::Damaged { at: begin, why };
            let said = header.entry_size().map_err(|_| damaged("its size is no number"))?;
            match header.entry_type() {
                EntryType::XHeader => records.read(&self.records(begin, said)?, begin)?,
                // Of the whole archive: comments.
                EntryType::XGlobalHeader => drop(self.records(begin, said)?),
                EntryType::GNULongName => records.path = Some(self.long_name(begin, said)?),
                EntryType::GNULongLink => records.link = Some(self.long_name(begin, said)?),
                _ => {
                    let content = self.content(begin, &header, records.size.unwrap_or(said))?;
                    return self.entry(&header, content, records, begin).map(Some);
                }
            }
        }
    }

    /// The next header. An archive ends with a block of zeros, or with its file.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let at = self.at;
        if at == self.end {
            return Ok(None);
        }
        let mut header = Header::new_old();
        if self.end - at < BLOCK {
            return Err(LayerError::Damaged { at, why: "it ends within a header" });
        }
        self.file.read_exact_at(header.as_mut_bytes(), at)?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum =
            |(n, &byte): (usize, &u8)| u32::from(if (148..156).contains(&n) { b' ' } else { byte });
        let sum = header.as_bytes().iter().enumerate().map(sum).sum::<u32>();
        if header.cksum().ok() != Some(sum) {
            return Err(LayerError::Damaged { at, why: "its header's checksum is wrong" });
        }
        self.entries += 1;
        if self.entries > limits::NODES {
            return Err(LayerError::Damaged { at, why: "it has more entries than are read" });
        }
        self.at += BLOCK;
        Ok(Some(header))
    }

    /// Passes over `bytes` of content; where they lie.
    fn skip(&mut self, begin: u64, bytes: u64) -> Result<Content, LayerError> {
        let content = Content { offset: self.at, bytes };
        let padded = bytes.checked_next_multiple_of(BLOCK);
        let next = padded.and_then(|padded| self.at.checked_add(padded));
        // The last padding may be missing.
        if bytes > self.end - self.at {
            let why = "its content is longer than the archive";
            return Err(LayerError::Damaged { at: begin, why });
        }
        self.at = next.unwrap_or(self.end).min(self.end);
        Ok(content)
    }

    /// The content of an entry that has some: others only say a size.
    fn content(&mut self, begin: u64, header: &Header, size: u64) -> Result<Content, LayerError> {
        let none = matches!(
            header.entry_type(),
            EntryType::Link
                | EntryType::Symlink
                | EntryType::Directory
                | EntryType::Char
                | EntryType::Block
                | EntryType::Fifo
        );
        self.skip(begin, if none { 0 } else { size })
    }

    /// The text of an entry that is about the next one.
    fn records(&mut self, begin: u64, bytes: u64) -> Result<Vec<u8>, LayerError> {
        if bytes > limits::RECORDS {
            let why = "its extended header is longer than is read";
            return Err(LayerError::Damaged { at: begin, why });
        }
        let content = self.skip(begin, bytes)?;
        let mut text = vec![0; bytes as usize];
        self.file.read_exact_at(&mut text, content.offset)?;
        Ok(text)
    }

    /// A name that GNU tar has put before its entry.
    fn long_name(&mut self, begin: u64, bytes: u64) -> Result<Vec<u8>, LayerError> {
        let mut name = self.records(begin, bytes)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn entry(
        &self,
        header: &Header,
        content: Content,
        records: Records,
        begin: u64,
    ) -> Result<Entry, LayerError> {
        let damaged = |why| LayerError::Damaged { at: begin, why };
        let Records { path, link, size: _, user, group, modified, attributes } = records;
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || link.or_else(|| header.link_name_bytes().map(Cow::into_owned));
        let kind = match header.entry_type() {
            // Before ustar, a folder was a file whose name ends so.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(content),
            EntryType::Link => Kind::Link(link().ok_or(damaged("its link leads nowhere"))?),
            EntryType::Symlink => Kind::Symlink(link().ok_or(damaged("its link leads nowhere"))?),
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Pipe,
            kind @ (EntryType::Char | EntryType::Block) => {
                let device =
                    (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
                match device {
                    (Some(major), Some(minor)) if kind == EntryType::Char => {
                        Kind::Character(major, minor)
                    }
                    (Some(major), Some(minor)) => Kind::Block(major, minor),
                    _ => return Err(damaged("its device has no number")),
                }
            }
            other => {
                let byte = other.as_byte().escape_ascii();
                let why = format!("has the type {byte}, which is none of a root file system's");
                return Err(refused(&path, why));
            }
        };
        let id = |said: Option<u64>, written: std::io::Result<u64>| {
            let id = said.or(written.ok()).and_then(|id| u32::try_from(id).ok());
            id.ok_or(damaged("its owner is no number of 32 bits"))
        };
        let owner = Owner { user: id(user, header.uid())?, group: id(group, header.gid())? };
        let mode = header.mode().map_err(|_| damaged("its mode is no number"))?;
        let seconds = header.mtime().unwrap_or(0);
        let seconds = i64::try_from(seconds).unwrap_or(LAST_SECOND).min(LAST_SECOND);
        let modified = modified.unwrap_or(Time { seconds, nanoseconds: 0 });
        Ok(Entry { path, kind, mode: (mode & 0o7777) as u16, owner, modified, attributes })
    }
}

impl Records {
    /// Notes what `text`, before the entry at `begin`, says.
    fn read(&mut self, mut text: &[u8], begin: u64) -> Result<(), LayerError> {
        let damaged = |why| LayerError::Damaged { at: begin, why };
        while !text.is_empty() {
            let (key, value, rest) =
                pax::record(text).ok_or(damaged("its extended header has no form"))?;
            let number = || pax::number(value).ok_or(damaged("its extended header has no number"));
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.user = Some(number()?),
                b"gid" => self.group = Some(number()?),
                b"mtime" => self.modified = Some(time(value).ok_or(damaged("its time is none"))?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(damaged(
                        "it is a sparse file of GNU tar; archive it as a plain one",
                    ));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                        self.attributes.push((name.to_vec(), value.to_vec()));
                        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len();
                        if self.attributes.iter().map(size).sum::<usize>() > limits::ATTRIBUTES {
                            return Err(damaged("its extended attributes are too large"));
                        }
                    }
                }
            }
            text = rest;
        }
        Ok(())
    }
}

/// `SECONDS` or `SECONDS.FRACTION`, perhaps before 1970; as near as ext4 can tell it.
fn time(text: &[u8]) -> Option<Time> {
    let (before, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(pax::number(parts.next()?)?).ok()?.min(LAST_SECOND);
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if before {
        return Some(Time { seconds: -seconds.min(i64::from(i32::MAX)), nanoseconds: 0 });
    }
    Some(Time { seconds, nanoseconds })
}

/// The refusal of the entry at `path`.
pub(crate) fn refused(path: &[u8], why: impl Into<String>) -> LayerError {
    let path = String::from_utf8_lossy(path).chars().take(200).collect();
    LayerError::Refused { path, why: why.into() }
}
