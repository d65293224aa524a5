//! Why a registry's image is not there.

use std::io;
use std::path::PathBuf;

/// Why an image is not brought.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name does not say which image.
    #[error("{0}")]
    Name(String),
    /// The registry, the way there, or what it sent.
    #[error("cannot fetch {what} from {host}: {why}")]
    Fetch {
        /// Which part.
        what: String,
        /// The registry.
        host: String,
        /// Why not, and what to do.
        why: String,
    },
    /// What was fetched cannot be kept.
    #[error("cannot write {path}: {source}", path = path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
