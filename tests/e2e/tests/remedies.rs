//! Files that need work before they can be used: told by their content, left as they are, and the
//! command that the message ends with does that work when it is pasted into a shell.

use e2e::{code, command, idle, scratch, text};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An empty directory whose name has to be quoted.
fn place(name: &str) -> PathBuf {
    let place = scratch("x", b"").with_file_name(format!("it's {name}: here"));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("a directory");
    place
}

/// `gemello run`, with the disk `argument`: exit code and messages.
fn with_disk(argument: impl AsRef<OsStr>) -> (i32, String) {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    let guest = GUEST.get_or_init(|| scratch("idle-remedy.elf", &idle()));
    let mut run = command(&["run", "--timeout", "300ms"]);
    let output = run.arg(guest).arg("--disk").arg(argument).output().expect("gemello starts");
    (code(&output), text(&output.stderr))
}

/// The command at the end of a refusal of `path`, which is still as it was.
fn proposed(path: &Path, what: &str) -> String {
    let before = fs::read(path).expect("an image");
    let (status, message) = with_disk(path);
    assert_eq!(status, 2, "{message}");
    assert!(message.contains(what) && message.lines().count() == 1, "{message}");
    assert!(fs::read(path).expect("an image") == before, "a refused file was changed");
    message.trim_end().rsplit_once("new file: ").expect("a command").1.to_owned()
}

/// Pastes `line` in `directory`: `before` stays as it is, and the only new file is returned.
fn paste(line: &str, directory: &Path, kept: &Path) -> PathBuf {
    let list = || {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let (before, content) = (list(), fs::read(kept).expect("an image"));
    let output = Command::new("sh").arg("-c").arg(line).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    assert!(fs::read(kept).expect("an image") == content, "{line}: the file was changed");
    let new: Vec<_> = list().into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new.len(), 1, "{line}: {new:?}");
    new[0].clone()
}

/// Each format's first bytes and last sector, and how it is called.
const FORMATS: [(&[u8], &[u8], &str, &str); 11] = [
    (b"KDMV\x01\0\0\0", b"", "a VMDK image", "-f vmdk"),
    (b"# Disk DescriptorFile\nversion=1\n", b"", "a VMDK image", "-f vmdk"),
    (b"conectix\0\0\0\x02", b"", "a VHD image", "-f vpc"),
    (b"", b"conectix\0\0\0\x02", "a VHD image", "-f vpc"),
    (b"vhdxfile", b"", "a VHDX image", "-f vhdx"),
    (b"QED\0", b"", "a QED image", "-f qed"),
    (b"", b"koly\0\0\0\x04", "an Apple disk image", "-f dmg"),
    (b"\x1f\x8b\x08\0", b"", "compressed with gzip", "gzip -dc"),
    (b"\xfd7zXZ\0", b"", "compressed with xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", b"", "compressed with zstd", "zstd -dc"),
    (b"PK\x03\x04", b"", "a zip archive", "unzip -p"),
];

#[test]
fn a_disk_in_another_format_is_refused_by_name() {
    for (number, (head, tail, what, tool)) in FORMATS.into_iter().enumerate() {
        // Of a size that a disk can have, and of one that it cannot.
        for odd in [0, 100] {
            let mut image = vec![0; 4096 + odd];
            image[..head.len()].copy_from_slice(head);
            let end = image.len() - 512;
            image[end..end + tail.len()].copy_from_slice(tail);
            let path = place(&format!("format {number}")).join("a.img");
            fs::write(&path, &image).expect("an image");
            let line = proposed(&path, what);
            assert!(line.contains(tool) && !line.contains("truncate"), "{line}");
            // Who insists gets the bytes, even where the disk is refused for its size.
            let insisting = [path.as_os_str().as_bytes(), b",format=raw"].concat();
            let (status, message) = with_disk(OsStr::from_bytes(&insisting));
            assert_eq!(status, if odd == 0 { 124 } else { 2 }, "{message}");
            assert!(!message.contains(what), "{message}");
        }
    }
}

/// qemu-img's own images, if it is here: converted by the proposed command, they are disks.
#[test]
fn a_proposed_conversion_works_when_pasted() {
    let formats = [
        ("qcow", "a qcow (version 1) image"),
        ("qed", "a QED image"),
        ("vmdk", "a VMDK image"),
        ("vdi", "a VDI image"),
        ("vhdx", "a VHDX image"),
        ("vpc", "a VHD image"),
        ("parallels", "a Parallels image"),
    ];
    let fixed = ["-o", "subformat=fixed"];
    for (format, what) in formats {
        let place = place(format);
        let path = place.join("my disk.img");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format]);
        create.args(fixed.iter().filter(|_| format == "vpc")).arg(&path).arg("4M");
        let Ok(created) = create.output() else { return };
        assert!(created.status.success(), "{}", text(&created.stderr));
        // The name that would be taken is taken.
        fs::write(place.join("my disk.raw"), b"precious").expect("a file");
        let raw = paste(&proposed(&path, what), &place, &path);
        assert_eq!(fs::read(place.join("my disk.raw")).expect("there"), b"precious");
        assert_eq!(with_disk(&raw).0, 124, "{format}");
    }
}

