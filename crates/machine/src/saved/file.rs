//! A whole machine in a file: what it is made of, its state, what it boots when it is reset, its
//! memory and the disks that are its own.
//!
//! ```text
//! "gemello machine\n"   16 bytes
//! version               u32
//! length of the header  u32, then the header as JSON: [`Header`]
//! areas                 of each boot file that is inside, in the header's order; of the memory; of
//!                       each scratch disk, in their order
//! checksum              CRC-32 of all before, u32
//! ```
//! Numbers are little-endian. [`super::area`] says what an area is. A file is written under another
//! name and renamed when it is whole.

use super::area::{Reader, Stored, Writer};
use super::state::{MachineState, RestoreError};
use crate::boot_files::{BootFile, SavedFile};
use crate::config::{self, BootConfig, Hardware};
use memory::GuestRam;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use x86::addr::Gpa;

const MAGIC: &[u8; 16] = b"gemello machine\n";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 3;
/// A header is no larger.
const HEADER_MAX: u32 = 16 << 20;
/// Boot files that are inside have no more bytes together.
const INSIDE_MAX: usize = 1 << 30;

/// What stands before the memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// What the machine is made of.
    pub hardware: Hardware,
    /// Its state.
    pub state: MachineState,
    /// What it boots when it is reset.
    pub boot: BootConfig<SavedFile>,
    /// What the program that saved it wants to find again, as it likes.
    pub session: serde_json::Value,
}

impl Header {
    /// The host's files that the machine boots from when it is reset.
    pub fn boot_paths(&self) -> impl Iterator<Item = &Path> {
        self.boot.files().filter_map(|file| match file {
            SavedFile::Host { path, .. } => Some(&**path),
            SavedFile::Inside { .. } | SavedFile::Lost { .. } => None,
        })
    }
}

/// The version of a [`Header`], readable in every version.
#[derive(Deserialize)]
struct Versions {
    state: Versioned,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a machine cannot be saved to a file, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The host refuses.
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io {
        /// "write", "read", …
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else.
    #[error("{} is no saved machine; gemello did not write it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// From another version.
    #[error(
        "{} has version {found}, and this gemello reads {VERSION}; use the gemello that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It ends too soon, or was changed.
    #[error("{} is damaged: {what}; save the machine anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// The state does not fit the machine.
    #[error("{}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RestoreError,
    },
}

/// What follows a header.
pub(crate) struct Content<'a> {
    /// The boot files that are inside.
    pub(crate) inside: Vec<&'a [u8]>,
    pub(crate) ram: &'a GuestRam,
    pub(crate) scratch: Vec<&'a File>,
}

/// How safe a file is once it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As long as the host runs: after that it may be damaged, which shows. Written and read at
    /// once, in twice the room.
    InCache,
    /// On the disk.
    OnDisk,
}

/// Writes a machine to `path`, whole or not at all. The machine stands still.
///
/// # Errors
/// The host refuses; what was at `path` is still there.
pub(crate) fn write(
    path: &Path,
    header: &Header,
    content: &Content<'_>,
    kept: Kept,
) -> Result<(), FileError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = |source| FileError::Io { attempt: "write", path: path.to_owned(), source };
    let file = create(&partial).map_err(failed)?;
    let written = write_to(file, header, content, kept).and_then(|file| match kept {
        Kept::InCache => Ok(()),
        Kept::OnDisk => file.sync_all(),
    });
    let result = written.and_then(|()| std::fs::rename(&partial, path));
    result.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        failed(source)
    })
}

