//! Why a file cannot be a disk.

use super::{Format, SECTOR};
use std::io;
use std::path::PathBuf;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("cannot open the disk {path} for {what}: {source}{remedy}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Reading, or reading and writing.
        what: &'static str,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// It can be opened, but not read.
    #[error("cannot read the disk {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host cannot leave its cache out.
    #[error(
        "cannot open the disk {path} past the host's page cache: {source}; its file system may not \
         know O_DIRECT: use the cache, which is cache=writeback", path = path.display()
    )]
    Direct {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another program's format.
    #[error(
        "the disk {path} is {format}, which cannot be used as it is (format=raw insists on its \
         bytes); {verb} it into a new file", path = path.display(),
        verb = if format.is_compressed() { "unpack" } else { "convert" }
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// No file or block device.
    #[error(
        "cannot use {path} as a disk: it is {what}; give an image file",
        path = path.display()
    )]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another program has it.
    #[error(
        "the disk {path} is in use; end the machine that has it, or give both only ,ro",
        path = path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Not a single sector.
    #[error(
        "the disk {path} has {bytes} bytes, less than a sector of {SECTOR}; give a larger one",
        path = path.display()
    )]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A piece of a sector at the end.
    #[error(
        "the disk {path} has {bytes} bytes, no multiple of {SECTOR}; extend a copy of it",
        path = path.display()
    )]
    Uneven {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A qcow2 image that cannot be used.
    #[error(
        "cannot use the qcow2 image {path}: {why}; qemu-img check {path} tells more",
        path = path.display()
    )]
    Qcow2 {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An image names another file that may not be opened.
    #[error(
        "the disk {path} has the backing file {backing}, which {why}",
        path = path.display()
    )]
    Backing {
        /// The image.
        path: PathBuf,
        /// What it names.
        backing: String,
        /// Why not, and what to do.
        why: String,
    },
}
