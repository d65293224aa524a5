//! `gemello images`, `rm` and `prune`: what there is, and what it takes.

use super::pulled::{self, Known};
use super::{base, overlay};
use crate::debian::{Lock, cache_directory, entries, is_draft, system};
use crate::exit;
use crate::room::{size, taken};
use crate::settings::name::MachineName;
use crate::settings::values::Text as _;
use crate::template;
use anyhow::{Context as _, Result, bail};
use oci::Name;
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Digits of a digest that are shown.
const SHOWN: usize = 12;

/// A root that is there.
struct Image {
    folder: PathBuf,
    digits: String,
    names: Vec<String>,
    bytes: u64,
}

/// A machine that is kept.
struct Kept {
    name: String,
    path: PathBuf,
    /// The digits of its image.
    image: String,
    bytes: u64,
}

/// Prints what there is.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn list(as_json: bool) -> Result<u8> {
    let cache = cache_directory()?;
    let (images, machines) = (images(&cache)?, machines(&cache)?);
    let (templates, room) = template::room();
    if as_json {
        let image = |it: &Image| {
            let (name, names) = (it.names.first(), &it.names);
            json!({ "name": name, "names": names, "digest": it.digits, "bytes": it.bytes })
        };
        let machine = |it: &Kept| json!({ "name": it.name, "image": it.image, "bytes": it.bytes });
        let document = json!({
            "images": images.iter().map(image).collect::<Vec<_>>(),
            "machines": machines.iter().map(machine).collect::<Vec<_>>(),
            "templates": { "count": templates, "bytes": room },
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(exit::OK);
    }
    println!("{:SHOWN$}  {:>10}  IMAGE", "DIGEST", "SIZE");
    for Image { digits, names, bytes, .. } in &images {
        println!("{}  {:>10}  {}", short(digits), size(*bytes), names.join(", "));
    }
    if !machines.is_empty() {
        println!("\n{:SHOWN$}  {:>10}  MACHINE", "IMAGE", "SIZE");
    }
    for Kept { name, image, bytes, .. } in &machines {
        println!("{}  {:>10}  {name}", short(image), size(*bytes));
    }
    if templates > 0 {
        println!("\nearlier boots to go on from: {templates}, {}", size(room));
    }
    Ok(exit::OK)
}

/// Removes the machines, or the images, that `names` call so.
///
/// # Errors
/// There is none, or it is used: those before it are removed.
pub(crate) fn remove(names: &[String]) -> Result<u8> {
    let cache = cache_directory()?;
    for name in names {
        let machine = machines(&cache)?.into_iter().find(|it| it.name == *name);
        match machine {
            Some(machine) => remove_machine(&machine)?,
            None => remove_image(&cache, name)?,
        }
    }
    Ok(exit::OK)
}

/// Removes what no machine needs, and says what that gives back.
///
/// # Errors
/// The host's.
pub(crate) fn prune() -> Result<u8> {
    let cache = cache_directory()?;
    let mut freed = 0;
    for path in entries(&overlay::folder(&cache))?.into_iter().filter(|it| overlay::is_left(it)) {
        freed += taken(&path);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    freed += pulled::prune(&cache)?;
    let all = base::folder(&cache);
    if all.exists() {
        let _lock = Lock::acquire(&all)?; // nobody makes one now
        let machines = machines(&cache)?;
        for image in images(&cache)? {
            let needed = machines.iter().any(|machine| machine.image == image.digits);
            if !needed && removed(&cache, &image)? {
                freed += image.bytes;
            }
        }
        for draft in entries(&all)?.into_iter().filter(|it| is_draft(it)) {
            freed += taken(&base::root(&draft));
            fs::remove_dir_all(&draft)
                .with_context(|| format!("cannot remove {}", draft.display()))?;
        }
    }
    freed += system::prune()? + template::prune()?;
    println!("{} freed", size(freed));
    Ok(exit::OK)
}

fn remove_machine(machine: &Kept) -> Result<()> {
    let path = &machine.path;
    let attempt = || format!("cannot remove {}", path.display());
    let file = File::options().read(true).write(true).open(path).with_context(attempt)?;
    if matches!(disk_image::claim(&file), Ok(false)) {
        bail!("{} runs; stop it first: gemello stop {}", machine.name, machine.name);
    }
    fs::remove_file(path).with_context(attempt)
}

fn remove_image(cache: &Path, name: &str) -> Result<()> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let whole = Name::parse(name).ok().and_then(|it| pulled::locate(&it).ok());
    let whole = whole.map_or_else(|| name.to_owned(), |it| it.to_string());
    let is = |it: &Image| {
        it.names.contains(&whole) || digits.len() >= 4 && it.digits.starts_with(digits)
    };
    let found: Vec<_> = images(cache)?.into_iter().filter(is).collect();
    let [image] = &found[..] else {
        let what = if found.is_empty() { "no machine or image" } else { "more than one image" };
        bail!("{what} is called {name}; see gemello images");
    };
    let users = machines(cache)?.into_iter().filter(|machine| machine.image == image.digits);
    let users: Vec<_> = users.map(|machine| machine.name).collect();
    if !users.is_empty() {
        bail!("{name} is the root of {}; remove them first", users.join(", "));
    }
    if !removed(cache, image)? {
        bail!("a machine is just being made of {name}; try again");
    }
    Ok(())
}

fn removed(cache: &Path, image: &Image) -> Result<bool> {
    let Image { folder, digits, .. } = image;
    let removed = base::remove(folder);
    let removed = removed.with_context(|| format!("cannot remove {}", folder.display()))?;
    if removed {
        Known::forget(cache, digits);
    }
    Ok(removed)
}

fn images(cache: &Path) -> Result<Vec<Image>> {
    let all = base::folders(cache)?;
    let known = Known::all(cache);
    let found = all.into_iter().filter_map(|folder| {
        let note = base::note(&folder)?;
        let means = known.iter().filter(|known| known.image == note.digest);
        let mut names: Vec<_> = means.map(|known| known.name.clone()).collect();
        // A file is always called so; a registry's name may mean another image by now.
        if !Name::is_meant(note.name.as_bytes()) {
            names.insert(0, note.name);
        } else if names.is_empty() {
            names.push(format!("{} (earlier)", note.name));
        }
        let bytes = taken(&base::root(&folder));
        Some(Image { folder, digits: note.digest.hex(), names, bytes })
    });
    Ok(found.collect())
}

fn machines(cache: &Path) -> Result<Vec<Kept>> {
    let all = entries(&overlay::folder(cache))?.into_iter();
    let found = all.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".qcow2")?.to_owned();
        MachineName::parse(&name).ok()?; // others are no machines'
        let below = overlay::below(&path).unwrap_or_default();
        let image = below.parent().and_then(Path::file_name).unwrap_or_default();
        let (image, bytes) = (image.to_string_lossy().into_owned(), taken(&path));
        Some(Kept { name, path, image, bytes })
    });
    Ok(found.collect())
}

fn short(digits: &str) -> &str {
    digits.get(..SHOWN).unwrap_or(digits)
}
