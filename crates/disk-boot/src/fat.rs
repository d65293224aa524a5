//! A FAT file system, read ("Microsoft Extensible Firmware Initiative FAT32 File System
//! Specification", 1.03): FAT12, FAT16 and FAT32 with long names. An EFI system partition is one.
//!
//! It may say anything. A chain of clusters is followed for as long as the file or folder that it
//! belongs to may be, which ends one that leads back to itself.

use crate::part::Part;
use std::cell::RefCell;
use std::ops::Range;

/// Bytes of a folder at the most (6.1: 65 536 entries).
const FOLDER_MAX: u64 = 2 << 20;
/// Folders in folders at the most.
const DEPTH_MAX: usize = 16;
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
/// Bytes of a folder's entry.
const ENTRY: usize = 32;
/// Attributes of an entry (6): a volume's label, a folder, a part of a long name.
const LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const LONG: u8 = 0x0F;
/// Where an entry of a long name has characters (7), 13 in all.
const CHARACTERS: [Range<usize>; 3] = [1..11, 14..26, 28..32];
const UNITS: usize = 13;

pub(crate) struct Fat {
    part: RefCell<Part>,
    kind: Kind,
    /// Where the table begins, and the first cluster's content.
    table: u64,
    data: u64,
    /// Bytes of a cluster, and how many there are.
    cluster: u64,
    clusters: u32,
    root: Root,
    /// Its serial number, which Linux calls its UUID.
    serial: u32,
}

/// How wide a cluster's number is in the table.
#[derive(Clone, Copy)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the outermost folder is: at a place of its own, or in clusters.
#[derive(Clone)]
enum Root {
    At(Range<u64>),
    Cluster(u32),
}

/// What a folder has.
struct Item {
    name: String,
    is_folder: bool,
    first: u32,
    len: u64,
}

impl Fat {
    /// The file system on `part`, if it is one.
    pub(crate) fn open(mut part: Part) -> Option<Self> {
        let mut boot = [0; 512];
        part.read(0, &mut boot).ok()?;
        let sector = u64::from(half(&boot, 11));
        let per_cluster = u64::from(boot[13]);
        let is = boot.ends_with(&[0x55, 0xAA])
            && (512..=4096).contains(&sector)
            && sector.is_power_of_two()
            && per_cluster.is_power_of_two();
        if !is {
            return None;
        }
        let either = |short: u16, long: u32| if short == 0 { long } else { u32::from(short) };
        let (reserved, tables) = (u64::from(half(&boot, 14)), u64::from(boot[16]));
        let table_sectors = u64::from(either(half(&boot, 22), word(&boot, 36)));
        let root_bytes = u64::from(half(&boot, 17)) * ENTRY as u64;
        let total = u64::from(either(half(&boot, 19), word(&boot, 32)));
        let root_at = reserved + tables * table_sectors;
        let data = root_at + root_bytes.div_ceil(sector);
        let clusters = total.checked_sub(data)? / per_cluster;
        // As Linux tells FAT32: tools make it smaller than the specification has it.
        let kind = match clusters {
            0 => return None,
            _ if half(&boot, 22) == 0 => Kind::Fat32,
            1..4085 => Kind::Fat12,
            _ => Kind::Fat16,
        };
        let bits = match kind {
            Kind::Fat12 => 12,
            Kind::Fat16 => 16,
            Kind::Fat32 => 32,
        };
        let has_room = table_sectors * sector * 8 >= (clusters + 2) * bits;
        if reserved == 0 || tables == 0 || !has_room || total * sector > part.len() {
            return None;
        }
        let (root, serial) = match kind {
            Kind::Fat32 => (Root::Cluster(word(&boot, 44)), word(&boot, 67)),
            _ => {
                let at = root_at * sector;
                (Root::At(at..at + root_bytes), word(&boot, 39))
            }
        };
        Some(Self {
            part: RefCell::new(part),
            kind,
            table: reserved * sector,
            data: data * sector,
            cluster: per_cluster * sector,
            clusters: clusters.try_into().ok()?,
            root,
            serial,
        })
    }

