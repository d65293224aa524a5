//! Where an image's bytes come from.

use crate::BootError;
use std::borrow::Cow;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

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
            Self::Path(path) => match read_file(path) {
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

/// The whole file (or pipe): never a device, some of which have no end.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(std::io::Error::other("it is a device, not a file"));
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