/// A new file, for its owner alone: guest memory holds secrets.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn write_to(file: File, header: &Header, content: &Content<'_>, kept: Kept) -> io::Result<File> {
    let Content { inside, ram, scratch } = content;
    let stored = match kept {
        Kept::InCache => Stored::Plain,
        Kept::OnDisk => Stored::Compressed,
    };
    let mut out = Writer::new(BufWriter::with_capacity(1 << 20, file), stored);
    let header = serde_json::to_vec(header)?;
    out.bytes(MAGIC)?;
    out.bytes(&VERSION.to_le_bytes())?;
    out.bytes(&(header.len() as u32).to_le_bytes())?;
    out.bytes(&header)?;
    for bytes in inside {
        out.stream(bytes)?;
    }
    let regions = ram.regions().iter().map(|region| (region.gpa.0, region.len));
    out.sparse(regions, |at, into| {
        ram.read(Gpa(at), into).map_err(io::Error::other)?;
        ram.settle();
        Ok(())
    })?;
    for file in scratch {
        let all = std::iter::once((0, file.metadata()?.len()));
        out.sparse(all, |at, into| file.read_exact_at(into, at))?;
    }
    out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
}

/// A saved machine whose header has been read.
#[derive(Debug)]
pub struct SavedMachine {
    /// What was read.
    pub header: Header,
    path: PathBuf,
    rest: Reader<BufReader<File>>,
}

impl SavedMachine {
    /// Opens the machine in the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is no saved machine, or another version's, or damaged.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io { attempt: "read", path: path.to_owned(), source };
        let file = File::options().read(true).open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(FileError::Foreign { path: path.to_owned() });
        }
        let mut rest = Reader::new(BufReader::with_capacity(1 << 20, file));
        let mut magic = [0; MAGIC.len()];
        if rest.bytes(&mut magic).is_err() || magic != *MAGIC {
            return Err(FileError::Foreign { path: path.to_owned() });
        }
        let damaged = |what: String| FileError::Damaged { path: path.to_owned(), what };
        let short = |error: io::Error| damaged(error.to_string());
        let found = rest.word().map_err(short)?;
        if found != VERSION {
            return Err(FileError::Version { path: path.to_owned(), found });
        }
        let len = rest.word().map_err(short)?;
        if len > HEADER_MAX {
            return Err(damaged(format!("its header is said to have {len} bytes")));
        }
        let mut bytes = vec![0; len as usize];
        rest.bytes(&mut bytes).map_err(short)?;
        let unreadable = |error| damaged(format!("its header: {error}"));
        // First the version alone: the rest may have any form in another one.
        let Versions { state: Versioned { version } } =
            serde_json::from_slice(&bytes).map_err(unreadable)?;
        if version != super::state::VERSION {
            let source = RestoreError::Version { found: version };
            return Err(FileError::State { path: path.to_owned(), source });
        }
        let header = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Ok(Self { header, path: path.to_owned(), rest })
    }

    /// Whether the file at `path` begins as a saved machine does.
    pub fn is_one(path: &Path) -> bool {
        let file = std::fs::symlink_metadata(path).is_ok_and(|data| data.is_file());
        let mut magic = [0; 16];
        let read = |magic: &mut [u8]| File::open(path).and_then(|mut file| file.read_exact(magic));
        file && read(&mut magic).is_ok() && magic == *MAGIC
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the boot files that are inside: what the machine boots when it is reset. To be called
    /// once, and before [`Self::load`].
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn boot(&mut self) -> Result<BootConfig<BootFile>, FileError> {
        let Self { header, path, rest } = self;
        let mut room = INSIDE_MAX;
        let read = header.boot.try_map(|file| -> io::Result<BootFile> {
            let SavedFile::Inside { name } = file else {
                return Ok(BootFile::Saved(file.clone()));
            };
            let bytes = rest.stream(room)?;
            room -= bytes.len();
            Ok(BootFile::Current(config::File::Bytes { name: name.clone(), bytes: bytes.into() }))
        });
        read.map_err(|error| damaged(path, &error))
    }

    /// Reads the memory into `ram`, and into `scratch` what the disks hold; all hold zeros. Checks
    /// that the file is whole.
    ///
    /// # Errors
    /// It is damaged; `ram` and `scratch` hold a part.
    pub(crate) fn load(&mut self, ram: &GuestRam, scratch: &[&File]) -> Result<(), FileError> {
        self.load_areas(ram, scratch).map_err(|error| damaged(&self.path, &error))
    }

    fn load_areas(&mut self, ram: &GuestRam, scratch: &[&File]) -> io::Result<()> {
        self.rest.sparse(|at, bytes| {
            ram.write(Gpa(at), bytes).map_err(io::Error::other)?;
            ram.settle();
            Ok(())
        })?;
        for disk in scratch {
            let len = disk.metadata()?.len();
            self.rest.sparse(|at, bytes| {
                let end = at.checked_add(bytes.len() as u64);
                if end.is_none_or(|end| end > len) {
                    return Err(io::Error::other("more than its scratch disk holds"));
                }
                disk.write_all_at(bytes, at)
            })?;
        }
        self.rest.finish()
    }
}

