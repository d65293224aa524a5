//! From an image's beginning to its manifest: image-spec's layout, or `docker save`'s.

use crate::config::Platform;
use crate::source::Source;
use crate::{Digest, ImageError};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Indexes within each other.
const NESTED: usize = 4;
/// Where blobs lie (image-spec, image-layout.md, "Blobs").
pub(crate) const BLOBS: &str = "blobs/sha256";
/// What an index says an image is called (image-spec, annotations.md, and containerd's own).
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Where something lies, and how large it is (image-spec, descriptor.md).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A manifest or an index: one has `config`, the other `manifests`.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// One image of `docker save`'s `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A file of the image.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it lies.
    pub(crate) name: String,
    /// What its content is called, and how much it is, if anything says so.
    pub(crate) known: Option<(Digest, Option<u64>)>,
}

/// What an image consists of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Part,
    pub(crate) layers: Vec<Part>,
}

/// What a manifest or an index leads to.
#[derive(Debug)]
pub(crate) enum Contents {
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    /// The manifest, or the index, of gemello's machines.
    Index(Descriptor),
}

/// Where the blob called `digest` lies.
pub(crate) fn blob_name(digest: Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// What `text` leads to; of several manifests for gemello's machines the first is meant.
///
/// # Errors
/// It is no such document, or leads to nothing for gemello's machines.
pub(crate) fn contents(text: &[u8]) -> Result<Contents, String> {
    let wrong = |error| format!("what came is no manifest of an image: {error}");
    let Document { config, layers, manifests } = serde_json::from_slice(text).map_err(wrong)?;
    if let Some(config) = config {
        return Ok(Contents::Image { config, layers });
    }
    let ours = |it: &&Descriptor| it.platform.as_ref().is_none_or(Platform::is_ours);
    match manifests.iter().find(ours) {
        Some(ours) => Ok(Contents::Index(ours.clone())),
        None => Err(for_others(&manifests)),
    }
}

fn for_others<'d>(all: impl IntoIterator<Item = &'d Descriptor>) -> String {
    let platforms = all.into_iter().filter_map(|it| it.platform.as_ref());
    let platforms: Vec<_> = platforms.map(ToString::to_string).collect();
    match &platforms[..] {
        [] => "it is no image, and no index of images".to_owned(),
        some => format!("it is for {}, and gemello runs linux/amd64", some.join(", ")),
    }
}

impl Part {
    fn of(descriptor: &Descriptor) -> Self {
        let name = blob_name(descriptor.digest);
        Self { name, known: Some((descriptor.digest, Some(descriptor.size))) }
    }

    /// A part of `docker save`'s: what is called by its digest is known by it.
    fn saved(name: &str) -> Self {
        let stem = name.rsplit('/').next().unwrap_or(name);
        let digest = Digest::from_hex(stem.strip_suffix(".json").unwrap_or(stem));
        Self { name: name.to_owned(), known: digest.map(|digest| (digest, None)) }
    }
}

/// The parts of the image in `source` that is called `tag`, or of its only one.
///
/// # Errors
/// There is none for gemello's machines, or there are several.
pub(crate) fn parts(source: &Source, tag: Option<&str>) -> Result<Parts, ImageError> {
    if let Some(index) = source.document("index.json")? {
        return indexed(source, &index, tag);
    }
    if let Some(saved) = source.document("manifest.json")? {
        return saved_parts(source, &saved, tag);
    }
    Err(source.refused(
        "it has neither index.json, as an OCI image layout has, nor manifest.json, as docker save \
         writes it",
    ))
}

/// The parts of the image in `source` whose manifest is called `manifest`.
///
/// # Errors
/// It is not there, or is damaged.
pub(crate) fn pulled(source: &Source, manifest: Digest) -> Result<Parts, ImageError> {
    let part = Part { name: blob_name(manifest), known: Some((manifest, None)) };
    match contents(&verified(source, "its manifest", &part)?) {
        Ok(Contents::Image { config, layers }) => {
            let layers = layers.iter().map(Part::of).collect();
            Ok(Parts { config: Part::of(&config), layers })
        }
        Ok(Contents::Index(_)) => Err(source.refused("its manifest is an index")),
        Err(why) => Err(source.refused(why)),
    }
}

