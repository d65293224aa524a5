//! Images with real file systems, made by `mke2fs`, and what is left of them after damage.

use disk_boot::{Boot, FindError, find};
use disk_image::{DiskAccess, Image, ImageFormat, Storage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use test_support::Rng;

const SECTOR: usize = 512;
/// Where the partition begins, in sectors.
const FIRST: usize = 2048;
const UUID: &str = "b1c2d3e4-0000-4000-8000-1234567890ab";

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder");
    path
}

/// A file system with these files.
fn ext4(name: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let place = folder(name);
    let root = place.join("root");
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    let image = place.join("image");
    let mut make = Command::new("/usr/sbin/mke2fs");
    make.args(["-q", "-t", "ext4", "-U", UUID, "-d"]).arg(&root).arg(&image).arg("4M");
    let output = make.output().expect("mke2fs of the package e2fsprogs");
    assert!(output.status.success(), "{output:?}");
    fs::read(image).expect("what was made")
}

/// What the disk with `bytes` boots.
fn boots(name: &str, bytes: &[u8]) -> Result<Boot, FindError> {
    let path = folder(&format!("{name}-disk")).join("disk.img");
    fs::write(&path, bytes).expect("a file");
    let image = Image { format: Some(ImageFormat::Raw), ..Image::at(path) };
    let disk: Arc<dyn Storage> = Arc::from(image.open(DiskAccess::ReadOnly).expect("a disk"));
    find(&disk)
}

/// A boot record: of partitions of these types, from and with so many sectors.
fn record(partitions: &[(u8, usize, usize)]) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    for (n, (kind, first, count)) in partitions.iter().enumerate() {
        let at = 446 + 16 * n;
        bytes[at + 4] = *kind;
        bytes[at + 8..at + 12].copy_from_slice(&(*first as u32).to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&(*count as u32).to_le_bytes());
    }
    bytes[510..].copy_from_slice(&[0x55, 0xAA]);
    bytes
}

/// A disk with a GPT whose second partition is `volume`.
fn gpt(volume: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; FIRST * SECTOR];
    disk[..SECTOR].copy_from_slice(&record(&[(0xEE, 1, u32::MAX as usize)]));
    disk[SECTOR..SECTOR + 8].copy_from_slice(b"EFI PART");
    for (at, value) in [(72, 2_u32), (80, 4), (84, 128)] {
        disk[SECTOR + at..SECTOR + at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let last = FIRST + volume.len() / SECTOR - 1;
    for (n, range) in [34..=99, FIRST..=last].into_iter().enumerate() {
        let entry = 2 * SECTOR + 128 * n;
        disk[entry] = 1;
        disk[entry + 32..entry + 40].copy_from_slice(&(*range.start() as u64).to_le_bytes());
        disk[entry + 40..entry + 48].copy_from_slice(&(*range.end() as u64).to_le_bytes());
    }
    disk.extend(volume);
    disk
}

fn debian(name: &str) -> Vec<u8> {
    let files: [(&str, &[u8]); 4] = [
        ("boot/vmlinuz-6.1.0-9-amd64", b"older"),
        ("boot/vmlinuz-6.1.0-57-amd64", b"kernel"),
        ("boot/initrd.img-6.1.0-57-amd64", b"initrd"),
        ("etc/hostname", b"debian"),
    ];
    ext4(name, &files)
}

#[test]
fn the_newest_kernel_is_found_on_any_sort_of_table() {
    let volume = debian("tables");
    let sectors = volume.len() / SECTOR;
    let gap =
        |bytes: &[u8], sectors: usize| [bytes, &vec![0; sectors * SECTOR - bytes.len()]].concat();
    let primary = [gap(&record(&[(0x82, 1, 1), (0x83, FIRST, sectors)]), FIRST), volume.clone()];
    let extended = record(&[(0x05, 8, FIRST + sectors)]);
    let logical = record(&[(0x83, FIRST - 8, sectors)]);
    let logical = [gap(&extended, 8), gap(&logical, FIRST - 8), volume.clone()];
    let disks = [
        ("whole", volume.clone()),
        ("primary", primary.concat()),
        ("logical", logical.concat()),
        ("gpt", gpt(&volume)),
    ];
    for (name, disk) in disks {
        let boot = boots(name, &disk).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(boot.kernel.path, "/boot/vmlinuz-6.1.0-57-amd64", "{name}");
        assert_eq!(boot.kernel.bytes, b"kernel");
        assert_eq!(boot.initrd.expect("one").bytes, b"initrd");
        assert_eq!(boot.cmdline, format!("root=UUID={UUID} ro console=ttyS0"));
    }
}

#[test]
fn grubs_configuration_comes_first() {
    let configuration = b"menuentry 'mine' {\n linux ($root)/vmlinuz-5 root=LABEL=x quiet\n \
        initrd /one /two\n}\n";
    let files: [(&str, &[u8]); 5] = [
        ("grub2/grub.cfg", configuration),
        ("vmlinuz-5", b"five"),
        ("vmlinuz-6", b"six"),
        ("one", b"1"),
        ("two", b"2"),
    ];
    let boot = boots("grub", &ext4("grub", &files)).expect("it boots");
    assert_eq!((boot.title.as_str(), boot.kernel.bytes.as_slice()), ("mine", &b"five"[..]));
    assert_eq!(boot.initrd.expect("two").bytes, b"1\0\0\x002");
    assert_eq!(boot.cmdline, "root=LABEL=x quiet console=ttyS0");
}

#[test]
fn what_is_missing_is_said() {
    let said = |name: &str, bytes: &[u8]| boots(name, bytes).expect_err("nothing").to_string();
    assert!(said("zeros", &[0; 1 << 20]).contains("no ext4 file system"));
    let mut xfs = vec![0; 1 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    assert!(said("xfs", &xfs).contains("XFS"));
    assert!(said("empty", &ext4("empty", &[("etc/hostname", b"x")])).contains("a kernel"));
    let lost = b"menuentry 'lost' {\n linux /boot/gone\n}\n";
    let why = said("lost", &ext4("lost", &[("boot/grub/grub.cfg", lost)]));
    assert!(why.contains("\"lost\"") && why.contains("/boot/gone"), "{why}");
}

#[test]
fn no_damage_does_harm() {
    let disk = gpt(&debian("damage"));
    let mut random = Rng::new(20_261_129);
    for _ in 0..300 {
        let mut damaged = disk.clone();
        for _ in 0..1 + random.next() % 8 {
            // Where the tables are: the disk's, and the file system's.
            let tables = [0..3 * SECTOR, FIRST * SECTOR..FIRST * SECTOR + (256 << 10)];
            let range = &tables[(random.next() % 2) as usize];
            let at = range.start + (random.next() as usize) % range.len();
            damaged[at] = random.next() as u8;
        }
        let _ = boots("damaged", &damaged);
    }
}
