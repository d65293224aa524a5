//! A qcow2 image of a hostile author, and a guest on it: for property tests and for cargo-fuzz.
//!
//! The image is a small sound one, of any version and cluster size, in which header, tables and
//! names are then changed. Besides neither panicking nor hanging, a run keeps a promise: no file is
//! read or changed but the image, and what it is built on in its own folder; that is only read.

use disk_image::tools;
use disk_image::{DiskAccess, Image, ImageFormat, SECTOR, Space, Storage};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a change, and of a guest's request.
const STEP: usize = 8;
/// Changes and requests at the most.
const STEPS: usize = 64;
/// Sectors of the disk that is described.
const SECTORS: u64 = 512;
/// What nobody may see: 16 sectors begin so.
const SECRET: &[u8; 32] = b"nobody may see this, not a byte ";
/// What the image may be built on is made of.
const BASE: &[u8; 32] = b"everybody may see all bytes here";
/// Names of backing files.
const NAMES: [&str; 14] = [
    "base.img",
    "base.qcow2",
    "a.qcow2",
    "../secret",
    "link",
    "../outer/images/../secret",
    "./../secret",
    "file:../secret",
    "json:{\"file.filename\":\"../secret\"}",
    "nbd://127.0.0.1:1/",
    "/proc/self/exe",
    "/dev/zero",
    "",
    "x\u{0}../secret",
];
/// What a backing file is said to be.
const FORMATS: [&str; 4] = ["raw", "qcow2", "file", "vmdk"];
/// Where the header says how large something is, or where, and what is needed to read it.
const OFFSETS: [u64; 8] = [8, 24, 40, 48, 64, 72, 80, 88];
/// Where the parts of the image are, in clusters.
const REFCOUNT_TABLE: u64 = 1;
const REFCOUNTS: u64 = 2;
const LEVEL1: u64 = 3;
const LEVEL2: u64 = 4;
const DATA: u64 = 5;

/// A folder beside the images' one, which goes with it.
struct Outer(PathBuf);

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Outer {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-any-image-{}-{number}", std::process::id());
        // In memory, where a flush takes no time.
        let memory = Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
        let this = Self(memory.unwrap_or_else(std::env::temp_dir).join(name));
        fs::create_dir_all(this.images()).expect("a folder");
        fs::write(this.0.join("secret"), SECRET.repeat(256)).expect("written");
        fs::write(this.images().join("base.img"), BASE.repeat(256)).expect("written");
        symlink("../secret", this.images().join("link")).expect("made");
        this
    }

    fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// That nothing beside the image has changed.
    fn check(&self) {
        assert_eq!(fs::read(self.0.join("secret")).expect("there"), SECRET.repeat(256));
        assert_eq!(fs::read(self.images().join("base.img")).expect("there"), BASE.repeat(256));
        let names = |path: &Path| {
            let entries = fs::read_dir(path).expect("a folder");
            let names = entries.map(|entry| entry.expect("an entry").file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.0), ["images", "secret"]);
        assert_eq!(names(&self.images()), ["a.qcow2", "base.img", "link"]);
    }
}

/// An image in the making.
struct Draft {
    bytes: Vec<u8>,
    cluster: u64,
}