    /// What Linux calls its UUID.
    pub(crate) fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xFFFF)
    }

    /// The content of the file at `path`, of no more than `most` bytes.
    pub(crate) fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, String> {
        let item = self.find(path)?.filter(|item| !item.is_folder).ok_or("it is no file")?;
        if item.len > most {
            return Err(format!("it has {} bytes, more than anything that boots", item.len));
        }
        let clusters = item.len.div_ceil(self.cluster);
        if clusters > u64::from(self.clusters) {
            return Err("it has more bytes than its file system".into());
        }
        let (runs, _) = self.runs(item.first, clusters)?;
        self.content(&runs, item.len)
    }

    /// The names in the folder at `path`.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let items = match self.find(path)? {
            None => self.items(&self.root)?,
            Some(item) if item.is_folder => self.items(&Root::Cluster(item.first))?,
            Some(_) => return Err("it is no folder".into()),
        };
        Ok(items.into_iter().map(|item| item.name).collect())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    /// What is at `path`, whatever its case; nothing: the outermost folder.
    fn find(&self, path: &str) -> Result<Option<Item>, String> {
        let mut found: Option<Item> = None;
        let words = path.split('/').filter(|word| !matches!(*word, "" | "."));
        for (depth, word) in words.enumerate() {
            let place = match &found {
                None => self.root.clone(),
                Some(item) if item.is_folder && depth <= DEPTH_MAX => Root::Cluster(item.first),
                Some(_) => return Err("a part of its path is no folder".into()),
            };
            let mut items = self.items(&place)?.into_iter();
            let same = |item: &Item| item.name.to_lowercase() == word.to_lowercase();
            found = Some(items.find(same).ok_or("there is no such file")?);
        }
        Ok(found)
    }

    /// What the folder at `place` has.
    fn items(&self, place: &Root) -> Result<Vec<Item>, String> {
        let runs = match place {
            Root::At(range) => vec![range.clone()],
            Root::Cluster(first) => match self.runs(*first, FOLDER_MAX.div_ceil(self.cluster))? {
                (runs, Chain::Ends) => runs,
                (_, Chain::GoesOn) => return Err("a folder of it has no end".into()),
            },
        };
        let len = runs.iter().map(|run| run.end - run.start).sum();
        Ok(items(&self.content(&runs, len)?))
    }

    /// The clusters from `first` on, `most` of them at the most, as ranges of bytes. That there are
    /// fewer is found where they are read.
    fn runs(&self, first: u32, most: u64) -> Result<(Vec<Range<u64>>, Chain), String> {
        let (mut runs, mut at): (Vec<Range<u64>>, _) = (Vec::new(), first);
        for _ in 0..most {
            let number = at.checked_sub(2).filter(|number| *number < self.clusters);
            let number = number.ok_or("its clusters lead out of its file system")?;
            let start = self.data + u64::from(number) * self.cluster;
            match runs.last_mut() {
                Some(last) if last.end == start => last.end += self.cluster,
                _ => runs.push(start..start + self.cluster),
            }
            match self.next(at)? {
                Some(next) => at = next,
                None => return Ok((runs, Chain::Ends)),
            }
        }
        Ok((runs, Chain::GoesOn))
    }

    /// The cluster that follows `cluster`.
    fn next(&self, cluster: u32) -> Result<Option<u32>, String> {
        let at = u64::from(cluster);
        let mut bytes = [0; 4];
        let (offset, len, last) = match self.kind {
            Kind::Fat12 => (at + at / 2, 2, 0xFF7),
            Kind::Fat16 => (at * 2, 2, 0xFFF7),
            Kind::Fat32 => (at * 4, 4, 0x0FFF_FFF7),
        };
        let mut part = self.part.borrow_mut();
        part.read(self.table + offset, &mut bytes[..len]).map_err(|error| error.to_string())?;
        let next = match (self.kind, u32::from_le_bytes(bytes)) {
            (Kind::Fat12, pair) if cluster.is_multiple_of(2) => pair & 0xFFF,
            (Kind::Fat12, pair) => pair >> 4,
            (Kind::Fat16, next) => next,
            (Kind::Fat32, next) => next & 0x0FFF_FFFF,
        };
        Ok((next <= last).then_some(next))
    }

    /// The first `len` bytes of `runs`.
    fn content(&self, runs: &[Range<u64>], len: u64) -> Result<Vec<u8>, String> {
        if runs.iter().map(|run| run.end - run.start).sum::<u64>() < len {
            return Err("its clusters end before it does".into());
        }
        let mut content = Vec::new();
        let mut part = self.part.borrow_mut();
        for run in runs {
            let mut start = run.start;
            while start < run.end {
                let count = (run.end - start).min(len - content.len() as u64).min(PIECE);
                if count == 0 {
                    return Ok(content);
                }
                let before = content.len();
                content.resize(before + count as usize, 0);
                let read = part.read(start, &mut content[before..]);
                read.map_err(|error| error.to_string())?;
                start += count;
            }
        }
        Ok(content)
    }
}

