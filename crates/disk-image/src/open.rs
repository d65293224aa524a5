//! From a path to a disk: the format, and the files that a qcow2 image is built on.

use super::file::ImageFile;
use super::format;
use super::header::{BackingName, Header};
use super::qcow2::{self, Layer, Qcow2Image};
use super::{DiskAccess, HostCache, ImageError, ImageFormat, RawImage, Storage};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Files on top of each other at the most.
const CHAIN_MAX: usize = 32;

/// Which backing files an image may have us open. Those are read, never written.
///
/// An image is data from anywhere, and in it anybody may name any file of the host, whose bytes the
/// guest could then read. So by default a backing file has to lie in the folder of the image that
/// names it, and the first image must be said to be qcow2, by the user or by its file's name: a
/// guest can write the look of a qcow2 image to its raw disk, and cannot rename it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// What lies in the same folder.
    #[default]
    SameFolder,
    /// That, and this file, wherever it is.
    File(PathBuf),
    /// Any.
    Allow,
}

/// What is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// The format that it is said to have; without, its content tells.
    pub format: Option<ImageFormat>,
    /// The files that it may be built on.
    pub backing: Backing,
    /// What the host keeps of it in memory.
    pub cache: HostCache,
}

impl Image {
    /// What is at `path`, with nothing said about it.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let (backing, cache) = (Backing::default(), HostCache::default());
        Self { path: path.into(), format: None, backing, cache }
    }

    /// Opens and locks it, and what it is built on.
    ///
    /// # Errors
    /// A file is not there, not permitted, in use, damaged, of another format, or has no size that
    /// a disk can have.
    pub fn open(&self, access: DiskAccess) -> Result<Box<dyn Storage>, ImageError> {
        let (opened, format) = self.begin(access)?;
        match format {
            ImageFormat::Raw => Ok(Box::new(RawImage::new(&self.path, opened, self.cache)?)),
            ImageFormat::Qcow2 => {
                let layer = self.layers(opened, access, 1)?;
                Ok(Box::new(Qcow2Image::new(layer, access, &self.path)?))
            }
        }
    }

    /// The file, and the format that it has.
    pub(crate) fn begin(&self, access: DiskAccess) -> Result<(ImageFile, ImageFormat), ImageError> {
        let opened = ImageFile::open(&self.path, access)?;
        let format = self.format_of(&opened)?;
        Ok((opened, format))
    }

    pub(crate) fn format_of(&self, opened: &ImageFile) -> Result<ImageFormat, ImageError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        match format::recognize(&opened.file, opened.bytes) {
            Ok(None) => Ok(ImageFormat::Raw),
            Ok(Some(format::Format::Qcow2)) => Ok(ImageFormat::Qcow2),
            Ok(Some(format)) => Err(ImageError::Foreign { path: self.path.clone(), format }),
            Err(source) => Err(ImageError::Read { path: self.path.clone(), source }),
        }
    }

    /// The qcow2 image in `opened` with all that it is built on; it is file `depth` of the chain.
    pub(crate) fn layers(
        &self,
        opened: ImageFile,
        access: DiskAccess,
        depth: usize,
    ) -> Result<Layer, ImageError> {
        let header = self.header(&opened.file)?;
        let below = match &header.backing {
            None => None,
            Some(name) => Some(self.below(name, depth)?),
        };
        qcow2::layer(&self.path, opened, access, &header, below)
    }

    /// Its checked header.
    pub(crate) fn header(&self, file: &File) -> Result<Header, ImageError> {
        let no = |why: String| ImageError::Qcow2 { path: self.path.clone(), why };
        let header = Header::read(file).map_err(|error| no(error.to_string()))?.map_err(no)?;
        if header.encrypted {
            return Err(no("it is encrypted; decrypt it with qemu-img convert".to_owned()));
        }
        Ok(header)
    }

    fn below(&self, named: &BackingName, depth: usize) -> Result<Layer, ImageError> {
        let next = self.backing(named)?;
        if depth >= CHAIN_MAX {
            return Err(self.refused(named, &format!("is number {depth} of a chain; commit some")));
        }
        let (opened, format) = next.begin(DiskAccess::ReadOnly)?;
        match format {
            ImageFormat::Raw => qcow2::raw_layer(&next.path, opened, DiskAccess::ReadOnly),
            ImageFormat::Qcow2 => next.layers(opened, DiskAccess::ReadOnly, depth + 1),
        }
    }

    /// The backing file that the image names, if it may be opened.
    pub(crate) fn backing(&self, named: &BackingName) -> Result<Self, ImageError> {
        let format = match named.format.as_deref() {
            None => None,
            Some("raw" | "file" | "host_device") => Some(ImageFormat::Raw),
            Some("qcow2") => Some(ImageFormat::Qcow2),
            Some(other) => {
                let why = format!("is said to be {other}; raw and qcow2 are known");
                return Err(self.refused(named, &why));
            }
        };
        let path = resolve(&self.path, &named.name);
        // Also what `qcow2` in a chain names: only the first file can be one by its look alone.
        self.permit(named, &path)?;
        let format = format.or_else(|| by_name(&path));
        Ok(Self { path, format, backing: self.backing.clone(), cache: self.cache })
    }

    fn permit(&self, named: &BackingName, path: &Path) -> Result<(), ImageError> {
        let real = |path: &Path| {
            path.canonicalize().map_err(|error| {
                let why = format!("cannot be found ({error}); put it back, or rebase the image");
                self.refused(named, &why)
            })
        };
        let there = real(path)?;
        match &self.backing {
            Backing::Allow => return Ok(()),
            Backing::File(file) if real(file)? == there => return Ok(()),
            Backing::File(_) | Backing::SameFolder => {}
        }
        let remedy = "backing=FILE names one that may be, backing=allow any";
        if real(&self.path)?.parent() != there.parent() {
            let why = format!("is in another folder and not opened: {remedy}");
            return Err(self.refused(named, &why));
        }
        if self.format.or_else(|| by_name(&self.path)) != Some(ImageFormat::Qcow2) {
            let why = format!(
                "is not opened because only the content says that the disk is qcow2: add \
                 format=qcow2 if you made it, or {remedy}"
            );
            return Err(self.refused(named, &why));
        }
        Ok(())
    }

    fn refused(&self, named: &BackingName, why: &str) -> ImageError {
        let (path, backing) = (self.path.clone(), named.name.clone());
        ImageError::Backing { path, backing, why: why.to_owned() }
    }

    /// All files that the disk consists of, it first, as far as they can be told; none is locked.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut next = Some(self.clone());
        let mut files = Vec::new();
        while let Some(image) = next.take().filter(|_| files.len() < CHAIN_MAX) {
            let file = File::open(&image.path)?;
            let bytes = file.metadata()?.len();
            let opened = ImageFile { file, bytes };
            if image.format_of(&opened).is_ok_and(|format| format == ImageFormat::Qcow2)
                && let Ok(Header { backing: Some(named), .. }) = image.header(&opened.file)
            {
                next = image.backing(&named).ok();
            }
            files.push(image.path);
        }
        Ok(files)
    }
}

/// The file that the image at `path` names. A name is a path, never a protocol.
pub(crate) fn resolve(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

/// The format that a file's name tells.
fn by_name(path: &Path) -> Option<ImageFormat> {
    path.extension().and_then(|extension| ImageFormat::named(extension.as_encoded_bytes()))
}
