//! Images as the roots of machines.
//!
//! ```text
//! <cache>/images/<digest>/    root.ext4, never written again, and image.json: made by one rename
//! <cache>/pulled/             what comes from registries, and what names mean there
//! <cache>/machines/NAME.qcow2 what the machine NAME has written over a root
//! ```
//!
//! A root that somebody uses is locked, shared, by flock(2) on its file ([`base`]). Who removes one
//! locks it alone. Making one is under the lock of the folder `images`.

mod base;
pub(crate) mod commands;
mod overlay;
mod pulled;

pub(crate) use base::Note;

use crate::debian::{Refresh, cache_directory};
use crate::settings::Settings;
use crate::settings::disk::DiskSettings;
use crate::settings::image::ImageName;
use crate::settings::name::MachineName;
use crate::settings::values::Text as _;
use anyhow::Result;
use base::Base;
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
    overlay: Overlay,
}

impl Root {
    /// That of the machine of `settings`, if they say that it has an image as its root. The image
    /// is unpacked where that has not been done yet.
    ///
    /// # Errors
    /// There is no image, it is damaged, or the host has no room.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let Some(name) = &settings.boot.image else { return Ok(None) };
        let cache = cache_directory()?;
        let base = base(&cache, name, settings.kept_as())?;
        let overlay = match settings.kept_as() {
            Some(machine) => Overlay::kept(&cache, machine, base.path())?,
            None => Overlay::scratch(&cache, base.path())?,
        };
        Ok(Some(Self { base, overlay }))
    }

    /// What is known of the image.
    pub(crate) fn note(&self) -> &Note {
        &self.base.note
    }

    /// The machine's first disk.
    pub(crate) fn disk(&self) -> DiskSettings {
        self.overlay.disk(self.base.path())
    }

    /// The file that the disk is over.
    pub(crate) fn source(&self) -> PathBuf {
        self.base.path().to_owned()
    }
}
