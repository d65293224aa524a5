//! Images as the roots of machines.
//!
//! ```text
//! <cache>/images/<digest>/    root.ext4, never written again, and image.json: made by one rename
//! <cache>/machines/NAME.qcow2 what the machine NAME has written over a root
//! ```
//!
//! A root that somebody uses is locked, shared, by flock(2) on its file ([`base`]). Who removes one
//! locks it alone. Making one is under the lock of the folder `images`.

mod base;
pub(crate) mod commands;
mod overlay;

pub(crate) use base::Note;

use crate::debian::cache_directory;
use crate::settings::Settings;
use crate::settings::disk::DiskSettings;
use anyhow::Result;
use base::Base;
use overlay::Overlay;
use std::path::PathBuf;

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
        let base = base::find_or_make(&cache, name)?;
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