fn damaged(path: &Path, error: &io::Error) -> FileError {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too soon".to_owned(),
        _ => error.to_string(),
    };
    FileError::Damaged { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::device::{Device, Scratch};
    use crate::{Lines, Machine};
    use engine_soft::SoftEngine;

    fn config() -> Config {
        let small = super::super::fuzz::config();
        let boot = BootConfig { cmdline: "a b".into(), ..small.boot };
        let disks = [1 << 20, 3 << 20].map(Scratch::zeros);
        let seed = Scratch::read_only(b"seed".repeat(1024).into());
        let devices = disks.into_iter().chain([seed]).map(Device::Scratch).collect();
        Config { boot, devices, debug_exit: false, ..small }
    }

    #[test]
    fn scratch_disks_and_what_was_booted_come_back() {
        let (config, engine) = (config(), SoftEngine::default());
        let machine = Machine::build(&config, Lines::default(), &engine).expect("built");
        let places = [(0, 0), (0, (1 << 20) - 5), (1, 0x12345), (1, (3 << 20) - 5)];
        for (disk, at) in places {
            machine.board.scratch()[disk].write_all_at(b"hello", at).expect("room");
        }
        let path = std::env::temp_dir().join(format!("gemello-scratches-{}", std::process::id()));
        let session = || serde_json::Value::Null;
        machine.handle().save_to(&path, &config.hardware(), session).expect("saved");
        assert!(std::fs::metadata(&path).expect("a file").len() < 1 << 20, "zeros are stored");

        let mut saved = SavedMachine::open(&path).expect("what was saved");
        let mut expected = config.hardware();
        expected.devices[2] = Device::Scratch(Scratch {
            bytes: 4096,
            read_only: true,
            ..Scratch::zeros(0) // what it holds is in an area
        });
        assert_eq!(saved.header.hardware, expected);
        let restored = Machine::from_saved(&mut saved, Lines::default(), &engine).expect("whole");
        for (disk, (before, after)) in
            machine.board.scratch().into_iter().zip(restored.board.scratch()).enumerate()
        {
            let content = |file: &File| {
                let mut bytes = vec![0; file.metadata().expect("a file").len() as usize];
                file.read_exact_at(&mut bytes, 0).expect("all of it");
                bytes
            };
            assert!(content(before) == content(after), "disk {disk} differs");
            let held: &[u8] = if disk < 2 { b"hello" } else { b"seed" };
            assert!(content(after).windows(held.len()).any(|bytes| bytes == held));
        }
        assert_eq!(restored.board.boot.cmdline, "a b");
        let kernel = restored.board.boot.kernel.inside().expect("bytes");
        assert_eq!(Some(kernel), machine.board.boot.kernel.inside());
        // A smaller disk than what is to be put on it.
        let mut saved = SavedMachine::open(&path).expect("what was saved");
        saved.header.hardware.devices[1] = Device::Scratch(Scratch::zeros(1 << 20));
        let refused = Machine::from_saved(&mut saved, Lines::default(), &engine);
        let refused = refused.expect_err("too much for it").to_string();
        assert!(refused.contains("scratch disk"), "{refused}");
        std::fs::remove_file(&path).expect("it is there");
    }
}
