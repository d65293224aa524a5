//! Layers over each other, as image-spec, layer.md, says.

use crate::support::{Layer, names, read};
use rootfs::Content;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use tar::EntryType;

fn lower() -> Layer {
    Layer::default()
        .folder("a/")
        .file("a/one", b"1")
        .file("a/two", b"2")
        .folder("a/b/")
        .file("a/b/three", b"3")
        .symlink("l", "a/b")
        .symlink("up", "../../../a")
}

#[test]
fn a_whiteout_hides_what_is_below() {
    let image = read(&[lower(), Layer::default().file("a/.wh.one", b"").file(".wh.l", b"")]);
    assert_eq!(names(&image, "/"), ["a", "up"]);
    assert_eq!(names(&image, "/a"), ["b", "two"]);
}

#[test]
fn a_whiteout_hides_nothing_of_its_own_layer() {
    for turned in [false, true] {
        let upper = Layer::default();
        let upper = match turned {
            false => upper.file("a/.wh.one", b"").file("a/one", b"new"),
            true => upper.file("a/one", b"new").file("a/.wh.one", b""),
        };
        assert_eq!(read(&[lower(), upper]).read("/a/one").expect("a file"), b"new");
    }
}

#[test]
fn an_opaque_folder_has_only_what_its_own_layer_says() {
    for turned in [false, true] {
        let upper = Layer::default().folder("a/");
        let upper = match turned {
            false => upper.file("a/.wh..wh..opq", b"").file("a/b/four", b"4"),
            true => upper.file("a/b/four", b"4").file("a/.wh..wh..opq", b""),
        };
        let image = read(&[lower(), upper]);
        assert_eq!(names(&image, "/a"), ["b"]);
        assert_eq!(names(&image, "/a/b"), ["four"]);
    }
}

#[test]
fn a_folder_stays_where_it_comes_again_and_gives_way_to_a_file() {
    let owned = |header: &mut tar::Header| header.set_mode(0o700);
    let upper = Layer::default().entry(EntryType::Directory, "a/", b"", owned);
    let image = read(&[lower(), upper]);
    assert_eq!(names(&image, "/a"), ["b", "one", "two"]);
    assert_eq!(image.metadata("/a").expect("a folder").mode() & 0o7777, 0o700);
    let image = read(&[lower(), Layer::default().file("a", b"now a file")]);
    assert_eq!(image.read("/a").expect("a file"), b"now a file");
}

#[test]
fn links_on_the_way_are_followed_and_stay_inside() {
    let upper =
        Layer::default().file("l/new", b"n").file("up/there", b"t").file("a/b/.wh.three", b"");
    let image = read(&[lower(), upper]);
    assert_eq!(names(&image, "/a/b"), ["new"]);
    assert_eq!(names(&image, "/a"), ["b", "one", "there", "two"]);
    let absolute = Layer::default().symlink("etc", "/a").file("etc/passwd", b"p");
    assert_eq!(read(&[lower(), absolute]).read("/a/passwd").expect("a file"), b"p");
}

#[test]
fn a_link_to_a_lower_file_stays_when_the_file_goes() {
    let upper = Layer::default().link("kept", "a/one").file("a/.wh.one", b"");
    let image = read(&[lower(), upper]);
    assert_eq!(image.read("/kept").expect("a file"), b"1");
    assert_eq!(names(&image, "/a"), ["b", "two"]);
}

#[test]
fn the_records_of_aufs_are_no_files() {
    let layer = Layer::default().folder(".wh..wh.plnk/").file(".wh..wh.plnk/x", b"").file("y", b"");
    assert_eq!(names(&read(&[layer]), "/"), ["y"]);
}

/// Of packages, as dpkg lays them: `usr/lib` is what `/lib` leads to, and nothing hides anything.
#[test]
fn a_packages_folder_leaves_a_link_to_a_folder() {
    let mut spool = tempfile();
    let mut tree = rootfs::Tree::default();
    let first = Layer::default().folder("./usr/lib/").symlink("./lib", "usr/lib");
    let owned = |header: &mut tar::Header| header.set_mode(0o700);
    let second = Layer::default()
        .entry(EntryType::Directory, "./", b"", owned)
        .entry(EntryType::Directory, "./lib/", b"", owned)
        .file("./lib/x", b"x")
        .file("./lib/.wh.x", b"w")
        .link("./usr/y", "./lib/x");
    let mut paths = Vec::new();
    for package in [first, second] {
        let offset = spool.seek(SeekFrom::End(0)).expect("a place");
        spool.write_all(&package.end()).expect("written");
        let bytes = spool.stream_position().expect("a place") - offset;
        paths = tree.install(&spool, Content { offset, bytes }).expect("a package");
    }
    let expected = ["", "/lib", "/lib/x", "/lib/.wh.x", "/usr/y"];
    assert_eq!(paths, expected.map(|path| path.as_bytes().to_vec()));
    let mut read = |path: &str| tree.read(&spool, path.as_bytes()).expect("readable");
    assert_eq!(read("/usr/lib/x").as_deref(), Some(&b"x"[..]));
    assert_eq!(read("/usr/lib/.wh.x").as_deref(), Some(&b"w"[..]));
    assert_eq!(read("/usr/y").as_deref(), Some(&b"x"[..]));
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("gemello-package-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    std::fs::remove_file(&path).expect("it is there");
    file.expect("a file")
}
