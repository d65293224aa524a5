//! What a machine writes over its root: a qcow2 image of its own, made in milliseconds.

use crate::settings::disk::DiskSettings;
use crate::settings::name::MachineName;
use anyhow::{Context as _, Result, bail};
use disk_image::tools::{self, New};
use disk_image::{Backing, Image, ImageFormat};
use machine::Cache;
use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// What begins the name of one that is not kept: then follow the process and a number.
const SCRATCH: &str = ".scratch-";

/// A machine's disk.
#[derive(Debug)]
pub(crate) struct Overlay {
    path: PathBuf,
    life: Life,
}

/// How long it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Until the user removes it.
    Kept,
    /// As long as it is open; its name only until the machine is built.
    Scratch,
}

/// The folder of all of them.
pub(super) fn folder(cache: &Path) -> PathBuf {
    cache.join("machines")
}

/// The file of the machine `name`.
pub(super) fn file(cache: &Path, name: &str) -> PathBuf {
    folder(cache).join(format!("{name}.qcow2"))
}

impl Overlay {
    /// That of the machine `name` over the root at `base`: as it was left, or new.
    ///
    /// # Errors
    /// It is over another root, or the host's.
    pub(super) fn kept(cache: &Path, name: &MachineName, base: &Path) -> Result<Self> {
        let path = file(cache, &name.to_string());
        let kept = Self { path, life: Life::Kept };
        if !kept.path.exists() {
            let new = Self::scratch(cache, base)?;
            // Whole or not at all; and never in place of one that was made meanwhile.
            match fs::hard_link(&new.path, &kept.path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    let path = kept.path.display().to_string();
                    return Err(error).with_context(|| format!("cannot make {path}"));
                }
                _ => {}
            }
        }
        let real = |path: &Path| path.canonicalize().ok();
        if below(&kept.path).as_deref().and_then(real) != real(base) {
            bail!(
                "the machine {name} was made of another image; remove it (gemello rm {name}), or \
                 choose another name"
            );
        }
        Ok(kept)
    }

    /// One that is thrown away, over the root at `base`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn scratch(cache: &Path, base: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = folder(cache);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{SCRATCH}{}-{number}.qcow2", process::id()));
        let backing = Some((base.to_owned(), Some(ImageFormat::Raw)));
        tools::create(&path, &New { format: ImageFormat::Qcow2, bytes: None, backing })?;
        Ok(Self { path, life: Life::Scratch })
    }

    /// Whether it is there until the user removes it.
    pub(super) fn is_kept(&self) -> bool {
        self.life == Life::Kept
    }

    /// As a disk, over the root at `base`. What is thrown away need not be flushed.
    pub(super) fn disk(&self, base: &Path) -> DiskSettings {
        DiskSettings {
            path: self.path.clone(),
            format: Some(ImageFormat::Qcow2),
            cache: (self.life == Life::Scratch).then_some(Cache::Unsafe),
            backing: Some(base.to_owned()),
            ..DiskSettings::default()
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if self.life == Life::Scratch {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder of the root that the machine `name` is kept over.
pub(super) fn base(cache: &Path, name: &MachineName) -> Option<PathBuf> {
    Some(below(&file(cache, &name.to_string()))?.parent()?.to_owned())
}

/// The root that the overlay at `path` is over.
pub(super) fn below(path: &Path) -> Option<PathBuf> {
    let image =
        Image { format: Some(ImageFormat::Qcow2), backing: Backing::Allow, ..Image::at(path) };
    image.files().ok()?.into_iter().nth(1)
}

/// Whether the file at `path` was left by a process that is gone.
pub(super) fn is_left(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(rest) = name.strip_prefix(SCRATCH) else { return false };
    let process = rest.split('-').next().and_then(|number| number.parse().ok());
    process.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_err())
}
