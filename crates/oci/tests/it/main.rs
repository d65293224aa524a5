//! Images are found, verified and unpacked, or refused with the place of what is wrong.

#[path = "../builder/mod.rs"]
mod builder;

use builder::{Archive, Files, Packing, layout, manifest, saved};
use oci::{Digest, Image, ImageError};
use proptest::prelude::*;
use rootfs::Tree;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of this test's.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("gemello-oci-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn layers() -> Vec<(Vec<u8>, Packing)> {
    let lower = Archive::new().folder("etc", 0o755, (0, 0)).file("etc/a", 0o644, (5, 6), b"a");
    let upper = Archive::new().file("etc/.wh.a", 0o644, (0, 0), b"").symlink("link", "etc");
    let top = Archive::new().file("etc/b", 0o600, (0, 0), &[7; 70_000]);
    vec![(lower.end(), Packing::Gzip), (upper.end(), Packing::Plain), (top.end(), Packing::Zstd)]
}

fn config() -> Value {
    json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": null, "Env": ["A=b"], "User": "web",
        "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "Unknown": {},
    })
}

/// The image's files after all layers.
fn unpacked(image: &Image) -> Result<(Tree, File), ImageError> {
    let spool = File::from(memfd_create("spool", MemfdFlags::CLOEXEC).expect("memory"));
    let mut tree = Tree::default();
    for layer in image.layers() {
        let content = image.unpack(layer, &spool)?;
        tree.apply(&spool, content).expect("a layer");
    }
    Ok((tree, spool))
}

fn check(image: &Image) {
    let (mut tree, spool) = unpacked(image).expect("sound");
    let mut read = |path: &[u8]| tree.read(&spool, path).expect("memory");
    assert_eq!(read(b"/link/b").expect("a file"), [7; 70_000]);
    assert_eq!(read(b"/etc/a"), None);
    assert_eq!(image.config().entrypoint, ["/bin/sh", "-c"]);
    assert!(image.config().command.is_empty());
    assert_eq!(image.config().environment, ["A=b"]);
    assert_eq!((&*image.config().user, &*image.config().folder), ("web", "/srv"));
    assert_eq!(image.config().stop_signal, "SIGQUIT");
}

