//! Trees come out as they went in, and a hostile stream writes nothing outside.

use copy::{Bits, Entry, Kind, Target, Writer, pack};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A folder of a test's own, which goes with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gemello-copy-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stream(source: &Path, name: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(source, name.map(AsRef::as_ref), &mut bytes).expect("packed");
    bytes
}

fn unpack(bytes: &[u8], target: &Path) -> io::Result<()> {
    Target::new(target, Bits::Permissions)?.unpack(&mut &bytes[..])
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let place = Place::new("tree");
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("a/empty")).expect("folders");
    fs::write(tree.join("a/big"), vec![0xA5; 200_000]).expect("a file");
    fs::write(tree.join("script"), "#!/bin/sh\n").expect("a file");
    fs::set_permissions(tree.join("script"), Permissions::from_mode(0o4751)).expect("mine");
    fs::set_permissions(tree.join("a/empty"), Permissions::from_mode(0o500)).expect("mine");
    symlink("/etc/passwd", tree.join("link")).expect("a link");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let script = fs::File::open(tree.join("script")).expect("it is there");
    script.set_modified(old).expect("mine");
    let bytes = stream(&tree, Some("tree"));
    // Into a folder, by another name, and over what is there.
    let into = place.join("into");
    fs::create_dir(&into).expect("a folder");
    for (target, root) in [
        (&into, into.join("tree")),
        (&place.join("new"), place.join("new")),
        (&into, into.join("tree")),
    ] {
        unpack(&bytes, target).expect("unpacked");
        assert_eq!(fs::read(root.join("a/big")).expect("there"), vec![0xA5; 200_000]);
        assert_eq!(fs::read_link(root.join("link")).expect("there"), Path::new("/etc/passwd"));
        let script = fs::metadata(root.join("script")).expect("there");
        assert_eq!((script.mode() & 0o7777, script.mtime()), (0o751, 1_000_000_000));
        assert_eq!(fs::metadata(root.join("a/empty")).expect("there").mode() & 0o7777, 0o500);
    }
    // Its content alone.
    let plain = place.join("plain");
    fs::create_dir(&plain).expect("a folder");
    unpack(&stream(&tree, None), &plain).expect("unpacked");
    assert!(plain.join("script").is_file() && plain.join("a/empty").is_dir());
    for part in [&tree, &into.join("tree"), &place.join("new"), &plain] {
        fs::set_permissions(part.join("a/empty"), Permissions::from_mode(0o700)).expect("mine");
    }
}

fn entry(path: &[&str], kind: Kind) -> Entry {
    let path = path.iter().map(OsString::from).collect();
    Entry { path, mode: 0o777, seconds: 0, kind }
}

fn hostile(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.put(entry, &b"evil"[..]).expect("memory");
    }
    writer.finish().expect("memory")
}

#[test]
fn nothing_is_written_outside() {
    let place = Place::new("hostile");
    let (target, outside) = (place.join("target"), place.join("outside"));
    fs::create_dir(&target).expect("a folder");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("file"), "mine").expect("a file");
    fs::set_permissions(&outside, Permissions::from_mode(0o750)).expect("mine");
    symlink(&outside, target.join("old-link")).expect("a link");
    let link = |to: &Path| Kind::Link(to.into());
    let file = Kind::File(4);
    for entries in [
        vec![entry(&["..", "outside", "file"], file.clone())],
        vec![entry(&["../outside/file"], file.clone())],
        vec![entry(&[outside.join("file").to_str().expect("text")], file.clone())],
        vec![entry(&["a", "..", "..", "outside", "new"], Kind::Folder)],
        // By a link that the stream makes, or that is there.
        vec![entry(&["l"], link(&outside)), entry(&["l", "file"], file.clone())],
        vec![entry(&["l"], link(&outside)), entry(&["l"], Kind::Folder)],
        vec![entry(&["l"], link(Path::new("../outside"))), entry(&["l", "n"], Kind::Folder)],
        vec![entry(&["old-link", "file"], file.clone())],
        vec![entry(&["old-link"], Kind::Folder)],
        // A folder that becomes a link before its mode is set.
        vec![entry(&["f"], Kind::Folder), entry(&["f"], link(&outside))],
        vec![entry(&[], file.clone())],
    ] {
        let refused = unpack(&hostile(&entries), &target).expect_err("refused");
        assert!(!refused.to_string().is_empty(), "{entries:?}");
        assert_eq!(fs::read(outside.join("file")).expect("there"), b"mine", "{entries:?}");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 1, "{entries:?}");
        assert_eq!(fs::metadata(&outside).expect("there").mode() & 0o7777, 0o750, "{entries:?}");
        let _ = fs::remove_file(target.join("l"));
    }
    // A link is replaced, not written through.
    symlink(outside.join("file"), target.join("through")).expect("a link");
    unpack(&hostile(&[entry(&["through"], file)]), &target).expect("unpacked");
    assert_eq!(fs::read(outside.join("file")).expect("there"), b"mine");
    assert_eq!(fs::read(target.join("through")).expect("there"), b"evil");
}

#[test]
fn what_is_no_stream_is_refused() {
    let place = Place::new("nonsense");
    let bytes = hostile(&[entry(&["a"], Kind::Folder), entry(&["a", "b"], Kind::File(4))]);
    for len in 0..bytes.len() {
        assert!(unpack(&bytes[..len], &place.0).is_err(), "{len}");
    }
    unpack(&bytes, &place.0).expect("whole");
    for wrong in [&[9; 16][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]] {
        assert!(unpack(wrong, &place.0).is_err());
    }
    assert!(Target::new(&place.join("none/x"), Bits::All).is_err());
    assert!(Target::new(&place.join("none/"), Bits::All).is_err());
}
