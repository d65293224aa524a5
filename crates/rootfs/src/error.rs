//! Why there is no image.

use std::io;

/// Why a layer was not taken. The tree is then of no use.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The host.
    #[error("cannot read the archive: {0}")]
    Read(#[from] io::Error),
    /// It is no archive, or ends too early.
    #[error("the archive is damaged at byte {at}: {why}")]
    Damaged {
        /// Where the entry begins.
        at: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// An entry says what no image may say.
    #[error("the archive's entry {path:?} {why}")]
    Refused {
        /// Its name, as far as it is text.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Why no image was written. What was written so far is of no use.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The host: a layer could not be read, or the image not written.
    #[error("cannot write the file system: {0}")]
    Host(#[from] io::Error),
    /// ext4 cannot hold what the layers say.
    #[error("ext4 cannot hold {path:?}: {why}")]
    Unfit {
        /// Which file.
        path: String,
        /// Why not.
        why: String,
    },
    /// The whole does not fit.
    #[error("cannot lay out the file system: {0}")]
    Layout(String),
}
