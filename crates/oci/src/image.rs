//! One image: its configuration and its layers.

use crate::compressed;
use crate::config::{Config, Document};
use crate::digest::Hashing;
use crate::layout::{self, Part, Parts};
use crate::source::Source;
use crate::{Digest, ImageError};
use rootfs::Content;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;

/// Layers of an image: registries and engines take 127.
const LAYERS: usize = 512;

/// An image whose layers have not been looked at yet.
#[derive(Debug)]
pub struct Image {
    source: Source,
    digest: Digest,
    config: Config,
    layers: Vec<Layer>,
}

/// One of its layers.
#[derive(Debug)]
pub struct Layer {
    part: Part,
    /// What its archive is called.
    diff_id: Digest,
    /// Bytes of the blob, as it lies there.
    pub bytes: u64,
}

impl Image {
    /// The image at `path` that is called `tag`, or the only one there.
    ///
    /// # Errors
    /// There is none for gemello's machines, there are several, or something is missing or damaged.
    pub fn open(path: &Path, tag: Option<&str>) -> Result<Self, ImageError> {
        let source = Source::open(path)?;
        let parts = layout::parts(&source, tag)?;
        Self::of(source, parts)
    }

    /// The image whose manifest is called `manifest`, and whose blobs were brought to `store`.
    ///
    /// # Errors
    /// It is not for gemello's machines, or something is missing or damaged.
    pub fn pulled(store: &Path, manifest: Digest) -> Result<Self, ImageError> {
        let source = Source::open(store)?;
        let parts = layout::pulled(&source, manifest)?;
        Self::of(source, parts)
    }

    fn of(source: Source, parts: Parts) -> Result<Self, ImageError> {
        let Parts { config, layers } = parts;
        let text = layout::verified(&source, "its configuration", &config)?;
        let document: Document = source.parsed("configuration", &text)?;
        document.check().map_err(|why| source.refused(why))?;
        let (diff_ids, config) = document.split();
        if diff_ids.len() != layers.len() || layers.len() > LAYERS {
            let (blobs, said) = (layers.len(), diff_ids.len());
            let why = format!("it has {blobs} layers, and its configuration says {said}");
            return Err(source.refused(why));
        }
        let layers = layers.into_iter().zip(diff_ids);
        let layers = layers.map(|(part, diff_id)| Layer::find(&source, part, diff_id));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self { source, digest: Digest::of(&text), config, layers })
    }

    /// The digest of its configuration, which names its layers' content and all that is used of it:
    /// images of the same digest are the same.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it says of itself.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Unpacks `layer` to the end of `spool`, and verifies it; where it lies there.
    ///
    /// # Errors
    /// It is not what its digests say, or the host's. What is in the spool is then not to be used.
    pub fn unpack(&self, layer: &Layer, spool: &File) -> Result<Content, ImageError> {
        let name = &layer.part.name;
        let mut spool = spool;
        let offset = spool.seek(SeekFrom::End(0)).map_err(ImageError::Spool)?;
        let blob = self.source.blob(name)?;
        let blob = blob.ok_or_else(|| self.source.refused(format!("{name} is missing")))?;
        let mut blob = Hashing::new(blob);
        let mut into = Hashing::new(Spool { inner: BufWriter::new(spool), error: None });
        let unpacked = compressed::unpack(&mut blob, &mut into).and_then(|()| into.flush());
        if let Err(error) = unpacked {
            return Err(match into.into_inner().error {
                Some(error) => ImageError::Spool(error),
                None => self.source.unread(format!("the layer {name}"), error),
            });
        }
        let (_, found) = blob.finish();
        if let Some((expected, _)) = layer.part.known {
            self.compare("", name, expected, found)?;
        }
        let (bytes, found) = into.finish();
        self.compare("the archive in ", name, layer.diff_id, found)?;
        Ok(Content { offset, bytes })
    }

    fn compare(
        &self,
        part: &str,
        name: &str,
        expected: Digest,
        found: Digest,
    ) -> Result<(), ImageError> {
        if expected == found {
            return Ok(());
        }
        let (what, path) = (format!("{part}the layer {name}"), self.source.path.clone());
        Err(ImageError::Digest { what, path, expected, found })
    }
}

impl Layer {
    /// That of `part`, which is there and as large as it should be.
    fn find(source: &Source, part: Part, diff_id: Digest) -> Result<Self, ImageError> {
        let blob = source.blob(&part.name)?;
        let blob = blob.ok_or_else(|| source.refused(format!("{} is missing", part.name)))?;
        let bytes = blob.len();
        if let Some((_, Some(expected))) = part.known
            && expected != bytes
        {
            let name = &part.name;
            let why =
                format!("{name} has {bytes} bytes and should have {expected}; fetch it again");
            return Err(source.refused(why));
        }
        Ok(Self { part, diff_id, bytes })
    }
}

/// Where unpacked bytes go. It remembers its own error: the other end has errors, too.
struct Spool<'f> {
    inner: BufWriter<&'f File>,
    error: Option<io::Error>,
}

impl Spool<'_> {
    /// Notes an error of the host's.
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}
