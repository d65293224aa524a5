//! Images of registries (distribution-spec, "Pull"): their blobs are brought into a folder, from
//! which [`crate::Image::pulled`] takes them.
//!
//! The folder is the caller's, who lets one process at a time write there. A blob is verified
//! before it appears in `blobs/sha256`; what an interrupted run has left goes on. Everything that a
//! registry says is data from anywhere. Calls block; nothing waits for longer than [`Patience`]
//! says without a byte.

mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
mod name;

pub use error::RegistryError;
pub use name::{Location, Name};

use crate::Digest;
use crate::compressed::UNPACKED;
use crate::layout::{self, Contents, Descriptor, blob_name};
use crate::source::DOCUMENT;
use client::{Ask, Client};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;

/// Indexes within each other.
const NESTED: usize = 4;

/// How long a registry may be silent, and how often it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a byte.
    pub idle: Duration,
    /// Attempts that may fail before something comes.
    pub tries: u32,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
    /// The longest pause that a registry may ask for.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { idle: seconds(30), tries: 5, pause: seconds(1), longest: seconds(60) }
    }
}

/// How far a layer has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Which, from 1.
    pub layer: usize,
    /// Of how many.
    pub layers: usize,
    /// What is there of it.
    pub done: u64,
    /// All of it.
    pub bytes: u64,
}

/// An image that a registry has.
pub struct Remote {
    client: Client,
    location: Location,
}

/// What is known of an image whose layers may not be there yet.
#[derive(Debug)]
pub struct Found {
    /// What its name means: a manifest or an index.
    pub named: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// Its configuration, by which images are called.
    pub image: Digest,
    layers: Vec<Descriptor>,
}

impl Remote {
    /// That at `location`.
    ///
    /// # Errors
    /// The host has no certificates.
    pub fn new(location: Location, patience: Patience) -> Result<Self, RegistryError> {
        Ok(Self { client: Client::new(location.clone(), patience)?, location })
    }

    /// What its name means now, if the registry says so in short. It is asked once.
    ///
    /// # Errors
    /// The registry does not answer, or has no such image.
    pub fn current(&mut self) -> Result<Option<Digest>, RegistryError> {
        let response = self.client.get(Ask::Whether(&self.reference()))?;
        let field = response.headers().get("Docker-Content-Digest");
        let text = field.and_then(|it| it.to_str().ok());
        Ok(text.and_then(|text| Digest::try_from(text.to_owned()).ok()))
    }

    /// Brings its manifest and configuration to `store`.
    ///
    /// # Errors
    /// The registry's, or the host's.
    pub fn find(&mut self, store: &Path) -> Result<Found, RegistryError> {
        let folder = store.join(layout::BLOBS);
        let attempt = |source| RegistryError::Store { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(attempt)?;
        let mut reference = self.reference();
        let mut expected = self.location.digest();
        let mut named = None;
        for _ in 0..NESTED {
            let ask = Ask::Manifest(&reference);
            let text = self.document(ask, expected)?;
            let digest = Digest::of(&text);
            let named = *named.get_or_insert(digest);
            let contents = layout::contents(&text);
            match contents.map_err(|why| self.client.failure(ask, why))? {
                Contents::Image { config, layers } => {
                    let sizes = layers.iter().all(|it| it.size <= UNPACKED);
                    if !sizes || config.size > DOCUMENT {
                        let why = "its manifest has parts that are too large".to_owned();
                        return Err(self.client.failure(ask, why));
                    }
                    write(&place(store, digest), &text)?;
                    let path = place(store, config.digest);
                    blob::fetch(&mut self.client, &config, &path, &mut |_| ())?;
                    return Ok(Found { named, manifest: digest, image: config.digest, layers });
                }
                Contents::Index(next) => {
                    reference = next.digest.to_string();
                    expected = Some(next.digest);
                }
            }
        }
        let why = "its indexes lead to indexes, and to no image".to_owned();
        Err(self.client.failure(Ask::Manifest(&reference), why))
    }

    /// Brings the layers of `found` to `store`.
    ///
    /// # Errors
    /// The registry's, or the host's: what has come goes on later.
    pub fn layers(
        &mut self,
        found: &Found,
        store: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), RegistryError> {
        let layers = found.layers.len();
        for (descriptor, layer) in found.layers.iter().zip(1..) {
            let bytes = descriptor.size;
            let mut step = |done| progress(Progress { layer, layers, done, bytes });
            let path = place(store, descriptor.digest);
            blob::fetch(&mut self.client, descriptor, &path, &mut step)?;
            step(bytes);
        }
        Ok(())
    }

    fn reference(&self) -> String {
        match &self.location.reference {
            name::Reference::Tag(tag) => tag.clone(),
            name::Reference::Digest(digest) => digest.to_string(),
        }
    }

    /// The document that `ask` names, which is `expected` if anything is.
    fn document(&mut self, ask: Ask, expected: Option<Digest>) -> Result<Vec<u8>, RegistryError> {
        loop {
            let response: Response<_> = self.client.get(ask)?;
            match client::read(response, DOCUMENT) {
                Ok(text) if expected.is_none_or(|it| it == Digest::of(&text)) => return Ok(text),
                Ok(_) => {
                    let why = "what came is not what its digest says".to_owned();
                    return Err(self.client.failure(ask, why));
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.client.failure(ask, error.to_string()));
                }
                Err(error) => self.client.cut(ask, &error)?,
            }
        }
    }
}

impl Found {
    /// Removes what was brought of it to `store`.
    pub fn discard(&self, store: &Path) {
        let layers = self.layers.iter().map(|it| it.digest);
        for digest in layers.chain([self.manifest, self.image]) {
            let _ = fs::remove_file(place(store, digest)); // `prune` finds what stays
        }
    }
}

fn place(store: &Path, digest: Digest) -> PathBuf {
    store.join(blob_name(digest))
}

/// Puts `text` at `path`, whole or not at all.
fn write(path: &Path, text: &[u8]) -> Result<(), RegistryError> {
    let partial = path.with_extension("partial");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(text)?;
        file.sync_data()?;
        fs::rename(&partial, path)
    };
    write().map_err(|source| RegistryError::Store { path: path.to_owned(), source })
}
