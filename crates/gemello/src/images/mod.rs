//! Images as the roots of machines.
//!
//! ```text
//! <cache>/images/<digest>/    root.ext4, never written again, and image.json: made by one rename
//! <cache>/pulled/             what comes from registries, and what names mean there
//! <cache>/machines/NAME.qcow2 what the machine NAME has written over a root
//! ```
//!
//! A whole system's root has its kernel beside it, `<digest>/kernel/`: its modules are in the root.
//! A root that somebody uses is locked, shared, by flock(2) on its file ([`base`]). Who removes one
//! locks it alone. Making one is under the lock of the folder `images`.

mod assembly;
mod base;
pub(crate) mod commands;
mod configure;
mod overlay;
mod pulled;
pub(crate) mod system;

pub(crate) use base::{Contents, Note};

use crate::debian::{Fetched, Refresh, cache_directory};
use crate::settings::Settings;
use crate::settings::disk::DiskSettings;
use crate::settings::image::ImageName;
use crate::settings::name::MachineName;
use crate::settings::values::Text as _;
use anyhow::{Context as _, Result};
use base::Base;
use disk_image::ImageFormat;
use machine::Cache;
use oci::{Image, Name};
use overlay::Overlay;
use std::path::{Path, PathBuf};

/// Brings the image `name` of a registry, or brings it up to date.
///
/// # Errors
/// There is no such image, the registry does not give it, or the host has no room.
pub(crate) fn fetch(name: &Name) -> Result<()> {
    pulled::find(&cache_directory()?, name, Refresh::Always).map(drop)
}

/// The root that the image `name` is, or becomes, for the machine that is kept as `machine`.
fn base(cache: &Path, name: &ImageName, machine: Option<&MachineName>) -> Result<Base> {
    match name {
        ImageName::File(_) => {
            let (path, tag) = name.split();
            base::of(cache, &Image::open(path, tag)?, name.text())
        }
        ImageName::Registry(called) => {
            let kept = machine.map(|machine| pulled::kept(cache, machine, called)).transpose()?;
            let kept = kept.flatten();
            kept.map_or_else(|| pulled::find(cache, called, Refresh::IfMissing), Ok)
        }
    }
}

/// The root of a machine that is to be built.
#[derive(Debug)]
pub(crate) struct Root {
    base: Base,
    /// What is written over it; without, the root itself is written.
    overlay: Option<Overlay>,
}

impl Root {
    /// That of the machine of `settings`, if they say that it has an image as its root. The image
    /// is unpacked where that has not been done yet.
    ///
    /// # Errors
    /// There is no image, it is damaged, or the host has no room.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let kept = settings.kept_as();
        let (cache, base) = match (&settings.boot.image, settings.boot.debian) {
            (None, None) => return Ok(None),
            (Some(name), _) => {
                let cache = cache_directory()?;
                let base = base(&cache, name, kept.as_ref())?;
                (cache, base)
            }
            (None, Some(release)) => {
                let cache = cache_directory()?;
                // A machine goes on with the root that it began with.
                let own = kept.as_ref().and_then(|name| overlay::base(&cache, name));
                let own = own.and_then(|folder| Base::open(&folder));
                let own = own.filter(|base| base.note.contents.is_system(release));
                let base = own.map_or_else(|| system::find_or_make(&cache, release), Ok)?;
                (cache, base)
            }
        };
        let overlay = Some(match &kept {
            Some(machine) => Overlay::kept(&cache, machine, base.path())?,
            None => Overlay::scratch(&cache, base.path())?,
        });
        Ok(Some(Self { base, overlay }))
    }

    /// That in `folder`, which is a system's before its first boot.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn unconfigured(folder: &Path) -> Result<Self> {
        let base = Base::open(folder);
        let base = base.filter(|it| matches!(it.note.contents, Contents::Unconfigured { .. }));
        let base = base.with_context(|| format!("{} holds no such root", folder.display()))?;
        Ok(Self { base, overlay: None })
    }

    /// Whether what is written over it is there again at the next run.
    pub(crate) fn is_kept(&self) -> bool {
        self.overlay.as_ref().is_some_and(Overlay::is_kept)
    }

    /// What is known of the image.
    pub(crate) fn note(&self) -> &Note {
        &self.base.note
    }

    /// The machine's first disk.
    pub(crate) fn disk(&self) -> DiskSettings {
        match &self.overlay {
            Some(overlay) => overlay.disk(self.base.path()),
            None => DiskSettings {
                path: self.source(),
                format: Some(ImageFormat::Raw),
                cache: Some(Cache::Unsafe),
                ..DiskSettings::default()
            },
        }
    }

    /// The kernel that it is for, if it brings one.
    pub(crate) fn kernel(&self) -> Option<Fetched> {
        self.base.kernel()
    }

    /// The file that the disk is over.
    pub(crate) fn source(&self) -> PathBuf {
        self.base.path().to_owned()
    }
}
