//! Roots that machines are built on: file systems that are made once of an image and never written.

use crate::debian::{Draft, Fetched, Lock, Release, entries, is_draft, refused};
use anyhow::{Context as _, Result, anyhow};
use oci::{Config, Digest, Image, ImageError, User};
use rootfs::{FileSystem, Identity, Tree, WriteError};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The file system.
const ROOT: &str = "root.ext4";
/// What is known of it.
const NOTE: &str = "image.json";
/// Free bytes in a root: holes, until a machine writes.
const ROOM: u64 = 8 << 30;
/// Folders that every root has: where the agent mounts, and writes who resolves names.
const FOLDERS: [&str; 4] = ["proc", "sys", "dev", "etc"];

/// How systems are made; with another number the old ones serve the machines on them alone.
/// 1: the first boot is done.
pub(super) const FORMAT: u32 = 1;

/// In the folder of a system, the kernel that its modules are for.
pub(super) const KERNEL: &str = "kernel";

/// What is known of a root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// As the user called it.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    #[serde(flatten)]
    pub(crate) contents: Contents,
}

/// What a root is the root of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Contents {
    /// An image: a command.
    Image {
        config: Config,
        /// As whom the command runs.
        user: User,
    },
    /// A whole system, of this release. It was made as those of this `format` are.
    System {
        system: Release,
        #[serde(default)]
        format: u32,
    },
    /// The same before its first boot.
    Unconfigured { unconfigured: Release },
}

impl Contents {
    /// Whether it is a whole system of `release`.
    pub(super) fn is_system(&self, release: Release) -> bool {
        matches!(self, Self::System { system, .. } if *system == release)
    }

    /// Whether it is one that is made so today.
    pub(super) fn is_current(&self, release: Release) -> bool {
        self.is_system(release) && matches!(self, Self::System { format: FORMAT, .. })
    }
}

/// A root that nobody removes as long as this is there.
#[derive(Debug)]
pub(crate) struct Base {
    path: PathBuf,
    pub(crate) note: Note,
    /// Locked, shared.
    _file: File,
}

impl Base {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What boots it, where it brings that.
    pub(super) fn kernel(&self) -> Option<Fetched> {
        Fetched::at(&self.path.with_file_name(KERNEL))
    }

    /// That in `folder`, if it is there, whole.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        let path = folder.join(ROOT);
        let file = File::open(&path).ok()?;
        let _ = file.lock_shared(); // some network file systems know no locks
        // It may have been removed before it was locked.
        let (held, there) = (file.metadata().ok()?, fs::metadata(&path).ok()?);
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return None;
        }
        let note = note(folder)?;
        Some(Self { path, note, _file: file })
    }
}

/// What is known of the image in `folder`.
pub(super) fn note(folder: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(folder.join(NOTE)).ok()?).ok()
}

/// The folder of all roots.
pub(super) fn folder(cache: &Path) -> PathBuf {
    cache.join("images")
}

/// The folder of each root that is finished.
pub(super) fn folders(cache: &Path) -> Result<Vec<PathBuf>> {
    let all = entries(&folder(cache))?.into_iter();
    Ok(all.filter(|path| !is_draft(path)).collect())
}

/// The file of the root in `folder`.
pub(super) fn root(folder: &Path) -> PathBuf {
    folder.join(ROOT)
}