fn indexed(source: &Source, index: &[u8], tag: Option<&str>) -> Result<Parts, ImageError> {
    let mut document: Document = source.parsed("index.json", index)?;
    let mut tag = tag;
    for _ in 0..NESTED {
        if let Some(config) = &document.config {
            let layers = document.layers.iter().map(Part::of).collect();
            return Ok(Parts { config: Part::of(config), layers });
        }
        let chosen = choose(source, &document.manifests, tag)?;
        tag = None; // it names one of the outermost index
        let part = Part::of(chosen);
        document = source.parsed("manifest", &verified(source, "its manifest", &part)?)?;
    }
    Err(source.refused("its indexes lead to indexes, and to no image"))
}

/// The one of `all` that is called `tag` and runs here.
fn choose<'d>(
    source: &Source,
    all: &'d [Descriptor],
    tag: Option<&str>,
) -> Result<&'d Descriptor, ImageError> {
    let named = |it: &&Descriptor| tag.is_none_or(|tag| names(it).any(|name| is(name, tag)));
    let called: Vec<_> = all.iter().filter(named).collect();
    if called.is_empty() {
        let tag = tag.unwrap_or_default();
        return Err(source.refused(format!("it has no image {tag:?}{}", there(all))));
    }
    let ours = |it: &&&Descriptor| it.platform.as_ref().is_none_or(Platform::is_ours);
    let ours: Vec<_> = called.iter().filter(ours).copied().collect();
    match &ours[..] {
        [] => Err(source.refused(for_others(called))),
        [first, rest @ ..] if rest.iter().all(|it| it.digest == first.digest) => Ok(first),
        _ => Err(source.refused(format!("it holds several images{}", there(all)))),
    }
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    NAMES.iter().filter_map(|name| descriptor.annotations.get(*name).map(String::as_str))
}

/// Whether `tag` means the image called `name`, by the whole or by what follows its last colon.
fn is(name: &str, tag: &str) -> bool {
    name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag)
}

/// For messages: what images there are.
fn there(all: &[Descriptor]) -> String {
    listed(&all.iter().flat_map(names).collect::<Vec<_>>())
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => ", and none of them has a name".to_owned(),
        names => format!("; add one of their names after a colon: {}", names.join(", ")),
    }
}

fn saved_parts(source: &Source, text: &[u8], tag: Option<&str>) -> Result<Parts, ImageError> {
    let all: Vec<Saved> = source.parsed("manifest.json", text)?;
    let tags = |it: &Saved| it.repo_tags.clone().unwrap_or_default();
    let named = |it: &&Saved| tag.is_none_or(|tag| tags(it).iter().any(|name| is(name, tag)));
    let called: Vec<_> = all.iter().filter(named).collect();
    let [one] = &called[..] else {
        let names: Vec<_> = all.iter().flat_map(tags).collect();
        let names = listed(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let what = if called.is_empty() { "no such image" } else { "several images" };
        return Err(source.refused(format!("it holds {what}{names}")));
    };
    let layers = one.layers.iter().map(|name| Part { known: None, ..Part::saved(name) }).collect();
    Ok(Parts { config: Part::saved(&one.config), layers })
}

/// The document `part`, if it is what its digest says.
pub(crate) fn verified(source: &Source, what: &str, part: &Part) -> Result<Vec<u8>, ImageError> {
    let document = source.document(&part.name)?;
    let document = document.ok_or_else(|| source.refused(format!("{} is missing", part.name)))?;
    if let Some((expected, _)) = part.known {
        let found = Digest::of(&document);
        if found != expected {
            let (what, path) = (what.to_owned(), source.path.clone());
            return Err(ImageError::Digest { what, path, expected, found });
        }
    }
    Ok(document)
}
