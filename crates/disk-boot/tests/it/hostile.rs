//! Disks that lie: the answer is an error, soon, and without memory that the disk has not.

use crate::any_disk;
use crate::images::debian;
use crate::support::{FIRST, PLAIN, SECTOR, boots, fat, gpt};
use std::time::{Duration, Instant};
use test_support::Rng;

/// Where, and what stands there then.
type Damage<'a> = (usize, &'a [u8]);

#[test]
fn no_damage_does_harm() {
    let disk = gpt(&[(PLAIN, &debian("damage"))]);
    let mut random = Rng::new(20_261_129);
    for _ in 0..150 {
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

#[test]
fn any_edits_of_a_firmwares_file_system_are_borne() {
    let mut random = Rng::new(20_261_130);
    for n in 0..600_usize {
        let count = 1 + random.next() as usize % 64;
        let mut data: Vec<u8> = (0..count * 4).map(|_| random.next() as u8).collect();
        data[0] = n as u8;
        any_disk::fuzz(&data);
    }
}

/// `fat` with these bytes put in.
fn edited(fat: &[u8], edits: &[(usize, &[u8])]) -> Vec<u8> {
    let mut edited = fat.to_vec();
    edits.iter().for_each(|(at, bytes)| edited[*at..at + bytes.len()].copy_from_slice(bytes));
    edited
}

fn place(disk: &[u8], bytes: &[u8]) -> usize {
    disk.windows(bytes.len()).position(|window| window == bytes).expect("it is there")
}

#[test]
fn chains_without_an_end_end_in_an_error() {
    let entry: &[u8] = b"linux /kernel\noptions root=x\n";
    let files = [("loader/entries/a.conf", entry), ("kernel", &[7; 3000][..])];
    let good = fat(16, &files);
    assert!(boots("chains", &good).is_ok());
    // FAT16 begins behind the boot record; the kernel has the last clusters that are used.
    let kernel = place(&good, &[7; 100]) / SECTOR * SECTOR;
    let size = place(&good, b"KERNEL     ") + 28;
    let first = u16::from_le_bytes([good[size - 2], good[size - 1]]);
    let (table, own) = (SECTOR, first.to_le_bytes());
    let link = table + 2 * usize::from(first);
    assert!(kernel > link, "the table is in front of the content");
    let folder = place(&good, b"ENTRIES    ") + 26;
    let folder = u16::from_le_bytes([good[folder], good[folder + 1]]);
    let giant = u32::MAX.to_le_bytes();
    let loops = 100_000_u32.to_le_bytes();
    let cases: [(&str, &[Damage<'_>], &str); 6] = [
        ("a loop that is long enough", &[(link, &own), (size, &loops)], ""),
        ("a giant", &[(size, &giant)], "more than anything that boots"),
        (
            "a giant in a loop",
            &[(link, &own), (size, &(900_u32 << 20).to_le_bytes())],
            "than its file",
        ),
        ("too short a chain", &[(size, &loops)], "its clusters end"),
        ("a chain out of it", &[(link, &[0xF0, 0xFF])], "out of its file system"),
        (
            "a folder's loop",
            &[(table + 2 * usize::from(folder), &folder.to_le_bytes())],
            "a kernel in /boot",
        ),
    ];
    for (name, edits, piece) in cases {
        let began = Instant::now();
        let found = boots("chain", &edited(&good, edits));
        match found {
            Ok(boot) => assert!(piece.is_empty() && boot.kernel.bytes.len() == 100_000, "{name}"),
            Err(error) => {
                assert!(!piece.is_empty() && error.to_string().contains(piece), "{name}: {error}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{name}");
    }
}

#[test]
fn a_boot_record_that_lies_is_no_file_system() {
    let good = fat(16, &[("kernel", b"x")]);
    let giant = u32::MAX.to_le_bytes();
    let lies: [(usize, &[u8]); 8] = [
        (11, &[0, 0]),
        (11, &[0, 3]),
        (13, &[0]),
        (13, &[3]),
        (14, &[0, 0]),
        (16, &[0]),
        (22, &[1, 0]),
        (510, &[0, 0]),
    ];
    let told = |edits: &[(usize, &[u8])]| {
        boots("lies", &edited(&good, edits)).expect_err("nothing").to_string()
    };
    for lie in lies {
        assert!(told(&[lie]).contains("no ext4 or FAT"), "{lie:?}");
    }
    // More sectors than the partition has, tables that leave no room, a root beyond the end.
    let total: [(usize, &[u8]); 2] = [(19, &[0, 0]), (32, &giant)];
    let tables: [(usize, &[u8]); 2] = [(16, &[0xFF]), (22, &[0xFF, 0xFF])];
    let fat32: [(usize, &[u8]); 3] = [(22, &[0, 0]), (36, &[0xFF, 0, 0, 0]), (44, &giant)];
    assert!(told(&total).contains("no ext4 or FAT"));
    assert!(told(&tables).contains("no ext4 or FAT"));
    assert!(told(&fat32).contains("a kernel in /boot"));
    assert!(boots("good", &good).expect_err("no kernel").to_string().contains("a kernel in /boot"));
}
