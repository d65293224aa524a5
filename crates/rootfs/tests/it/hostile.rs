//! Archives that mean harm.

use crate::any_archive;
use crate::support::{Layer, names, read, refusal};
use proptest::prelude::*;
use tar::EntryType;

#[test]
fn what_leads_nowhere_is_refused_by_name() {
    let deep: String = "d/".repeat(1500);
    let long = format!("x/{}", "n".repeat(256));
    for (layer, why) in [
        (Layer::default().file("../x", b""), "leads out"),
        (Layer::default().file("a/../../x", b""), "leads out"),
        (Layer::default().symlink("/", "x"), "no folder"),
        (Layer::default().file(".wh.", b""), "hides nothing"),
        (Layer::default().file("f", b"").file("f/x", b""), "no folder"),
        (Layer::default().link("x", "gone"), "not there"),
        (Layer::default().folder("d").link("x", "d"), "a folder"),
        (Layer::default().link("x", "/"), "the root"),
        (Layer::default().symlink("x", ""), "leads nowhere"),
        (Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", b""), "40 links"),
        (Layer::default().symlink("a", "a/a").file("a/x", b""), "40 links"),
        (Layer::default().records(&[("path", deep.as_bytes())]).folder("x"), "1000 folders"),
        (Layer::default().records(&[("path", long.as_bytes())]).file("x", b""), "255 bytes"),
        (Layer::default().records(&[("path", b"a\0b")]).file("x", b""), "no path"),
        (Layer::default().records(&[("path", b"")]).file("x", b""), "no path"),
        (Layer::default().records(&[("path", b"\xff")]).file("x", b""), "UTF-8"),
        (Layer::default().records(&[("uid", b"4294967296")]).file("x", b""), "owner"),
        (Layer::default().records(&[("size", b"-1")]).file("x", b""), "number"),
        (Layer::default().records(&[("size", b"99999999999999999")]).file("x", b""), "longer than"),
        (Layer::default().records(&[("GNU.sparse.major", b"1")]).file("x", b""), "sparse"),
        (Layer::default().records(&[("SCHILY.xattr.no.space", b"")]).file("x", b""), "namespace"),
        (Layer::default().records(&[("SCHILY.xattr.user.x", &[1; 5000])]).file("x", b""), "fit"),
        (
            Layer::default().records(&[("SCHILY.xattr.a.b", &[1; 20_000])]).file("x", b""),
            "too large",
        ),
        (Layer::default().entry(EntryType::GNUSparse, "x", b"", |_| {}), "type S"),
        (
            Layer::default().entry(EntryType::Char, "x", b"", |h| {
                h.set_device_major(5000).expect("gnu");
                h.set_device_minor(0).expect("gnu");
            }),
            "device",
        ),
        (Layer::default().folder("lost+found").file("lost+found/x", b""), "ext4's own"),
    ] {
        let refusal = refusal(&layer);
        assert!(refusal.contains(why), "{refusal}: no {why}");
    }
}

/// A header says that its records take more than there is, or more memory than anybody has.
#[test]
fn no_size_is_believed() {
    for (kind, size) in [
        (EntryType::XHeader, 1 << 40),
        (EntryType::XHeader, 5 << 20),
        (EntryType::GNULongName, 6 << 30),
        (EntryType::Regular, 1 << 40),
        (EntryType::Regular, u64::MAX >> 1),
    ] {
        let layer = Layer::default().entry(kind, "x", b"", |header| header.set_size(size));
        let refusal = refusal(&layer);
        assert!(refusal.contains("longer than"), "{refusal}");
    }
}

#[test]
fn an_archive_that_is_cut_is_refused_at_any_place() {
    let whole = Layer::default().file("a", &[1; 700]).file("b", b"").bytes();
    for end in 1..whole.len() {
        let built = any_archive::build(&[&whole[..end]]);
        // Where an entry is complete, it is a shorter archive; its padding may be missing.
        let complete = (512 + 700..=512 + 1024).contains(&end);
        assert_eq!(built.is_ok(), complete, "cut at {end}");
    }
    assert!(any_archive::build(&[&whole]).is_ok());
}

/// The same name again and again, in turn a folder and a file.
#[test]
fn the_last_of_equal_names_counts() {
    let mut layer = Layer::default();
    for _ in 0..100 {
        layer = layer.file("x", b"").folder("x").file("x/y", b"").symlink("x", "x");
    }
    let image = read(&[layer.folder("x").file("x/z", b"")]);
    assert_eq!(names(&image, "/x"), ["z"]);
}

/// Whoever hides everything again and again has it looked at once.
#[test]
fn hiding_again_costs_nothing() {
    let mut lower = Layer::default();
    for n in 0..2000 {
        lower = lower.file(&format!("d/{n}"), b"");
    }
    let mut upper = Layer::default();
    for _ in 0..20_000 {
        upper = upper.file(".wh..wh..opq", b"").file("d/kept", b"");
    }
    assert_eq!(names(&read(&[lower, upper]), "/d"), ["kept"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A sound archive with some bytes changed, its checksums right.
    #[test]
    fn changed_archives_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<u8>(),
    ) {
        let mut bytes = Layer::default()
            .folder("d")
            .file("d/f", b"12")
            .symlink("s", "d")
            .link("h", "d/f")
            .records(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"-5.5")])
            .file("s/g", b"3")
            .end();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let block = place / 512 * 512;
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
            if !(148..156).contains(&(place % 512)) {
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        bytes.insert(0, cut);
        any_archive::fuzz(&bytes);
    }
}
