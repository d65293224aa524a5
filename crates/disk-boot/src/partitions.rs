//! Where on a disk file systems may be: its GPT (UEFI 2.10, 5.3), its MBR (5.2.1, with the logical
//! partitions of an extended one), or the whole disk.

use disk_image::{SECTOR, Storage};
use std::ops::Range;

/// Partitions looked at, at the most.
const MOST: usize = 128;
/// A boot record's last two bytes.
const SIGNATURE: [u8; 2] = [0x55, 0xAA];
/// Where its four entries are, 16 bytes each: the type at 4, the first sector at 8, sectors at 12.
const ENTRIES: usize = 446;
/// The type of a partition that stands for a GPT.
const PROTECTIVE: u8 = 0xEE;
/// The types of a partition that holds others.
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
/// A GPT header: its magic, where the entries are (72), how many (80), and the bytes of each (84).
const GPT: &[u8; 8] = b"EFI PART";
/// The type of an x86-64 system's root, 4f68bce3-e8cd-4db1-96e7-fbcaf984b709 (UAPI.2,
/// "Discoverable Partitions Specification").
const ROOT: [u8; 16] = [
    0xE3, 0xBC, 0x68, 0x4F, 0xCD, 0xE8, 0xB1, 0x4D, 0x96, 0xE7, 0xFB, 0xCA, 0xF9, 0x84, 0xB7, 0x09,
];

/// A partition.
pub(crate) struct Partition {
    /// Its bytes, all on the disk.
    pub(crate) range: Range<u64>,
    /// Its identity, as in `root=PARTUUID=`, if its type says that it is an x86-64 system's root.
    pub(crate) root: Option<String>,
}

/// The partitions of `disk` in their tables' order; without any, the whole disk.
pub(crate) fn find(disk: &dyn Storage) -> Vec<Partition> {
    let end = disk.sectors();
    let mut found = table(disk);
    found.retain(|(part, _)| part.start < part.end && part.end <= end);
    found.truncate(MOST);
    if found.is_empty() {
        found.push((0..end, None));
    }
    let in_bytes =
        |(part, root): Found| Partition { range: part.start * SECTOR..part.end * SECTOR, root };
    found.into_iter().map(in_bytes).collect()
}

/// Sectors, and what [`Partition::root`] says.
type Found = (Range<u64>, Option<String>);

fn sector(disk: &dyn Storage, at: u64) -> Option<[u8; SECTOR as usize]> {
    let mut bytes = [0; SECTOR as usize];
    let there = at < disk.sectors() && disk.read(at * SECTOR, &mut bytes).is_ok();
    there.then_some(bytes)
}

fn table(disk: &dyn Storage) -> Vec<Found> {
    let Some(first) = sector(disk, 0).filter(|bytes| bytes.ends_with(&SIGNATURE)) else {
        return Vec::new();
    };
    let entries = records(&first);
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return gpt(disk).unwrap_or_default();
    }
    let mut found = Vec::new();
    for entry in entries {
        match entry.kind {
            0 => {}
            kind if EXTENDED.contains(&kind) => logical(disk, entry.first, &mut found),
            _ => found.push((entry.at(0), None)),
        }
    }
    found
}

/// An entry of a boot record.
struct Record {
    kind: u8,
    first: u64,
    count: u64,
}

impl Record {
    fn at(&self, base: u64) -> Range<u64> {
        base + self.first..base + self.first + self.count
    }
}

fn records(bytes: &[u8; SECTOR as usize]) -> [Record; 4] {
    std::array::from_fn(|n| {
        let at = ENTRIES + 16 * n;
        Record {
            kind: bytes[at + 4],
            first: u64::from(word(bytes, at + 8)),
            count: u64::from(word(bytes, at + 12)),
        }
    })
}

/// The chain of boot records in the extended partition at sector `base`: each has one partition,
/// and leads to the next.
fn logical(disk: &dyn Storage, base: u64, found: &mut Vec<Found>) {
    let mut at = base;
    for _ in 0..MOST {
        let Some(bytes) = sector(disk, at).filter(|bytes| bytes.ends_with(&SIGNATURE)) else {
            return;
        };
        let [partition, next, ..] = records(&bytes);
        if partition.kind != 0 {
            found.push((partition.at(at), None));
        }
        if !EXTENDED.contains(&next.kind) {
            return;
        }
        at = base + next.first;
    }
}

fn gpt(disk: &dyn Storage) -> Option<Vec<Found>> {
    let header = sector(disk, 1).filter(|bytes| bytes.starts_with(GPT))?;
    let (start, count, size) = (long(&header, 72), word(&header, 80), word(&header, 84));
    // The specification has a size of 128 times a power of two; all that exist have 128.
    let fits = size >= 128 && u64::from(size) <= SECTOR && SECTOR.is_multiple_of(u64::from(size));
    let each = fits.then(|| SECTOR / u64::from(size))?;
    let mut found = Vec::new();
    for n in 0..u64::from(count).min(MOST as u64) {
        let bytes = sector(disk, start.checked_add(n / each)?)?;
        let entry = &bytes[(n % each) as usize * size as usize..];
        if entry[..16] != [0; 16] {
            let root = entry.starts_with(&ROOT).then(|| identity(&entry[16..32]));
            found.push((long(entry, 32)..long(entry, 40).checked_add(1)?, root));
        }
    }
    Some(found)
}

/// A GUID as text: the first three numbers have their bytes in reverse (UEFI 2.10, appendix A).
fn identity(bytes: &[u8]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text: String = order.into_iter().map(|at| format!("{:02x}", bytes[at])).collect();
    [8, 13, 18, 23].into_iter().for_each(|at| text.insert(at, '-'));
    text
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
