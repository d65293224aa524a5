//! EFI system partitions: FAT, systemd-boot's entries, unified kernel images.

use crate::support::{PARTUUID, PLAIN, ROOT, SECTOR, boots, ext4, fat, gpt};
use fatfs::{FileSystem, FsOptions};
use std::io::{Cursor, Write as _};

const ROOT_FILES: [(&str, &[u8]); 1] = [("etc/hostname", b"x")];

#[test]
fn an_entry_boots_from_any_sort_of_fat() {
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let old = b"linux /m/6.1/linux\nversion 6.1\n";
    let new = b"title New\nlinux /M/6.12/Linux\ninitrd /m/6.12/a\ninitrd /m/6.12/b\nversion 6.12\n\
        options quiet rw\n";
    let long = format!("loader/entries/{}-6.12.conf", "a-long-name-".repeat(18));
    let files: [(&str, &[u8]); 8] = [
        ("loader/loader.conf", b"timeout 3\n"),
        ("loader/entries/m-6.1.conf", old),
        (&long, new),
        ("m/6.1/linux", b"older"),
        ("m/6.12/linux", &large),
        ("m/6.12/a", b"1"),
        ("m/6.12/b", b"2"),
        ("EFI/systemd/systemd-bootx64.efi", b"a program"),
    ];
    // FAT12, FAT16 and FAT32, as the number of clusters has it.
    for mib in [2, 16, 40] {
        let root = ext4(&format!("root-{mib}"), &ROOT_FILES);
        let disk = gpt(&[(PLAIN, &fat(mib, &files)), (ROOT, &root)]);
        let boot = boots(&format!("fat-{mib}"), &disk).expect("it boots");
        assert_eq!(boot.title, "New", "{mib}");
        assert!(boot.kernel.bytes == large, "{mib}: {} bytes", boot.kernel.bytes.len());
        assert_eq!(boot.initrd.expect("two").bytes, b"1\0\0\x002");
        assert_eq!(boot.cmdline, format!("quiet rw root=PARTUUID={PARTUUID} console=ttyS0"));
    }
}

/// Two files that grow by turns lie in each other's gaps.
#[test]
fn a_file_in_pieces_is_whole() {
    let entry: [(&str, &[u8]); 1] =
        [("loader/entries/a.conf", b"linux /a\noptions root=/dev/vda\n")];
    let mut disk = fat(4, &entry);
    let expected: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
    {
        let volume = FileSystem::new(Cursor::new(&mut disk[..]), FsOptions::new()).expect("one");
        let (mut a, mut b) = (
            volume.root_dir().create_file("a").expect("a file"),
            volume.root_dir().create_file("b").expect("a file"),
        );
        for piece in expected.chunks(700) {
            a.write_all(piece).expect("room");
            b.write_all(&[0xFF; 900]).expect("room");
        }
    }
    let boot = boots("pieces", &disk).expect("it boots");
    assert!(boot.kernel.bytes == expected);
    assert_eq!(boot.cmdline, "root=/dev/vda console=ttyS0");
}

#[test]
fn the_default_entry_is_booted_and_others_are_found_elsewhere() {
    let files: [(&str, &[u8]); 5] = [
        ("loader/loader.conf", b"default b-*\n"),
        ("loader/entries/a-2.conf", b"linux /two\noptions root=x\n"),
        ("loader/entries/b-1.conf", b"linux /one\noptions root=x\n"),
        ("one", b"first"),
        ("two", b"second"),
    ];
    let boot = boots("default", &fat(2, &files)).expect("it boots");
    assert_eq!(boot.kernel.bytes, b"first");
    // An extended boot loader partition: the entries and kernels are there, the default is not.
    let system: [(&str, &[u8]); 1] = [("loader/loader.conf", b"default a-*\n")];
    let (system, more) = (fat(2, &system), ext4("xbootldr", &files[1..]));
    let boot = boots("both", &gpt(&[(PLAIN, &system), (PLAIN, &more)])).expect("it boots");
    assert_eq!(boot.kernel.bytes, b"second");
}

/// A PE file with these sections (Microsoft, "PE Format").
fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const OPTIONAL: usize = 112;
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C] = 0x40;
    bytes.extend(b"PE\0\0");
    bytes.extend(0x8664_u16.to_le_bytes());
    bytes.extend((sections.len() as u16).to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend((OPTIONAL as u16).to_le_bytes());
    bytes.extend([0x22, 0]);
    bytes.extend(0x20B_u16.to_le_bytes());
    bytes.extend([0; OPTIONAL - 2]);
    let mut at = 4096;
    for (name, content) in sections {
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let padded = content.len().next_multiple_of(SECTOR);
        for (field, value) in [(8, content.len()), (12, at), (16, padded), (20, at)] {
            header[field..field + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        bytes.extend(header);
        at += padded;
    }
    bytes.resize(4096, 0);
    for (_, content) in sections {
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    }
    bytes
}

#[test]
fn a_unified_image_has_all_in_it() {
    let image = |kernel: &'static [u8]| {
        pe(&[
            (".text", b"a program"),
            (".cmdline", b"quiet splash\0"),
            (".linux", kernel),
            (".initrd", b"files"),
        ])
    };
    let (old, new) = (image(b"older"), image(b"kernel"));
    let files: [(&str, &[u8]); 2] =
        [("EFI/Linux/os-6.9.efi", &old), ("EFI/Linux/OS-6.12.EFI", &new)];
    let root = ext4("unified", &ROOT_FILES);
    let boot = boots("unified", &gpt(&[(PLAIN, &fat(2, &files)), (ROOT, &root)])).expect("it");
    assert_eq!((boot.title.as_str(), &*boot.kernel.bytes), ("OS-6.12.EFI", &b"kernel"[..]));
    assert_eq!(boot.initrd.expect("one").bytes, b"files");
    assert_eq!(boot.cmdline, format!("quiet splash root=PARTUUID={PARTUUID} console=ttyS0"));
    // A kernel that is a PE file itself, and an entry that names an image and says more.
    let plain = pe(&[(".text", b"a kernel")]);
    let files: [(&str, &[u8]); 4] = [
        ("loader/loader.conf", b"default plain\n"),
        ("loader/entries/plain.conf", b"linux /plain\noptions root=x\n"),
        ("loader/entries/said.conf", b"uki /x/os.efi\noptions root=y\n"),
        ("plain", &plain),
    ];
    assert!(boots("plain", &fat(2, &files)).expect("it boots").kernel.bytes == plain);
    let files = [files[2], ("x/os.efi", &new)];
    let boot = boots("said", &fat(2, &files)).expect("it boots");
    assert_eq!((&*boot.kernel.bytes, &*boot.cmdline), (&b"kernel"[..], "root=y console=ttyS0"));
}
