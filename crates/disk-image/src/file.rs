//! A file of the host that is to be an image: opened, found to be one, and locked.

use super::lock::{self, Locked};
use super::{DiskAccess, ImageError};
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// An open, locked file.
pub(crate) struct ImageFile {
    pub(crate) file: File,
    /// Its size.
    pub(crate) bytes: u64,
}

impl ImageFile {
    /// Opens and locks the file or block device at `path`.
    ///
    /// # Errors
    /// It is not there, not permitted, in use, or no file.
    pub(crate) fn open(path: &Path, access: DiskAccess) -> Result<Self, ImageError> {
        // Non-blocking: a pipe would wait for its other end. Plain files and block devices know no
        // difference.
        let mut options = OpenOptions::new();
        options.read(true).write(access == DiskAccess::ReadWrite).custom_flags(libc::O_NONBLOCK);
        let opened = options.open(path);
        let mut file = opened.map_err(|source| open_error(path, access, source))?;
        let metadata = file.metadata().map_err(|source| open_error(path, access, source))?;
        if let Some(what) = no_disk(metadata.file_type()) {
            return Err(ImageError::NoFile { path: path.to_owned(), what });
        }
        match lock::lock(&file, access) {
            Ok(Locked::Yes) => {}
            Ok(Locked::Busy) => return Err(ImageError::Busy { path: path.to_owned() }),
            // Some network file systems know no locks.
            Err(why) => {
                tracing::warn!(target: "host", "cannot lock the disk {}: {why}", path.display());
            }
        }
        // A block device's size is where it ends; its metadata says 0.
        let Ok(bytes) = file.seek(SeekFrom::End(0)) else {
            let what = "nothing that can be read at any place";
            return Err(ImageError::NoFile { path: path.to_owned(), what });
        };
        Ok(Self { file, bytes })
    }
}

/// What a file is that cannot be a disk; `None`: a plain file or a block device.
fn no_disk(kind: FileType) -> Option<&'static str> {
    match kind {
        _ if kind.is_file() || kind.is_block_device() => None,
        _ if kind.is_dir() => Some("a directory"),
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_char_device() => Some("a character device"),
        _ => Some("no plain file"),
    }
}

fn open_error(path: &Path, access: DiskAccess, source: io::Error) -> ImageError {
    let what = match access {
        DiskAccess::ReadOnly => "reading",
        DiskAccess::ReadWrite => "reading and writing",
    };
    let remedy = match source.kind() {
        io::ErrorKind::NotFound => "; check the path, or create an image of the size that you want",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            if access == DiskAccess::ReadWrite =>
        {
            "; add ,ro if the guest need not write"
        }
        io::ErrorKind::IsADirectory => "; give an image file",
        _ => "",
    };
    ImageError::Open { path: PathBuf::from(path), what, source, remedy }
}