#[test]
fn a_proposed_decompression_works_when_pasted() {
    let place = place("gzip");
    let (plain, packed) = (place.join("disk.img"), place.join("disk.img.gz"));
    fs::write(&plain, [7; 8192]).expect("an image");
    let output = Command::new("gzip").arg("-c").arg(&plain).output().expect("gzip");
    fs::write(&packed, output.stdout).expect("an image");
    let unpacked = paste(&proposed(&packed, "compressed with gzip"), &place, &packed);
    assert_eq!(fs::read(&unpacked).expect("there"), [7; 8192]);
    assert_eq!(with_disk(&unpacked).0, 124);
}

/// A raw image whose last sector is cut is completed in a copy; a missing or empty one is made.
#[test]
fn proposals_for_raw_images_work_when_pasted() {
    let place = place("sizes");
    let uneven = place.join("-uneven.img");
    fs::write(&uneven, [9; 1000]).expect("an image");
    let (_, message) = with_disk(&uneven);
    let line = message.trim_end().split_once("a copy of it: ").expect("a command").1.to_owned();
    let copy = paste(&line, &place, &uneven);
    assert_eq!(fs::read(&copy).expect("there"), [[9; 1000].as_slice(), &[0; 24]].concat());
    assert_eq!(with_disk(&copy).0, 124);

    for name in ["missing.img", "empty.img"] {
        let path = place.join(name);
        if name == "empty.img" {
            fs::write(&path, b"").expect("a file");
        }
        let (_, message) = with_disk(&path);
        let line = &message[message.find("truncate -s").expect("a command")..];
        let made = Command::new("sh").arg("-c").arg(line).status().expect("a shell");
        assert!(made.success(), "{line}");
        assert_eq!(fs::metadata(&path).expect("there").len(), 64 << 20);
        assert_eq!(with_disk(&path).0, 124);
        // Pasted once more by mistake, it cuts nothing.
        fs::File::options().write(true).open(&path).expect("it").set_len(65 << 20).expect("longer");
        assert!(Command::new("sh").arg("-c").arg(line).status().expect("a shell").success());
        assert_eq!(fs::metadata(&path).expect("there").len(), 65 << 20);
    }
}

#[test]
fn a_compressed_kernel_is_decompressed_by_the_proposed_command() {
    let place = place("kernel");
    let (plain, packed) = (place.join("kernel.elf"), place.join("kernel-1.2"));
    fs::write(&plain, idle()).expect("a kernel");
    let output = Command::new("gzip").arg("-c").arg(&plain).output().expect("gzip");
    fs::write(&packed, output.stdout).expect("a kernel");
    let mut run = command(&["run", "--timeout", "300ms"]);
    let output = run.arg(&packed).output().expect("gemello starts");
    let message = text(&output.stderr);
    assert_eq!(code(&output), 2, "{message}");
    let (_, line) = message.trim_end().rsplit_once("new file: ").expect("a command");
    let kernel = paste(line, &place, &packed);
    assert_eq!(fs::read(kernel).expect("there"), idle());
}

#[test]
fn what_others_call_disk_options_is_explained() {
    let image = scratch("options.img", &[0; 1024]);
    let with = |text: &str| with_disk(text.replace("IMG", image.to_str().expect("text")));
    for (argument, pieces) in [
        ("IMG,readonly=on", ["readonly=on", "ro, format="]),
        ("IMG,format=vmdk", ["raw or qcow2", "convert"]),
        ("IMG,cache=directsync", ["writeback", "unsafe"]),
        ("IMG,iops=0", ["number of requests", "500"]),
        ("file=IMG,format=raw", ["the file's name alone", "--disk /"]),
        (",ro", ["names no file", "--disk FILE"]),
        ("", ["names no file", "--disk FILE"]),
    ] {
        let (status, message) = with(argument);
        assert_eq!(status, 2, "{argument}: {message}");
        for piece in pieces {
            assert!(message.contains(piece), "{argument}: no {piece:?} in {message}");
        }
    }
    for argument in ["IMG,ro", "IMG,format=raw", "IMG,ro,format=raw", "IMG,format=raw,ro"] {
        assert_eq!(with(argument).0, 124, "{argument}");
    }
    // A name that ends like an option, and one that is no text.
    let names = [b"odd,ro".as_slice(), b"bytes\xff\n,x.img"];
    for name in names {
        let path = image.with_file_name(OsStr::from_bytes(name));
        fs::write(&path, [0; 1024]).expect("an image");
        assert_eq!(with_disk(&path).0, 124, "{}", path.display());
    }
}
