//! The source of an image's bytes.

use crate::BootError;
use std::borrow::Cow;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Bytes of the largest file that is read: no kernel or initial file system comes near it, and the
/// host's memory may.
const LARGEST: u64 = 8 << 30;

/// A file to read, or bytes that are in memory already.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Read this file.
    Path(&'a Path),
    /// These bytes, called `name` in messages.
    Bytes {
        /// For messages, and as a Multiboot module's file name.
        name: &'a str,
        /// The content.
        bytes: &'a [u8],
    },
}

/// A source that has been read and is not empty.
#[derive(Debug)]
pub(crate) struct File<'a> {
    /// For messages.
    pub(crate) name: String,
    /// The content.
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl<'a> Source<'a> {
    /// The name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Bytes { name, .. } => (*name).to_owned(),
        }
    }

    /// The bytes of this `role`; not empty.
    pub(crate) fn read(&self, role: &'static str) -> Result<File<'a>, BootError> {
        let name = self.name();
        let bytes = match *self {
            Self::Bytes { bytes, .. } => Cow::Borrowed(bytes),
            Self::Path(path) => match read_file(path, LARGEST) {
                Ok(bytes) => Cow::Owned(bytes),
                Err(source) => return Err(BootError::Read { role, name, source }),
            },
        };
        if bytes.is_empty() {
            return Err(BootError::Empty { role, name });
        }
        Ok(File { name, bytes })
    }
}

impl File<'_> {
    /// The error for a part that ends after the file does.
    pub(crate) fn truncated(&self, what: &'static str, needed: u64) -> BootError {
        let found = self.bytes.len() as u64;
        BootError::Truncated { name: self.name.clone(), what, needed, found }
    }

    /// The error for a header that contradicts itself.
    pub(crate) fn corrupt(&self, what: impl Into<String>) -> BootError {
        BootError::Corrupt { name: self.name.clone(), what: what.into() }
    }

    /// The error for what is valid but not implemented.
    pub(crate) fn unsupported(&self, what: impl Into<String>, remedy: &'static str) -> BootError {
        BootError::Unsupported { name: self.name.clone(), what: what.into(), remedy }
    }
}

/// The whole of a plain file of at most `max` bytes. Nothing else is opened: a pipe may never give
/// its end, and some devices have none.
fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    let kind = metadata.file_type();
    let what = match kind {
        _ if kind.is_file() || kind.is_dir() => None, // reading a directory fails as it should
        _ if kind.is_char_device() || kind.is_block_device() => Some("a device"),
        _ if kind.is_fifo() => Some("a pipe"),
        _ => Some("a socket"),
    };
    if let Some(what) = what {
        return Err(io::Error::other(format!("it is {what}, not a file")));
    }
    if metadata.len() > max {
        let len = metadata.len();
        return Err(io::Error::other(format!("it has {len} bytes, and {max} are the most")));
    }
    std::fs::read(path)
}

/// The bytes of `cmdline` with a terminating zero, if they are at most `max` without it.
pub(crate) fn cmdline(name: &str, cmdline: &str, max: u64) -> Result<Vec<u8>, BootError> {
    let found = cmdline.len() as u64;
    if found > max {
        return Err(BootError::CmdlineTooLong { name: name.to_owned(), found, max });
    }
    if cmdline.as_bytes().contains(&0) {
        return Err(BootError::CmdlineZero { name: name.to_owned() });
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}
