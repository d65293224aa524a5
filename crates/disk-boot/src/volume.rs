//! An ext4 file system (ext2 and ext3, too) on a part of a disk.

use disk_image::{SECTOR, Storage};
use ext4_view::{Ext4, Ext4Read, FileType};
use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Names of a folder at the most that are looked at.
const NAMES_MAX: usize = 4096;
/// Bytes of a configuration at the most.
pub(crate) const TEXT_MAX: u64 = 1 << 20;
/// What is kept of what was read last: metadata are read by the word.
const KEPT: u64 = 4096;

pub(crate) struct Volume {
    files: Ext4,
}

/// A part of a disk, by bytes.
struct Part {
    disk: Arc<dyn Storage>,
    range: Range<u64>,
    /// Bytes of the disk that are kept, and where they begin.
    kept: (u64, Vec<u8>),
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the partition's end");
        let end = start.checked_add(into.len() as u64).ok_or_else(outside)?;
        let len = self.range.end - self.range.start;
        if end > len {
            return Err(outside().into());
        }
        let (start, end) = (self.range.start + start, self.range.start + end);
        let (first, kept) = &mut self.kept;
        if start < *first || end > *first + kept.len() as u64 {
            let from = start / SECTOR * SECTOR;
            let to = end.max(from + KEPT).next_multiple_of(SECTOR).min(self.range.end);
            kept.resize((to - from) as usize, 0);
            self.disk.read(from, kept)?;
            *first = from;
        }
        let at = (start - *first) as usize;
        into.copy_from_slice(&kept[at..at + into.len()]);
        Ok(())
    }
}

impl Volume {
    /// The file system on `range` of `disk`, if it is one that is known.
    pub(crate) fn open(disk: &Arc<dyn Storage>, range: Range<u64>) -> Option<Self> {
        let part = Part { disk: Arc::clone(disk), range, kept: (0, Vec::new()) };
        Some(Self { files: Ext4::load(Box::new(part)).ok()? })
    }

    /// What the boot loader calls it: its UUID, as in `root=UUID=`.
    pub(crate) fn uuid(&self) -> String {
        self.files.uuid().to_string()
    }

    /// The content of the regular file at `path`, symbolic links followed, of no more than `most`
    /// bytes.
    pub(crate) fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let about = self.files.metadata(path).map_err(|error| error.to_string())?;
        if about.file_type() != FileType::Regular {
            return Err("it is no file".into());
        }
        if about.len() > most {
            return Err(format!("it has {} bytes, more than anything that boots", about.len()));
        }
        self.files.read(path).map_err(|error| error.to_string())
    }

    /// A configuration, if it is there.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path, TEXT_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in the folder at `path`.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = self.files.read_dir(path) else { return Vec::new() };
        let entries = entries.take(NAMES_MAX).map_while(Result::ok);
        let name = |entry: ext4_view::DirEntry| Some(entry.file_name().as_str().ok()?.to_owned());
        entries.filter_map(name).collect()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.exists(path).unwrap_or(false)
    }
}

/// Where other file systems have their magic.
const OTHERS: [(&str, u64, &[u8]); 6] = [
    ("XFS", 0, b"XFSB"),
    ("Btrfs", 0x1_0040, b"_BHRfS_M"),
    ("FAT", 82, b"FAT32"),
    ("LVM", 536, b"LVM2"),
    ("an encrypted volume", 0, b"LUKS\xBA\xBE"),
    ("NTFS", 3, b"NTFS"),
];

/// What is on `range` of `disk` in place of ext4, if that is known.
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
