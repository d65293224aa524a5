//! Images as tests make them: an image layout or what `docker save` writes, in a folder or an
//! archive.

use flate2::Compression;
use flate2::write::GzEncoder;
use oci::Digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use tar::{EntryType, Header};

/// How a layer lies in the image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn pack(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => archive.to_vec(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(archive).expect("memory");
                encoder.finish().expect("memory")
            }
            Self::Zstd => {
                use ruzstd::encoding::{CompressionLevel, compress_to_vec};
                // A frame without data before it, as some tools write.
                let mut packed = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
                packed.extend(compress_to_vec(archive, CompressionLevel::Fastest));
                packed
            }
        }
    }
}

/// A layer's archive under construction.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, (uid, gid): (u64, u64)) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        header
    }

    pub(crate) fn file(mut self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, mode, owner);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).expect("memory");
        self
    }

    pub(crate) fn folder(mut self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        let mut header = Self::header(EntryType::Directory, mode, owner);
        self.0.append_data(&mut header, path, &[][..]).expect("memory");
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(EntryType::Symlink, 0o777, (0, 0));
        self.0.append_link(&mut header, path, target).expect("memory");
        self
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

/// The files of an image.
#[derive(Clone, Default)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds a blob; its descriptor.
    pub(crate) fn blob(&mut self, content: Vec<u8>) -> Value {
        let digest = Digest::of(&content);
        let size = content.len();
        self.0.insert(format!("blobs/sha256/{}", digest.hex()), content);
        json!({ "mediaType": "application/x", "digest": digest.to_string(), "size": size })
    }

    pub(crate) fn document(&mut self, name: &str, value: &Value) {
        self.0.insert(name.to_owned(), value.to_string().into_bytes());
    }

    /// The name of the largest blob.
    pub(crate) fn largest_blob(&self) -> String {
        let blobs = self.0.iter().filter(|(name, _)| name.starts_with("blobs/"));
        blobs.max_by_key(|(_, content)| content.len()).expect("a blob").0.clone()
    }

    pub(crate) fn write_folder(&self, folder: &Path) {
        for (name, content) in &self.0 {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
    }

    pub(crate) fn write_archive(&self, path: &Path) {
        let mut archive = Archive::new();
        for (name, content) in &self.0 {
            archive = archive.file(name, 0o644, (0, 0), content);
        }
        fs::write(path, archive.end()).expect("a file");
    }
}

fn configuration(layers: &[(Vec<u8>, Packing)], config: &Value, architecture: &str) -> Vec<u8> {
    let digest = |(archive, _): &(Vec<u8>, Packing)| Digest::of(archive).to_string();
    let diff_ids: Vec<_> = layers.iter().map(digest).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let document = json!({
        "architecture": architecture, "os": "linux", "config": config, "rootfs": rootfs,
    });
    document.to_string().into_bytes()
}

/// The manifest of an image, added to `files`; its descriptor in an index.
pub(crate) fn manifest(
    files: &mut Files,
    layers: &[(Vec<u8>, Packing)],
    config: &Value,
    architecture: &str,
) -> Value {
    let config = files.blob(configuration(layers, config, architecture));
    let blobs = layers.iter().map(|(archive, packing)| packing.pack(archive));
    let blobs: Vec<_> = blobs.collect();
    let layers: Vec<_> = blobs.into_iter().map(|blob| files.blob(blob)).collect();
    let document = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut descriptor = files.blob(document.to_string().into_bytes());
    descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
    descriptor
}

/// An image layout (image-spec, image-layout.md).
pub(crate) fn layout(layers: &[(Vec<u8>, Packing)], config: &Value) -> Files {
    let mut files = Files::default();
    let ours = manifest(&mut files, layers, config, "amd64");
    let other = manifest(&mut files, &[], &json!({}), "arm64");
    files.document("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
    files.document("index.json", &json!({ "schemaVersion": 2, "manifests": [other, ours] }));
    files
}

/// What `docker save` has long written: configuration and layers by names of their own.
pub(crate) fn saved(layers: &[(Vec<u8>, Packing)], config: &Value) -> Files {
    let mut files = Files::default();
    let config = configuration(layers, config, "amd64");
    let name = format!("{}.json", Digest::of(&config).hex());
    files.0.insert(name.clone(), config);
    let mut names = Vec::new();
    for (n, (archive, packing)) in layers.iter().enumerate() {
        let name = format!("{n:064}/layer.tar");
        files.0.insert(name.clone(), packing.pack(archive));
        names.push(name);
    }
    let one = json!({ "Config": name, "RepoTags": ["a/b:latest"], "Layers": names });
    files.document("manifest.json", &json!([one]));
    files
}