/// Removes the root in `folder`; false: somebody uses it.
///
/// # Errors
/// The host's.
pub(super) fn remove(folder: &Path) -> std::io::Result<bool> {
    match File::open(folder.join(ROOT)) {
        Ok(file) => {
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                return Ok(false);
            }
            // While it is locked: whoever waits for the lock then finds another file or none.
            fs::remove_file(folder.join(ROOT))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::remove_dir_all(folder)?;
    Ok(true)
}

/// The folder of the root that `image` becomes.
pub(super) fn place(cache: &Path, image: Digest) -> PathBuf {
    folder(cache).join(image.hex())
}

/// The root that `image` becomes, which is called `name`, made where it is not there yet.
///
/// # Errors
/// It is damaged, or the host has no room.
pub(super) fn of(cache: &Path, image: &Image, name: String) -> Result<Base> {
    let all = folder(cache);
    let place = place(cache, image.digest());
    if let Some(base) = Base::open(&place) {
        return Ok(base);
    }
    let _lock = Lock::acquire(&all)?;
    if let Some(base) = Base::open(&place) {
        return Ok(base); // another process was faster
    }
    make(image, name, &all, &place)?;
    Base::open(&place).with_context(|| format!("{} is incomplete", place.display()))
}

/// Unpacks `image`, and publishes what it becomes at `place`.
fn make(image: &Image, name: String, all: &Path, place: &Path) -> Result<()> {
    let draft = Draft::new(all, "image")?;
    let spool = spool(draft.path())?;
    let mut tree = unpack(image, &spool)?;
    let config = image.config().clone();
    for folder in FOLDERS.into_iter().chain([config.folder.as_str()]) {
        tree.make_folder(folder.as_bytes())?;
    }
    let user = user(&mut tree, &spool, &config)?;
    let contents = Contents::Image { config, user };
    let note = Note { name, digest: image.digest(), contents };
    write(&draft, &tree, &spool, &note)?;
    seal(&draft, &note)?;
    draft.publish(place)
}

/// The refusal to write `what`.
fn no_room(what: &Path, error: &std::io::Error) -> anyhow::Error {
    refused(&format!("cannot write {}", what.display()), error)
}

/// A file for content, which is gone with this process, whatever becomes of it.
///
/// # Errors
/// The host's.
pub(super) fn spool(folder: &Path) -> Result<File> {
    let path = folder.join("layers");
    let spool = File::options().read(true).write(true).create_new(true).open(&path);
    let spool = spool.map_err(|error| no_room(&path, &error))?;
    fs::remove_file(&path).map_err(|error| no_room(&path, &error))?;
    Ok(spool)
}

/// Writes `tree`, with its content in `spool`, as the root in `draft`, of which this is known.
///
/// # Errors
/// The host's, or ext4 cannot hold it.
pub(super) fn write(draft: &Draft, tree: &Tree, spool: &File, note: &Note) -> Result<()> {
    eprintln!("gemello: making the root file system");
    let path = draft.path().join(ROOT);
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|error| no_room(&path, &error))?;
    let mut identity = [0; 16];
    identity.copy_from_slice(&note.digest.bytes()[..16]);
    let file_system = FileSystem { identity: Identity(identity), room: ROOM };
    tree.write(spool, &file, file_system).map_err(|error| match error {
        WriteError::Host(error) => no_room(&path, &error),
        other => other.into(),
    })?;
    note_down(draft, note)
}

fn note_down(draft: &Draft, note: &Note) -> Result<()> {
    let path = draft.path().join(NOTE);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&serde_json::to_vec_pretty(note)?)?;
        file.sync_all()
    };
    write().map_err(|error| no_room(&path, &error))
}

/// The root in `draft` is not written again, and safe on the host's disk; this is known of it.
///
/// # Errors
/// The host's.
pub(super) fn seal(draft: &Draft, note: &Note) -> Result<()> {
    let path = root(draft.path());
    let seal = || {
        let file = File::open(&path)?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()
    };
    seal().map_err(|error| no_room(&path, &error))?;
    note_down(draft, note)
}

/// The names in all of the image's layers; the content is in `spool`.
fn unpack(image: &Image, spool: &File) -> Result<Tree> {
    let mut tree = Tree::default();
    let layers = image.layers();
    for (layer, number) in layers.iter().zip(1..) {
        let (all, size) = (layers.len(), layer.bytes >> 10);
        eprintln!("gemello: unpacking layer {number} of {all} ({size} KiB)");
        let content = image.unpack(layer, spool).map_err(|error| match error {
            ImageError::Spool(error) => refused("cannot write the unpacked layers", &error),
            other => other.into(),
        })?;
        let applied = tree.apply(spool, content);
        applied.map_err(|error| anyhow!("layer {number} is no layer: {error}"))?;
    }
    Ok(tree)
}

/// As whom the image's command runs.
fn user(tree: &mut Tree, spool: &File, config: &Config) -> Result<User> {
    let mut read = |path: &str| -> Result<Vec<u8>> {
        let text = tree.read(spool, path.as_bytes());
        Ok(text.with_context(|| format!("cannot read the image's {path}"))?.unwrap_or_default())
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    User::find(&config.user, &passwd, &group).context("the image cannot run")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that was killed leaves its draft, with a note of what it was to be.
    #[test]
    fn a_draft_is_no_root() {
        let cache = std::env::temp_dir().join(format!("gemello-roots-{}", std::process::id()));
        assert!(folders(&cache).expect("none").is_empty());
        for name in ["b", "a", "system.partial"] {
            fs::create_dir_all(folder(&cache).join(name)).expect("a folder");
        }
        let found = folders(&cache).expect("some");
        assert_eq!(found, ["a", "b"].map(|name| folder(&cache).join(name)));
        fs::remove_dir_all(cache).expect("ours");
    }

    #[test]
    fn a_system_of_another_format_is_not_built_on() {
        let of = |rest: &str| -> Contents {
            let digest = Digest::of(b"x");
            let text = format!(r#"{{"name": "x", "digest": "{digest}", {rest}}}"#);
            serde_json::from_str::<Note>(&text).expect("a note").contents
        };
        let (old, new) = (of(r#""system": "trixie""#), of(r#""system": "trixie", "format": 1"#));
        assert!(old.is_system(Release::Trixie) && !old.is_current(Release::Trixie));
        assert!(new.is_system(Release::Trixie) && new.is_current(Release::Trixie));
        assert!(!new.is_system(Release::Sid) && !new.is_current(Release::Sid));
        assert!(!of(r#""unconfigured": "trixie""#).is_system(Release::Trixie));
    }
}
