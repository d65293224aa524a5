//! Images of registries: what their names meant last, and what is being brought.
//!
//! ```text
//! <cache>/pulled/blobs/sha256/  what was brought of images whose root is not made yet
//! <cache>/pulled/names/         for each name, what it meant and which root that became
//! ```
//!
//! Both are written under the lock of the folder `pulled`, and appear by renames. Blobs are removed
//! as soon as the root is made.

use super::base::{self, Base};
use super::overlay;
use crate::debian::{Lock, Refresh, refused};
use crate::room::{size, taken};
use crate::settings::name::MachineName;
use anyhow::{Result, bail};
use oci::{Digest, Found, Image, ImageError, Location, Name, Patience, Progress};
use oci::{RegistryError, Remote};
use serde::{Deserialize, Serialize};
use std::env;
use std::fs;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The registry of names that say none.
const DEFAULT: &str = "GEMELLO_REGISTRY";
/// Between two looks at a terminal.
const GLANCE: Duration = Duration::from_millis(100);

/// What a name meant when it was last asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) name: String,
    /// The manifest or index.
    named: Digest,
    /// The root that it became.
    pub(super) image: Digest,
}

/// The folder of all this.
pub(super) fn folder(cache: &Path) -> PathBuf {
    cache.join("pulled")
}

fn names(cache: &Path) -> PathBuf {
    folder(cache).join("names")
}

/// Where `name` is.
///
/// # Errors
/// No registry is said.
pub(super) fn locate(name: &Name) -> Result<Location> {
    let default = env::var(DEFAULT).ok().filter(|host| !host.is_empty());
    name.locate(default.as_deref()).map_err(explained)
}

