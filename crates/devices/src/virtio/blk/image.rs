//! A disk's content: a raw image file, or a block device of the host.

use super::format::{self, Format};
use serde::{Deserialize, Serialize};
use std::fs::{File, FileType, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Whether a disk can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAccess {
    /// It can.
    ReadWrite,
    /// The guest can only read it.
    ReadOnly,
}

/// Bytes of a sector, the unit of all addresses (virtio 1.2, 5.2.6).
pub const SECTOR: u64 = 512;

/// open(2)'s flag, on x86-64 Linux.
const O_NONBLOCK: i32 = 0o4000;

/// Where a disk keeps its sectors. Called on the thread of one queue; may block.
pub trait Storage: Send + 'static {
    /// Sectors that it has; never changes.
    fn sectors(&self) -> u64;

    /// Fills `into` from byte `offset`.
    ///
    /// # Errors
    /// The host's.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes `from` at byte `offset`.
    ///
    /// # Errors
    /// The host's.
    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes everything written so far outlast a crash of the host.
    ///
    /// # Errors
    /// The host's.
    fn flush(&mut self) -> io::Result<()>;
}

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
    /// Another program's format.
    #[error(
        "the disk {path} is {format}, no raw image (format=raw insists on its bytes as they are); \
         {verb} it into a new file", path = path.display(),
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
        "cannot use {path} as a disk: it is {what}; give a raw image file",
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
}

/// Whether a file's content may tell that it is no raw image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// A file in another format is refused.
    #[default]
    Recognized,
    /// It is raw, whatever it looks like.
    Raw,
}

/// A raw image: the disk's bytes and nothing else. Locked while it is open.
#[derive(Debug)]
pub struct RawImage {
    file: File,
    sectors: u64,
}

impl RawImage {
    /// Opens the image at `path`, for this process alone unless it is read only.
    ///
    /// # Errors
    /// It is not there, not permitted, in use, of another format, or has no size that a disk can
    /// have.
    pub fn open(path: &Path, access: DiskAccess, trust: Trust) -> Result<Self, ImageError> {
        let path = path.to_owned();
        // Non-blocking: a pipe would wait for its other end. Plain files and block devices know no
        // difference.
        let mut options = OpenOptions::new();
        options.read(true).write(access == DiskAccess::ReadWrite).custom_flags(O_NONBLOCK);
        let opened = options.open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(source) => return Err(open_error(path, access, source)),
        };
        match file.metadata() {
            Ok(metadata) => {
                if let Some(what) = no_disk(metadata.file_type()) {
                    return Err(ImageError::NoFile { path, what });
                }
            }
            Err(source) => return Err(open_error(path, access, source)),
        }
        let lock = match access {
            DiskAccess::ReadOnly => file.try_lock_shared(),
            DiskAccess::ReadWrite => file.try_lock(),
        };
        match lock {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ImageError::Busy { path }),
            // Some network file systems know no locks.
            Err(TryLockError::Error(why)) => {
                tracing::warn!(target: "virtio", "cannot lock the disk {}: {why}", path.display());
            }
        }
        // A block device's size is where it ends; its metadata says 0.
        let Ok(bytes) = file.seek(SeekFrom::End(0)) else {
            return Err(ImageError::NoFile { path, what: "nothing that can be read at any place" });
        };
        match format::recognize(&file, bytes) {
            Ok(Some(format)) if trust == Trust::Recognized => {
                return Err(ImageError::Foreign { path, format });
            }
            Err(source) => return Err(ImageError::Read { path, source }),
            Ok(_) => {}
        }
        if bytes < SECTOR {
            return Err(ImageError::TooSmall { path, bytes });
        }
        if !bytes.is_multiple_of(SECTOR) {
            return Err(ImageError::Uneven { path, bytes });
        }
        Ok(Self { file, sectors: bytes / SECTOR })
    }

    /// Over a file of this process's own, which nobody else can have: its whole sectors.
    ///
    /// # Errors
    /// Its size cannot be told.
    pub fn over(file: File) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR;
        Ok(Self { file, sectors })
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