#[test]
fn each_form_is_the_same_image() {
    let scratch = Scratch::new();
    let mut digests = Vec::new();
    for (n, files) in [layout(&layers(), &config()), saved(&layers(), &config())].iter().enumerate()
    {
        let (folder, archive) =
            (scratch.0.join(format!("{n}")), scratch.0.join(format!("{n}.tar")));
        files.write_folder(&folder);
        files.write_archive(&archive);
        for path in [&folder, &archive] {
            let image = Image::open(path, None).expect("an image");
            check(&image);
            digests.push(image.digest());
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// `docker save` lets an equal layer be a link to the first.
#[test]
fn links_in_an_archive_are_followed() {
    let scratch = Scratch::new();
    let files = saved(&layers(), &config());
    let mut archive = Archive::new();
    for (name, content) in &files.0 {
        let Some(layer) = name.strip_suffix("/layer.tar") else {
            archive = archive.file(name, 0o644, (0, 0), content);
            continue;
        };
        archive = archive.symlink(name, &format!("../real/{layer}"));
        archive = archive.file(&format!("real/{layer}"), 0o644, (0, 0), content);
    }
    let path = scratch.0.join("x.tar");
    fs::write(&path, archive.end()).expect("a file");
    check(&Image::open(&path, None).expect("an image"));
}

/// Why there is no image of `files`.
fn refusal(files: &Files, tag: Option<&str>) -> String {
    let scratch = Scratch::new();
    files.write_folder(&scratch.0);
    let image = Image::open(&scratch.0, tag);
    let refused = image.and_then(|image| unpacked(&image).map(drop));
    refused.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_is_damaged_is_named() {
    let sound = layout(&layers(), &config());
    let largest = sound.largest_blob();
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = sound.clone();
        change(&mut files);
        refusal(&files, None)
    };
    let content = |files: &mut Files, at: usize| {
        let blob = files.0.get_mut(&largest).expect("a blob");
        let at = at.min(blob.len() - 1);
        blob[at] ^= 1;
    };
    for at in [0, 20, usize::MAX] {
        let refusal = changed(&|files| content(files, at));
        assert!(refusal.contains(&largest), "{at}: {refusal}");
    }
    let refusal = changed(&|files| {
        files.0.get_mut(&largest).expect("a blob").pop();
    });
    assert!(refusal.contains("bytes and should have"), "{refusal}");
    let refusal = changed(&|files| drop(files.0.remove(&largest)));
    assert!(refusal.contains("is missing"), "{refusal}");
    assert_eq!(changed(&|_| {}), "");
}

/// A blob that is what its digest says, and holds another archive than the configuration says.
#[test]
fn the_archive_in_a_blob_is_verified_too() {
    let mut files = Files::default();
    let mut described = manifest(&mut files, &layers(), &config(), "amd64");
    let name = |value: &Value| {
        format!("blobs/sha256/{}", &value["digest"].as_str().expect("text")["sha256:".len()..])
    };
    let mut document: Value = serde_json::from_slice(&files.0[&name(&described)]).expect("JSON");
    let other = Archive::new().file("evil", 0o644, (0, 0), b"").end();
    document["layers"][1] = files.blob(other.clone());
    let platform = described["platform"].take();
    described = files.blob(document.to_string().into_bytes());
    described["platform"] = platform;
    files.document("index.json", &json!({ "manifests": [described] }));
    let refusal = refusal(&files, None);
    let found = Digest::of(&other).to_string();
    assert!(refusal.contains("the archive in the layer") && refusal.contains(&found), "{refusal}");
}

#[test]
fn the_image_of_several_is_chosen_by_platform_and_name() {
    let mut files = Files::default();
    let mut all = Vec::new();
    for (name, architecture) in [("x:1", "amd64"), ("x:2", "amd64"), ("arm", "arm64")] {
        let config = json!({ "Env": [format!("WHICH={name}")] });
        let mut one = manifest(&mut files, &[], &config, architecture);
        one["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        all.push(one);
    }
    files.document("index.json", &json!({ "manifests": all }));
    let scratch = Scratch::new();
    files.write_folder(&scratch.0);
    for tag in ["x:2", "2"] {
        let image = Image::open(&scratch.0, Some(tag)).expect("an image");
        assert_eq!(image.config().environment, ["WHICH=x:2"]);
    }
    for (tag, why) in [
        (None, "several images; add one of their names after a colon: x:1, x:2, arm"),
        (Some("3"), "no image \"3\""),
        (Some("arm"), "it is for linux/arm64"),
    ] {
        let refusal = refusal(&files, tag);
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let document = |name: &str, text: &str| {
        let mut files = Files::default();
        files.0.insert(name.to_owned(), text.as_bytes().to_vec());
        files
    };
    let outside = r#"{"manifests":[{"digest":"sha256:../../../../etc/passwd","size":1}]}"#;
    let saved_outside = r#"[{"Config":"/etc/passwd","Layers":[]}]"#;
    let circle = Digest::of(b"x").to_string();
    let dangling = format!(r#"{{"manifests":[{{"digest":"{circle}","size":1}}]}}"#);
    for (files, why) in [
        (document("other", ""), "neither index.json"),
        (document("index.json", "{"), "no such document"),
        (document("index.json", "{}"), "it has no image"),
        (document("index.json", outside), "no SHA-256 digest"),
        (document("index.json", &dangling), "is missing"),
        (document("manifest.json", "[]"), "no such image"),
        (document("manifest.json", saved_outside), "cannot read /etc/passwd"),
    ] {
        let refusal = refusal(&files, None);
        assert!(refusal.contains(why), "{refusal}: no {why}");
    }
    let scratch = Scratch::new();
    let path = scratch.0.join("x.tar.gz");
    fs::write(&path, [0x1f, 0x8b, 8, 0]).expect("a file");
    let refusal = Image::open(&path, None).expect_err("refused").to_string();
    assert!(refusal.contains("uncompress it first"), "{refusal}");
    assert!(Image::open(&scratch.0.join("gone"), None).is_err());
    assert!(Image::open("/dev/null".as_ref(), None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any byte of any file changed: the same image, or none.
    #[test]
    fn a_changed_byte_is_noticed(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let sound = layout(&layers(), &config());
        let mut files = sound.clone();
        let name = sound.0.keys().nth(which.index(sound.0.len())).expect("a name").clone();
        let content = files.0.get_mut(&name).expect("a file");
        let place = place.index(content.len());
        content[place] ^= flip;
        let scratch = Scratch::new();
        files.write_folder(&scratch.0);
        if let Ok(image) = Image::open(&scratch.0, None)
            && unpacked(&image).is_ok()
        {
            check(&image);
        }
    }
}
