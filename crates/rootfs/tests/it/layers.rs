//! Layers over each other, as image-spec, layer.md, says.

use crate::support::{Layer, names, read};
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
