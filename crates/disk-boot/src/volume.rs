//! A file system on a part of a disk: ext4 (ext2 and ext3, too) or FAT.

use crate::fat::Fat;
use crate::part::Part;
use disk_image::{SECTOR, Storage};
use ext4_view::{Ext4, Ext4Read, FileType};
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

/// Names of a folder at the most that are looked at.
const NAMES_MAX: usize = 4096;
/// Bytes of a configuration at the most.
const TEXT_MAX: u64 = 1 << 20;

pub(crate) enum Volume {
    Ext4(Box<Ext4>),
    Fat(Box<Fat>),
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(Self::read(self, start, into)?)
    }
}

impl Volume {
    /// The file system on `range` of `disk`, if it is one that is known.
    pub(crate) fn open(disk: &Arc<dyn Storage>, range: Range<u64>) -> Option<Self> {
        let part = || Part::new(disk, range.clone());
        match Ext4::load(Box::new(part())) {
            Ok(files) => Some(Self::Ext4(Box::new(files))),
            Err(_) => Some(Self::Fat(Box::new(Fat::open(part())?))),
        }
    }

    /// Whether it is FAT, as a firmware reads it.
    pub(crate) fn is_fat(&self) -> bool {
        matches!(self, Self::Fat(_))
    }

    /// What the boot loader calls it: its UUID, as in `root=UUID=`.
    pub(crate) fn uuid(&self) -> String {
        match self {
            Self::Ext4(files) => files.uuid().to_string(),
            Self::Fat(files) => files.uuid(),
        }
    }

    /// The content of the regular file at `path`, symbolic links followed, of no more than `most`
    /// bytes.
    pub(crate) fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let files = match self {
            Self::Ext4(files) => files,
            Self::Fat(files) => return files.read(path, most),
        };
        let about = files.metadata(path).map_err(|error| error.to_string())?;
        if about.file_type() != FileType::Regular {
            return Err("it is no file".into());
        }
        if about.len() > most {
            return Err(format!("it has {} bytes, more than anything that boots", about.len()));
        }
        files.read(path).map_err(|error| error.to_string())
    }

    /// A configuration, if it is there.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path, TEXT_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in the folder at `path`.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let files = match self {
            Self::Ext4(files) => files,
            Self::Fat(files) => {
                let mut names = files.names(path).unwrap_or_default();
                names.truncate(NAMES_MAX);
                return names;
            }
        };
        let Ok(entries) = files.read_dir(path) else { return Vec::new() };
        let entries = entries.take(NAMES_MAX).map_while(Result::ok);
        let name = |entry: ext4_view::DirEntry| Some(entry.file_name().as_str().ok()?.to_owned());
        entries.filter_map(name).collect()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Self::Ext4(files) => files.exists(path).unwrap_or(false),
            Self::Fat(files) => files.has(path),
        }
    }
}

/// Where other file systems have their magic.
const OTHERS: [(&str, u64, &[u8]); 5] = [
    ("XFS", 0, b"XFSB"),
    ("Btrfs", 0x1_0040, b"_BHRfS_M"),
    ("LVM", 536, b"LVM2"),
    ("an encrypted volume", 0, b"LUKS\xBA\xBE"),
    ("NTFS", 3, b"NTFS"),
];

/// What is on `range` of `disk` that cannot be read, if that is known.
pub(crate) fn name_of(disk: &dyn Storage, range: Range<u64>) -> Option<&'static str> {
    let is = |&(_, at, magic): &(&str, u64, &[u8])| {
        let at = range.start + at;
        let mut bytes = [0; SECTOR as usize];
        let from = at / SECTOR * SECTOR;
        let within = from + SECTOR <= range.end;
        let place = (at - from) as usize;
        within && disk.read(from, &mut bytes).is_ok() && bytes[place..].starts_with(magic)
    };
    OTHERS.iter().find(|other| is(other)).map(|other| other.0)
}
