//! What a machine boots when it is reset: files of the host, or bytes that it keeps itself.
//!
//! A machine that was built reads the host's files as they are by then. A machine that was restored
//! takes them only as they were when it was saved: a path may have come to name another kernel.

use crate::config::{BootConfig, File};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// A boot file in the header of a saved machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SavedFile {
    /// This file of the host, with this content.
    Host {
        /// Its absolute name.
        path: PathBuf,
        /// Bytes.
        len: u64,
        /// CRC-32 of them.
        crc: u32,
    },
    /// Bytes that are in the saved machine's file, since no file of the host holds them.
    Inside {
        /// For messages.
        name: String,
    },
    /// What could not be kept.
    Lost {
        /// For messages.
        name: String,
        /// Why, after the name.
        why: String,
    },
}

/// Why a machine that was restored cannot boot again from one of its files.
#[derive(Debug, thiserror::Error)]
pub enum BootFileError {
    /// The host refuses it.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is another in its place.
    #[error("{} has changed since the machine was saved; put it back", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It is not known.
    #[error("{name} {why}")]
    Lost {
        /// What it is called.
        name: String,
        /// Why, after its name.
        why: String,
    },
}

/// A boot file of a machine.
#[derive(Clone, Debug)]
pub(crate) enum BootFile {
    /// As it is when it is needed.
    Current(File),
    /// As it was when the machine was saved.
    Saved(SavedFile),
}

impl BootFile {
    /// The file, to be booted from.
    ///
    /// # Errors
    /// It is not there any more, or another.
    pub(crate) fn now(&self) -> Result<Cow<'_, File>, BootFileError> {
        let (path, len, crc) = match self {
            Self::Current(file) => return Ok(Cow::Borrowed(file)),
            Self::Saved(SavedFile::Host { path, len, crc }) => (path, *len, *crc),
            Self::Saved(SavedFile::Inside { name }) => {
                let why = "is missing in the saved machine's file".to_owned();
                return Err(BootFileError::Lost { name: name.clone(), why });
            }
            Self::Saved(SavedFile::Lost { name, why }) => {
                return Err(BootFileError::Lost { name: name.clone(), why: why.clone() });
            }
        };
        let unread = |source| BootFileError::Read { path: path.clone(), source };
        let metadata = fs::metadata(path).map_err(unread)?;
        if !metadata.is_file() || metadata.len() != len {
            return Err(BootFileError::Changed { path: path.clone() });
        }
        let bytes = fs::read(path).map_err(unread)?;
        if bytes.len() as u64 != len || crc32fast::hash(&bytes) != crc {
            return Err(BootFileError::Changed { path: path.clone() });
        }
        Ok(Cow::Owned(File::Bytes { name: path.display().to_string(), bytes: bytes.into() }))
    }

    /// What a saved machine's header says of it.
    pub(crate) fn saved(&self) -> SavedFile {
        match self {
            Self::Saved(saved) => saved.clone(),
            Self::Current(File::Bytes { name, .. }) => SavedFile::Inside { name: name.clone() },
            Self::Current(File::Path(path)) => of_host(path).unwrap_or_else(|error| {
                let why = format!("could not be kept when the machine was saved: {error}");
                SavedFile::Lost { name: path.display().to_string(), why }
            }),
        }
    }

    /// The bytes that go with [`SavedFile::Inside`].
    pub(crate) fn inside(&self) -> Option<&[u8]> {
        match self {
            Self::Current(File::Bytes { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }
}

/// The host's file at `path`, as it is.
fn of_host(path: &Path) -> io::Result<SavedFile> {
    let path = std::path::absolute(path)?;
    if path.to_str().is_none() {
        return Err(io::Error::other("its name is no UTF-8 text"));
    }
    if !fs::metadata(&path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let (mut file, mut piece) = (fs::File::open(&path)?, vec![0; PIECE]);
    let (mut sum, mut len) = (crc32fast::Hasher::new(), 0);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(SavedFile::Host { path, len, crc: sum.finalize() });
        }
        sum.update(&piece[..count]);
        len += count as u64;
    }
}

impl BootConfig<BootFile> {
    /// What `config` says.
    pub(crate) fn current(config: &BootConfig) -> Self {
        let current = |file: &File| Ok(BootFile::Current(file.clone()));
        config.try_map(current).unwrap_or_else(|never: std::convert::Infallible| match never {})
    }

    /// What a saved machine's header says of it.
    pub(crate) fn saved(&self) -> BootConfig<SavedFile> {
        let saved = |file: &BootFile| Ok(file.saved());
        self.try_map(saved).unwrap_or_else(|never: std::convert::Infallible| match never {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_is_taken_only_as_it_was() {
        let path = std::env::temp_dir().join(format!("gemello-boot-file-{}", std::process::id()));
        fs::write(&path, b"a kernel").expect("a file");
        let current = BootFile::Current(File::Path(path.clone()));
        let saved = BootFile::Saved(current.saved());
        let File::Bytes { bytes, .. } = saved.now().expect("unchanged").into_owned() else {
            panic!("it is read")
        };
        assert_eq!(&*bytes, b"a kernel");
        let refusal = |saved: &BootFile| saved.now().expect_err("refused").to_string();
        for other in [b"b kernel".as_slice(), b"a kernel of more"] {
            fs::write(&path, other).expect("a file");
            assert!(refusal(&saved).contains("has changed since"), "{}", refusal(&saved));
            assert!(current.now().is_ok(), "one that was built boots what is there");
        }
        fs::remove_file(&path).expect("it is there");
        assert!(refusal(&saved).contains("cannot read"), "{}", refusal(&saved));
        let lost = BootFile::Saved(current.saved());
        assert!(refusal(&lost).contains("could not be kept"), "{}", refusal(&lost));
    }
}