/// Whether a chain is at its end.
enum Chain {
    Ends,
    GoesOn,
}

/// What the entries of a folder say.
fn items(entries: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut long = LongName::default();
    for entry in entries.chunks_exact(ENTRY) {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (0xE5, _) => long = LongName::default(),
            (order, LONG) => long.take(order, entry),
            (_, attributes) => {
                let name = std::mem::take(&mut long).of(entry);
                let name = name.unwrap_or_else(|| short_name(entry));
                let first = u32::from(half(entry, 20)) << 16 | u32::from(half(entry, 26));
                let is_folder = attributes & FOLDER != 0;
                if attributes & LABEL == 0 {
                    items.push(Item { name, is_folder, first, len: word(entry, 28).into() });
                }
            }
        }
    }
    items
}

/// A long name, of which the last part comes first.
#[derive(Default)]
struct LongName {
    /// The parts so far, and the number of the one that came last.
    parts: Vec<[u16; UNITS]>,
    order: u8,
    /// Of the short name that it belongs to.
    checksum: u8,
}

impl LongName {
    fn take(&mut self, order: u8, entry: &[u8]) {
        const LAST: u8 = 0x40;
        let number = order & !LAST;
        if order & LAST != 0 {
            *self = Self { parts: Vec::new(), order: number, checksum: entry[13] };
        } else if number == 0 || number + 1 != self.order || entry[13] != self.checksum {
            return *self = Self::default();
        }
        self.order = number;
        let mut units = CHARACTERS.into_iter().flatten().step_by(2).map(|at| half(entry, at));
        self.parts.push(std::array::from_fn(|_| units.next().unwrap_or_default()));
    }

    /// The name, if it is whole and belongs to the short one in `entry`.
    fn of(self, entry: &[u8]) -> Option<String> {
        let sum = |sum: u8, byte: &u8| sum.rotate_right(1).wrapping_add(*byte);
        let whole = self.order == 1 && entry[..11].iter().fold(0, sum) == self.checksum;
        let units = self.parts.iter().rev().flatten().copied();
        let units: Vec<_> = units.take_while(|unit| *unit != 0).collect();
        whole.then(|| String::from_utf16_lossy(&units))
    }
}

/// Eight characters and three; two bits say that those or these are small letters.
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], bit: u8| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if entry[12] & bit == 0 { text } else { text.to_lowercase() }
    };
    match (part(&entry[..8], 0x08), part(&entry[8..11], 0x10)) {
        (name, extension) if extension.is_empty() => name,
        (name, extension) => format!("{name}.{extension}"),
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
