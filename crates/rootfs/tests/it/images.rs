//! What an image holds, by e2fsprogs and by another reader.

use crate::any_archive;
use crate::support::{Layer, OnDisk, names, read};
use std::os::unix::fs::MetadataExt as _;
use tar::EntryType;

/// What a layer can hold.
fn everything() -> Layer {
    let list = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 4, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff],
        &[0x10, 0, 6, 0, 0xff, 0xff, 0xff, 0xff],
        &[0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    Layer::default()
        .entry(EntryType::Directory, "./", b"", |header| header.set_mode(0o750))
        .folder("etc/")
        .entry(EntryType::Regular, "etc/shadow", b"root:*\n", |header| {
            header.set_mode(0o640);
            header.set_gid(42);
        })
        .entry(EntryType::Regular, "bin/su", &[0x7f; 100_000], |header| header.set_mode(0o4755))
        .link("bin/su-too", "bin/su")
        .symlink("lib", "/usr/lib")
        .symlink("long", &"d/".repeat(45))
        .entry(EntryType::Char, "dev/null", b"", |header| {
            header.set_device_major(1).expect("ustar");
            header.set_device_minor(3).expect("ustar");
        })
        .entry(EntryType::Block, "dev/big", b"", |header| {
            header.set_device_major(259).expect("ustar");
            header.set_device_minor(70_000).expect("ustar");
        })
        .entry(EntryType::Fifo, "pipe", b"", |_| {})
        .records(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.user.note", b"two\nlines"),
            ("mtime", b"1700000001.25"),
            ("uid", b"2000000000"),
        ])
        .file("bin/ping", b"ping")
        .records(&[("SCHILY.xattr.system.posix_acl_access", &list)])
        .file("shared", b"s")
        .records(&[("path", format!("deep/{}", "n".repeat(250)).as_bytes())])
        .file("short", b"long name")
}

#[test]
fn e2fsck_and_debugfs_find_what_the_layer_says() {
    let image = OnDisk::of(&[everything()]);
    let Some(complaints) = image.complaints() else {
        assert!(std::env::var_os("CI").is_none(), "CI has e2fsprogs");
        return;
    };
    assert_eq!(complaints, "");
    let stat = |path: &str| image.debugfs(&format!("stat {path}")).expect("debugfs");
    let has = |path: &str, what: &str| {
        let text = stat(path);
        assert!(text.contains(what), "{path}: no {what} in {text}");
    };
    has("/", "Mode:  0750");
    has("/etc/shadow", "Mode:  0640");
    has("/etc/shadow", "Group:    42");
    has("/bin/su", "Mode:  04755");
    has("/bin/su", "Links: 2");
    has("/dev/null", "Device major/minor number: 01:03");
    has("/dev/big", "Device major/minor number: 259:70000");
    has("/pipe", "Type: FIFO");
    has("/bin/ping", "User: 2000000000");
    has("/bin/ping", "security.capability (20)");
    has("/bin/ping", "user.note (9)");
    has("/shared", "system.posix_acl_access");
    let journal = image.debugfs("stats").expect("debugfs");
    assert!(journal.contains("has_journal"), "{journal}");
}

#[test]
fn content_and_links_are_read_back() {
    let image = read(&[everything()]);
    assert_eq!(image.read("/bin/su").expect("a file"), [0x7f; 100_000]);
    assert_eq!(image.read("/bin/su-too").expect("a link"), [0x7f; 100_000]);
    let target = |path| image.read_link(path).expect("a link").display().to_string();
    assert_eq!(target("/lib"), "/usr/lib");
    assert_eq!(target("/long"), "d/".repeat(45));
    assert_eq!(names(&image, "/deep"), ["n".repeat(250)]);
}

#[test]
fn zeros_take_no_space_and_equal_trees_are_equal_images() {
    let mut content = vec![0; 8 << 20];
    content[5 << 20] = 1;
    let layers = || [Layer::default().file("sparse", &content).file("a", b"b")];
    let (one, other) = (OnDisk::of(&layers()), OnDisk::of(&layers()));
    let bytes = |image: &OnDisk| std::fs::read(&image.0).expect("an image");
    assert!(bytes(&one) == bytes(&other));
    drop(other);
    let built = any_archive::build(&[&layers()[0].bytes()]).expect("an image");
    let taken = built.metadata().expect("a file").blocks() * 512;
    assert!(taken < 3 << 20, "{taken}");
    assert_eq!(read(&layers()).read("/sparse").expect("a file"), content);
}

#[test]
fn a_folder_of_many_names_is_whole() {
    let mut layer = Layer::default();
    for n in 0..5000 {
        layer = layer.file(&format!("many/{n:04}-{}", "x".repeat(n % 60)), b"");
    }
    let image = OnDisk::of(&[layer]);
    assert_eq!(image.complaints().unwrap_or_default(), "");
    let listed = image.debugfs("ls -p /many").unwrap_or_default();
    let count = listed.lines().filter(|line| line.contains("-x") || line.contains("-/")).count();
    assert!(listed.is_empty() || count == 5000, "{count}");
}
