//! Archives as tests write them, and what others read in an image.

use crate::any_archive;
use ext4_view::Ext4;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tar::{EntryType, Header};

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    /// An entry of any type, its header as `change` leaves it.
    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, content, |_| {})
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, b"", |_| {})
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        let change = |header: &mut Header| {
            header.set_link_name_literal(target).expect("short enough");
        };
        self.entry(EntryType::Symlink, path, b"", change)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        let change = |header: &mut Header| {
            header.set_link_name_literal(target).expect("short enough");
        };
        self.entry(EntryType::Link, path, b"", change)
    }

    /// Records about the next entry.
    pub(crate) fn records(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = |length: usize| length.to_string().len();
            let length = rest + digits(rest);
            let length = rest + digits(length);
            text.extend(format!("{length} {key}=").bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.entry(EntryType::XHeader, "records", &text, |_| {})
    }

    /// This one's entries, then those of `other`.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// As it is, without an end.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    /// Ended as tar ends one.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// The layers as an image, as another program reads it.
pub(crate) fn read(layers: &[Layer]) -> Ext4 {
    let layers: Vec<_> = layers.iter().map(|Layer(bytes)| &bytes[..]).collect();
    let image = any_archive::build(&layers).expect("an image");
    Ext4::load(Box::new(any_archive::Image(image))).expect("a file system")
}

/// Why there is no image of `layer`; nothing if there is one.
pub(crate) fn refusal(layer: &Layer) -> String {
    any_archive::build(&[&layer.0]).err().unwrap_or_default()
}

/// Names in a folder, `lost+found` apart.
pub(crate) fn names(image: &Ext4, folder: &str) -> Vec<String> {
    let entries = image.read_dir(folder).expect("a folder");
    let name = |entry: Result<ext4_view::DirEntry, _>| {
        let entry = entry.expect("an entry");
        entry.file_name().as_str().expect("text").to_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.retain(|name| ![".", "..", "lost+found"].contains(&name.as_str()));
    names.sort();
    names
}

/// An image in a file of the host's, for its programs.
pub(crate) struct OnDisk(pub(crate) PathBuf);

impl OnDisk {
    pub(crate) fn of(layers: &[Layer]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-rootfs-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let layers: Vec<_> = layers.iter().map(|Layer(bytes)| &bytes[..]).collect();
        let mut image = any_archive::build(&layers).expect("an image");
        let mut file = File::create(&path).expect("a file");
        std::io::copy(&mut image, &mut file).expect("room");
        Self(path)
    }

    /// What e2fsck complains of; `None` on a host without it.
    pub(crate) fn complaints(&self) -> Option<String> {
        let output = tool("e2fsck").args(["-f", "-n"]).arg(&self.0).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(if output.status.success() { String::new() } else { text })
    }

    /// What debugfs answers.
    pub(crate) fn debugfs(&self, request: &str) -> Option<String> {
        let output = tool("debugfs").args(["-R", request]).arg(&self.0).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A program of e2fsprogs, which users have in no path.
fn tool(name: &str) -> Command {
    let path = format!("/usr/sbin/{name}");
    Command::new(if std::path::Path::new(&path).exists() { path } else { name.to_owned() })
}
