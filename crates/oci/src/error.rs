//! Why there is no image.

use crate::Digest;
use std::io;
use std::path::PathBuf;

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host.
    #[error("cannot read {what} of {path}: {source}", path = path.display())]
    Read {
        /// Which part.
        what: String,
        /// Of which image.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no image, or one of which not enough is there.
    #[error("{path}: {why}", path = path.display())]
    Refused {
        /// Which image.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Something is not what its name says.
    #[error(
        "{what} of {path} is damaged: its content has the digest {found} and should have \
         {expected}; fetch the image again",
        path = path.display()
    )]
    Digest {
        /// Which part.
        what: String,
        /// Of which image.
        path: PathBuf,
        /// The digest by which it is named.
        expected: Digest,
        /// That of what is there.
        found: Digest,
    },
    /// The unpacked layers could not be kept.
    #[error("cannot write an unpacked layer: {0}")]
    Spool(io::Error),
}
