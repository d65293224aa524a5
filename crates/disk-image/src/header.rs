//! What the header of a qcow2 image says that decides whether it is opened, and with which files
//! (docs/interop/qcow2.txt of QEMU). The rest is imago's.

use super::SECTOR;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The header extension that names the backing file's format.
const BACKING_FORMAT: u32 = 0xE279_2ACA;
/// Bytes of a name in a header at the most.
const NAME_MAX: u32 = 1023;
/// Extensions that are looked at: more is no header.
const EXTENSIONS: usize = 64;

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Bytes of a cluster.
    pub(crate) cluster: u32,
    pub(crate) snapshots: u32,
    pub(crate) encrypted: bool,
    /// A reference count has two to this power bits.
    pub(crate) refcount_order: u32,
    /// Where the refcount table is, and its bytes.
    pub(crate) refcount_table: (u64, u64),
    /// Where the L1 table is, and its bytes.
    pub(crate) level1: (u64, u64),
    pub(crate) backing: Option<BackingName>,
}

/// The backing file that a header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackingName {
    pub(crate) name: String,
    /// The format, where it says one.
    pub(crate) format: Option<String>,
}

impl Header {
    /// The header of `file`, or what is wrong with it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(file: &File) -> io::Result<Result<Self, String>> {
        let mut fixed = [0; 104];
        let there = file.read_at(&mut fixed, 0)?;
        if there < 72 {
            return Ok(Err(format!("its header ends after {there} bytes")));
        }
        let half = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| fixed[at + i]));
        let whole = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| fixed[at + i]));
        let (version, bits, size) = (half(4), half(20), whole(24));
        if !(2..=3).contains(&version) {
            return Ok(Err(format!("it has version {version}; 2 and 3 are known")));
        }
        if !(9..=21).contains(&bits) {
            return Ok(Err(format!("its clusters have 2^{bits} bytes; 2^9 to 2^21 are allowed")));
        }
        if size < SECTOR || !size.is_multiple_of(SECTOR) || size > 1 << 56 {
            return Ok(Err(format!("a disk of {size} bytes is none, or has no whole sectors")));
        }
        let extensions = if version == 2 { 72 } else { u64::from(half(100)) };
        let backing = match (whole(8), half(16)) {
            (0, _) | (_, 0) => None,
            (_, len) if len > NAME_MAX => {
                return Ok(Err(format!("its backing file's name has {len} bytes")));
            }
            (at, len) => {
                let mut name = vec![0; len as usize];
                file.read_exact_at(&mut name, at)?;
                let Ok(name) = String::from_utf8(name) else {
                    return Ok(Err("its backing file's name is no text".to_owned()));
                };
                Some(BackingName { name, format: backing_format(file, extensions)? })
            }
        };
        let cluster = 1 << bits;
        Ok(Ok(Self {
            version,
            size,
            cluster,
            snapshots: half(60),
            encrypted: half(32) != 0,
            refcount_order: if version == 2 { 4 } else { half(96) },
            refcount_table: (whole(48), u64::from(half(56)) * u64::from(cluster)),
            level1: (whole(40), u64::from(half(36)) * 8),
            backing,
        }))
    }
}

/// The backing file's format, from the extensions at `at`.
fn backing_format(file: &File, mut at: u64) -> io::Result<Option<String>> {
    for _ in 0..EXTENSIONS {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at)?;
        let half = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let (kind, len) = (half(0), half(4));
        match kind {
            0 => return Ok(None),
            BACKING_FORMAT if len <= NAME_MAX => {
                let mut name = vec![0; len as usize];
                file.read_exact_at(&mut name, at + 8)?;
                return Ok(String::from_utf8(name).ok());
            }
            _ => at = at.saturating_add(8 + u64::from(len).next_multiple_of(8)),
        }
    }
    Ok(None)
}