impl Draft {
    /// A sound image, of the version and the cluster size that `shape` chooses.
    fn new(shape: u8) -> Self {
        let bits = 9 + u32::from(shape >> 1 & 7);
        let cluster = 1_u64 << bits;
        let mut this = Self { bytes: vec![0; (cluster * (DATA + 2)) as usize], cluster };
        let version = 2 + u32::from(shape & 1);
        this.put(0, b"QFI\xfb");
        for (at, value) in [(4, version), (20, bits), (36, 1), (56, 1), (96, 4), (100, 104)] {
            this.put(at, &value.to_be_bytes());
        }
        // No more than one L2 table describes.
        let size = (SECTORS * SECTOR).min(cluster / 8 * cluster);
        let place = |number: u64| number * cluster;
        let header = [(24, size), (40, place(LEVEL1)), (48, place(REFCOUNT_TABLE))];
        let tables =
            [(place(REFCOUNT_TABLE), place(REFCOUNTS)), (place(LEVEL1), COPIED | place(LEVEL2))];
        let data = [(place(LEVEL2), COPIED | place(DATA)), (place(LEVEL2) + 8, place(DATA + 1))];
        for (at, value) in header.into_iter().chain(tables).chain(data) {
            this.put(at, &value.to_be_bytes());
        }
        for number in 0..DATA + 2 {
            this.put(place(REFCOUNTS) + 2 * number, &1_u16.to_be_bytes());
        }
        this
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let place = self.bytes.get_mut(at as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
    }

    /// Names a backing file, in the header's cluster.
    fn build_on(&mut self, name: &str, format: &str) {
        let at = 104 + 8 + format.len().next_multiple_of(8) as u64 + 8;
        self.put(104, &0xE279_2ACA_u32.to_be_bytes());
        self.put(108, &(format.len() as u32).to_be_bytes());
        self.put(112, format.as_bytes());
        self.put(8, &at.to_be_bytes());
        self.put(16, &(name.len() as u32).to_be_bytes());
        self.put(at, name.as_bytes());
    }

    /// Changes what `step` says.
    fn change(&mut self, step: &[u8; STEP]) {
        let &[kind, a, b, c, v0, v1, v2, v3] = step;
        let short = u64::from(u16::from_le_bytes([a, b]));
        let entry = short % (self.cluster / 8) * 8;
        // An entry that names a cluster in the file or just after it, or far away, with any flags.
        let number = u64::from(v0 % 12) << if v1 & 1 == 0 { 0 } else { v2 % 48 };
        let flags = u64::from(v3 >> 6) << 62 | u64::from(v3 & 1);
        let value = number.wrapping_mul(self.cluster) | flags;
        let small = u32::from_be_bytes([0, 0, v0, v1]) << (v2 % 17);
        match kind % 8 {
            0 => self.put(short % 128, &[v0]),
            1 => self.put(u64::from(c % 26) * 4, &small.to_be_bytes()),
            2 => self.put(OFFSETS[usize::from(c & 7)], &value.to_be_bytes()),
            3 => self.put(REFCOUNT_TABLE * self.cluster + entry, &value.to_be_bytes()),
            4 => self.put(REFCOUNTS * self.cluster + short % self.cluster, &[v0, v1][..1]),
            5 => self.put(LEVEL1 * self.cluster + entry, &value.to_be_bytes()),
            6 => self.put(LEVEL2 * self.cluster + entry, &value.to_be_bytes()),
            // Few entries are of any use, so those more often.
            _ => self.put(LEVEL2 * self.cluster + entry % 256, &value.to_be_bytes()),
        }
    }
}

/// A table's entry: nobody else uses the cluster.
const COPIED: u64 = 1 << 63;

/// Has a guest ask for what `step` says; the device lets through what is on the disk.
fn request(disk: &dyn Storage, step: &[u8; STEP], buffer: &mut [u8]) {
    let &[kind, a, b, c, d, length, ..] = step;
    let end = disk.sectors();
    let far = u64::from(d) << (c % 57);
    let sector = (u64::from(u16::from_le_bytes([a, b])).wrapping_add(far)) % end;
    let sectors = (u64::from(length) + 1).min(end - sector);
    let (offset, bytes) = (sector * SECTOR, sectors * SECTOR);
    let data = &mut buffer[..bytes as usize];
    let space = if d & 1 == 0 { Space::Keep } else { Space::GiveBack };
    let _ = match kind % 8 {
        0..3 => {
            data.fill(0);
            let read = disk.read(offset, data);
            assert!(!data.chunks_exact(512).any(|sector| sector.starts_with(SECRET)), "it is out");
            read
        }
        3 | 4 => {
            data.fill(d);
            disk.write(offset, data)
        }
        5 => disk.write_zeroes(offset, bytes, space),
        6 => disk.discard(offset, bytes),
        _ => disk.flush(),
    };
}

/// Opens the image that `data` describes, uses it as it says, and opens it again. Must neither
/// panic nor hang. How often it was opened.
pub(crate) fn fuzz(data: &[u8]) -> u32 {
    let Some((&[shape, name, format, changes], steps)) = data.split_first_chunk() else { return 0 };
    let outer = Outer::new();
    let mut draft = Draft::new(shape);
    if shape & 0x10 != 0 {
        let name = NAMES[usize::from(name) % NAMES.len()];
        draft.build_on(name, FORMATS[usize::from(format) % FORMATS.len()]);
    }
    let (steps, _) = steps.as_chunks::<STEP>();
    let steps = &steps[..steps.len().min(STEPS)];
    let (changes, requests) = steps.split_at(usize::from(changes % 8).min(steps.len()));
    changes.iter().for_each(|step| draft.change(step));
    let mut image = Image::at(outer.images().join("a.qcow2"));
    let file = File::create(&image.path).expect("a file");
    file.write_all_at(&draft.bytes, 0).expect("written");
    drop(file);
    image.format = (shape & 0x20 != 0).then_some(ImageFormat::Qcow2);
    let access = if shape & 0x40 == 0 { DiskAccess::ReadWrite } else { DiskAccess::ReadOnly };
    let mut buffer = vec![0; 256 * SECTOR as usize];
    let mut opened = 0;
    // Again: what was made of it is as hostile.
    for requests in requests.chunks(requests.len() / 2 + 1) {
        let Ok(disk) = image.open(access) else { break };
        opened += 1;
        requests.iter().for_each(|step| request(&*disk, step, &mut buffer));
    }
    let _ = tools::info(&image);
    let _ = image.files();
    outer.check();
    opened
}
