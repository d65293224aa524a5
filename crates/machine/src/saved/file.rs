//! A whole machine in a file: what it is made of, its state, its memory.
//!
//! ```text
//! "gemello machine\n"   16 bytes
//! version               u32
//! length of the header  u32, then the header as JSON: [`Header`]
//! chunks of memory      guest-physical address u64, stored bytes u32, then those bytes (LZ4 block
//!                       of CHUNK bytes)
//! end of memory         address u64 = !0
//! checksum              CRC-32 of all before, u32
//! ```
//! Numbers are little-endian. Chunks that hold only zeros are left out. A file is written under
//! another name and renamed when it is whole.

use super::state::{MachineState, RestoreError};
use crate::config::Hardware;
use memory::GuestRam;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use x86::addr::Gpa;

const MAGIC: &[u8; 16] = b"gemello machine\n";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Bytes of memory that are stored together.
const CHUNK: usize = 64 << 10;
/// In place of an address: no more chunks.
const END: u64 = u64::MAX;
/// A header is no larger.
const HEADER_MAX: u32 = 16 << 20;

/// What stands before the memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// What the machine is made of.
    pub hardware: Hardware,
    /// Its state.
    pub state: MachineState,
    /// What the program that saved it wants to find again, as it likes.
    pub session: serde_json::Value,
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

/// Writes a machine's header and memory to `path`, whole or not at all. The machine stands still.
///
/// # Errors
/// The host refuses; what was at `path` is still there.
pub(crate) fn write(path: &Path, header: &Header, ram: &GuestRam) -> Result<(), FileError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = |source| FileError::Io { attempt: "write", path: path.to_owned(), source };
    let file = create(&partial).map_err(failed)?;
    let result = write_to(file, header, ram).and_then(|()| std::fs::rename(&partial, path));
    result.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        failed(source)
    })
}

/// A new file, for its owner alone: guest memory holds secrets.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn write_to(file: File, header: &Header, ram: &GuestRam) -> io::Result<()> {
    let mut out =
        Summed { inner: BufWriter::with_capacity(1 << 20, file), crc: crc32fast::Hasher::new() };
    let header = serde_json::to_vec(header)?;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&(header.len() as u32).to_le_bytes())?;
    out.write_all(&header)?;
    let (mut chunk, mut packed) =
        (vec![0; CHUNK], vec![0; lz4_flex::block::get_maximum_output_size(CHUNK)]);
    for (gpa, len) in chunks(ram) {
        let chunk = &mut chunk[..len];
        ram.read(Gpa(gpa), chunk).map_err(io::Error::other)?;
        ram.settle();
        if chunk.iter().all(|&byte| byte == 0) {
            continue;
        }
        let size = lz4_flex::block::compress_into(chunk, &mut packed).map_err(io::Error::other)?;
        out.write_all(&gpa.to_le_bytes())?;
        out.write_all(&(size as u32).to_le_bytes())?;
        out.write_all(&packed[..size])?;
    }
    out.write_all(&END.to_le_bytes())?;
    let sum = out.crc.clone().finalize();
    out.write_all(&sum.to_le_bytes())?;
    out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Where each chunk of RAM begins, and its bytes.
fn chunks(ram: &GuestRam) -> impl Iterator<Item = (u64, usize)> {
    ram.regions().iter().flat_map(|region| {
        let (gpa, len) = (region.gpa, region.len);
        (0..len).step_by(CHUNK).map(move |at| (gpa.0 + at, CHUNK.min((len - at) as usize)))
    })
}

/// A saved machine whose header has been read.
#[derive(Debug)]
pub struct SavedMachine {
    /// What was read.
    pub header: Header,
    path: PathBuf,
    rest: Summed<BufReader<File>>,
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
        let mut rest = Summed {
            inner: BufReader::with_capacity(1 << 20, file),
            crc: crc32fast::Hasher::new(),
        };
        let mut magic = [0; 16];
        if rest.read_exact(&mut magic).is_err() || magic != *MAGIC {
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
        rest.read_exact(&mut bytes).map_err(short)?;
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

    /// Reads the memory into `ram`, which holds zeros, and checks that the file is whole.
    ///
    /// # Errors
    /// It is damaged; `ram` holds a part.
    pub(crate) fn load(&mut self, ram: &GuestRam) -> Result<(), FileError> {
        self.load_chunks(ram).map_err(|error| FileError::Damaged {
            path: self.path.clone(),
            what: match error.kind() {
                io::ErrorKind::UnexpectedEof => "it ends too soon".to_owned(),
                _ => error.to_string(),
            },
        })
    }

    fn load_chunks(&mut self, ram: &GuestRam) -> io::Result<()> {
        let (mut packed, mut chunk) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let gpa = self.rest.long()?;
            if gpa == END {
                break;
            }
            let size = self.rest.word()? as usize;
            if size > lz4_flex::block::get_maximum_output_size(CHUNK) {
                return Err(io::Error::other(format!("a chunk is said to have {size} bytes")));
            }
            packed.resize(size, 0);
            self.rest.read_exact(&mut packed)?;
            let len =
                lz4_flex::block::decompress_into(&packed, &mut chunk).map_err(io::Error::other)?;
            ram.write(Gpa(gpa), &chunk[..len]).map_err(io::Error::other)?;
            ram.settle();
        }
        let sum = self.rest.crc.clone().finalize();
        if self.rest.word()? != sum {
            return Err(io::Error::other("its checksum is wrong"));
        }
        match self.rest.inner.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("more follows after its end")),
        }
    }
}

/// A stream whose bytes are summed up.
struct Summed<S> {
    inner: S,
    crc: crc32fast::Hasher,
}

impl<S> std::fmt::Debug for Summed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summed").finish_non_exhaustive()
    }
}

impl<S: Write> Write for Summed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.crc.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Read> Summed<S> {
    fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(into)?;
        self.crc.update(into);
        Ok(())
    }

    fn word(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn long(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