impl Known {
    fn place(cache: &Path, name: &str) -> PathBuf {
        names(cache).join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn read(path: &Path) -> Option<Self> {
        let whole = path.extension().is_some_and(|extension| extension == "json");
        whole.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()
    }

    fn of(cache: &Path, location: &Location) -> Option<Self> {
        let name = location.to_string();
        Self::read(&Self::place(cache, &name)).filter(|known| known.name == name)
    }

    /// All that are known, by name.
    pub(super) fn all(cache: &Path) -> Vec<Self> {
        let entries = fs::read_dir(names(cache)).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries.filter_map(|entry| Self::read(&entry.path())).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// That no name means `image` any more: its root is gone.
    pub(super) fn forget(cache: &Path, image: &str) {
        for known in Self::all(cache).iter().filter(|known| known.image.hex() == image) {
            let _ = fs::remove_file(Self::place(cache, &known.name));
        }
    }

    fn note(&self, cache: &Path) -> Result<()> {
        let place = Self::place(cache, &self.name);
        let draft = place.with_extension("partial");
        let write = || -> io::Result<()> {
            fs::create_dir_all(names(cache))?;
            fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&draft, &place)
        };
        write().map_err(|error| refused(&format!("cannot write {}", place.display()), &error))
    }
}

/// The root that the kept machine `machine` is over, if that was made of the image `name`: it goes
/// on with that, whatever the name means today.
pub(super) fn kept(cache: &Path, machine: &MachineName, name: &Name) -> Result<Option<Base>> {
    let location = locate(name)?;
    let base = overlay::base(cache, machine).and_then(|folder| Base::open(&folder));
    Ok(base.filter(|base| base.note.name == location.to_string()))
}

/// The root that the image `name` becomes. The registry is asked whether the name still means the
/// one that is there; where it does not answer, that goes on unless it is to be the newest.
///
/// # Errors
/// There is no such image, or not here and not to be had; or the host has no room.
pub(super) fn find(cache: &Path, name: &Name, refresh: Refresh) -> Result<Base> {
    let location = locate(name)?;
    let there = || {
        let known = Known::of(cache, &location)?;
        Some((Base::open(&base::place(cache, known.image))?, known.named))
    };
    let Some((base, named)) = there() else { return bring(cache, &location) };
    let newest = match is_meant(&location, named) {
        Ok(true) => return Ok(base),
        Ok(false) => bring(cache, &location),
        Err(error) => Err(explained(error)),
    };
    match newest {
        Err(error) if refresh == Refresh::IfMissing => {
            eprintln!("gemello: {error:#}; going on with the image that is here");
            Ok(base)
        }
        other => other,
    }
}

/// Whether the name at `location` means `named`.
fn is_meant(location: &Location, named: Digest) -> Result<bool, RegistryError> {
    if location.digest().is_some() {
        return Ok(true); // for ever
    }
    let current = Remote::new(location.clone(), Patience::default())?.current()?;
    Ok(current == Some(named))
}

/// Brings the image at `location`, and makes its root.
fn bring(cache: &Path, location: &Location) -> Result<Base> {
    let store = folder(cache);
    let _lock = Lock::acquire(&store)?;
    eprintln!("gemello: looking for {location}");
    let mut remote = Remote::new(location.clone(), Patience::default()).map_err(explained)?;
    let found = remote.find(&store).map_err(explained)?;
    let base = match Base::open(&base::place(cache, found.image)) {
        Some(base) => base, // of another name
        None => make(cache, location, &mut remote, &found)?,
    };
    found.discard(&store);
    let known = Known { name: location.to_string(), named: found.named, image: found.image };
    known.note(cache)?;
    Ok(base)
}

fn make(cache: &Path, location: &Location, remote: &mut Remote, found: &Found) -> Result<Base> {
    let store = folder(cache);
    let mut line = Line::default();
    let layers = remote.layers(found, &store, &mut |progress| line.show(progress));
    drop(line);
    layers.map_err(explained)?;
    let image = Image::pulled(&store, found.manifest)?;
    base::of(cache, &image, location.to_string()).inspect_err(|error| {
        // What is damaged here or there is to be fetched anew; what has no room goes on later.
        if matches!(error.downcast_ref(), Some(ImageError::Digest { .. })) {
            found.discard(&store);
        }
    })
}

/// Removes what interrupted runs have brought, and names whose root is gone; the bytes of it.
///
/// # Errors
/// The host's.
pub(super) fn prune(cache: &Path) -> Result<u64> {
    let store = folder(cache);
    if !store.exists() {
        return Ok(0);
    }
    let _lock = Lock::acquire(&store)?; // nobody brings one now
    for known in Known::all(cache) {
        if base::note(&base::place(cache, known.image)).is_none() {
            Known::forget(cache, &known.image.hex());
        }
    }
    let blobs = store.join("blobs");
    let files = fs::read_dir(blobs.join("sha256")).into_iter().flatten().flatten();
    let freed = files.map(|file| taken(&file.path())).sum();
    match fs::remove_dir_all(&blobs) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", blobs.display())
        }
        _ => Ok(freed),
    }
}

/// `error` with what helps where the disk is full.
fn explained(error: RegistryError) -> anyhow::Error {
    match error {
        RegistryError::Store { path, source } => {
            refused(&format!("cannot write {}", path.display()), &source)
        }
        other => other.into(),
    }
}

/// What is said of layers while they come: on a terminal one line that moves, else one for each.
#[derive(Default)]
struct Line {
    layer: usize,
    shown: Option<Instant>,
    open: bool,
}

impl Line {
    fn show(&mut self, Progress { layer, layers, done, bytes }: Progress) {
        let begins = layer != self.layer;
        let of = format!("gemello: fetching layer {layer} of {layers}");
        if !io::stderr().is_terminal() {
            if begins {
                eprintln!("{of} ({})", size(bytes));
            }
        } else if begins || done == bytes || self.shown.is_none_or(|it| it.elapsed() >= GLANCE) {
            let (done_, all) = (size(done), size(bytes));
            eprint!("\r\x1b[K{of}: {done_} of {all}");
            (self.shown, self.open) = (Some(Instant::now()), true);
            if done == bytes {
                self.end();
            }
        }
        self.layer = layer;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!("");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}