fn open_error(path: PathBuf, access: DiskAccess, source: io::Error) -> ImageError {
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
        io::ErrorKind::IsADirectory => "; give a raw image file",
        _ => "",
    };
    ImageError::Open { path, what, source, remedy }
}

impl Storage for RawImage {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, access: DiskAccess) -> Result<RawImage, ImageError> {
        RawImage::open(path, access, Trust::Recognized)
    }

    /// A file of `bytes` that goes away again.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, bytes: u64) -> Self {
            let path = std::env::temp_dir().join(format!("gemello-{}-{name}", std::process::id()));
            File::create(&path).and_then(|file| file.set_len(bytes)).expect("a scratch file");
            Self(path)
        }

        fn refusal(&self, access: DiskAccess) -> String {
            open(&self.0, access).expect_err("refused").to_string()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn sizes_that_no_disk_has_are_refused_with_a_remedy() {
        let empty = Scratch::new("empty", 0);
        assert!(empty.refusal(DiskAccess::ReadWrite).contains("0 bytes, less than a sector"));
        let uneven = Scratch::new("uneven", 1025);
        let text = uneven.refusal(DiskAccess::ReadOnly);
        assert!(text.contains("1025 bytes") && text.contains("a copy of it"), "{text}");
        let good = Scratch::new("good", 1024);
        assert_eq!(open(&good.0, DiskAccess::ReadWrite).expect("good").sectors(), 2);
    }

    /// Also where its size would be refused, with a remedy that suits raw images alone.
    #[test]
    fn another_format_is_refused_by_name_unless_its_bytes_are_insisted_on() {
        for (bytes, wanted) in [(1024, 2), (560, 0), (100, 0)] {
            let disk = Scratch::new("foreign", bytes);
            let file = OpenOptions::new().write(true).open(&disk.0).expect("a scratch file");
            file.write_all_at(b"QFI\xfb\0\0\0\x03", 0).expect("written");
            for access in [DiskAccess::ReadWrite, DiskAccess::ReadOnly] {
                let text = disk.refusal(access);
                assert!(text.contains("is a qcow2 image") && text.contains("new file"), "{text}");
            }
            match RawImage::open(&disk.0, DiskAccess::ReadWrite, Trust::Raw) {
                Ok(raw) => assert_eq!(raw.sectors(), wanted),
                Err(error) => {
                    assert!(wanted == 0 && error.to_string().contains("bytes"), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_or_no_file_is_named() {
        let missing = Path::new("/nonexistent/disk.img");
        let text = open(missing, DiskAccess::ReadWrite).expect_err("missing").to_string();
        assert!(text.contains("/nonexistent/disk.img for reading and writing"), "{text}");
        assert!(text.contains("create an image"), "{text}");
        let text = open(Path::new("/"), DiskAccess::ReadOnly).expect_err("a directory").to_string();
        assert!(text.contains("it is a directory"), "{text}");
        let text =
            open(Path::new("/"), DiskAccess::ReadWrite).expect_err("a directory").to_string();
        assert!(text.contains("give a raw image file"), "{text}");
        let text =
            open(Path::new("/dev/null"), DiskAccess::ReadOnly).expect_err("no disk").to_string();
        assert!(text.contains("it is a character device"), "{text}");
    }

    #[test]
    fn a_disk_that_is_written_belongs_to_one_machine() {
        let disk = Scratch::new("busy", 1024);
        let first = open(&disk.0, DiskAccess::ReadWrite).expect("free");
        assert!(disk.refusal(DiskAccess::ReadWrite).contains("is in use; end the machine"));
        assert!(disk.refusal(DiskAccess::ReadOnly).contains("is in use"));
        drop(first);
        let _readers =
            [DiskAccess::ReadOnly; 2].map(|access| open(&disk.0, access).expect("shared"));
        assert!(disk.refusal(DiskAccess::ReadWrite).contains("is in use"));
    }
}
