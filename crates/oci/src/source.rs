//! Where an image's files lie: in a folder, or in an archive that is not unpacked.

use crate::ImageError;
use rootfs::{Archive, Content, Kind};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

/// Bytes of a document: manifests are refused by registries from this size on.
pub(crate) const DOCUMENT: u64 = 4 << 20;
/// Links in an archive that lead to one file.
const LINKS: usize = 8;

/// Where an image's files lie.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder,
    Archive { file: File, names: HashMap<String, Member> },
}

#[derive(Debug)]
enum Member {
    File(Content),
    Link(String),
}

/// A file of the image, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Blob {
    file: File,
    content: Content,
}

impl Blob {
    pub(crate) fn len(&self) -> u64 {
        self.content.bytes
    }
}

impl Read for Blob {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Content { offset, bytes } = &mut self.content;
        let most = usize::try_from(*bytes).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read_at(&mut into[..most], *offset)?;
        *offset += count as u64;
        *bytes -= count as u64;
        Ok(count)
    }
}

impl Source {
    /// What is at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is neither a folder nor a tar archive.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let path = path.to_owned();
        let unread =
            |source| ImageError::Read { what: "a file".into(), path: path.clone(), source };
        let metadata = std::fs::metadata(&path).map_err(unread)?;
        if metadata.is_dir() {
            return Ok(Self { path, place: Place::Folder });
        }
        if !metadata.is_file() {
            let why = "it is neither a folder nor an archive".to_owned();
            return Err(ImageError::Refused { path, why });
        }
        let file = File::open(&path).map_err(unread)?;
        let names = names(&file, &path)?;
        Ok(Self { path, place: Place::Archive { file, names } })
    }

    /// The file `name`, if there is one.
    pub(crate) fn blob(&self, name: &str) -> Result<Option<Blob>, ImageError> {
        match &self.place {
            Place::Folder => self.in_folder(name).map_err(|error| self.unread(name, error)),
            Place::Archive { file, names } => {
                let Some(content) = member(names, name) else { return Ok(None) };
                let file = file.try_clone().map_err(|error| self.unread(name, error))?;
                Ok(Some(Blob { file, content }))
            }
        }
    }

    fn in_folder(&self, name: &str) -> io::Result<Option<Blob>> {
        let mut parts = Path::new(name).components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it lies outside"));
        }
        let path = self.path.join(name);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                let file = File::open(&path)?;
                let content = Content { offset: 0, bytes: file.metadata()?.len() };
                Ok(Some(Blob { file, content }))
            }
            Ok(_) => Ok(None), // a folder, or what would be waited for
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole of the document `name`, if there is one.
    pub(crate) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(mut blob) = self.blob(name)? else { return Ok(None) };
        if blob.len() > DOCUMENT {
            let most = DOCUMENT >> 20;
            return Err(self.refused(format!("its {name} is larger than {most} MiB")));
        }
        let mut text = Vec::new();
        blob.read_to_end(&mut text).map_err(|error| self.unread(name, error))?;
        Ok(Some(text))
    }

    /// `document` as a value of `T`.
    pub(crate) fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        document: &[u8],
    ) -> Result<T, ImageError> {
        let refused = |error| self.refused(format!("its {name} is no such document: {error}"));
        serde_json::from_slice(document).map_err(refused)
    }

    pub(crate) fn unread(&self, what: impl Into<String>, source: io::Error) -> ImageError {
        ImageError::Read { what: what.into(), path: self.path.clone(), source }
    }

    pub(crate) fn refused(&self, why: impl Into<String>) -> ImageError {
        ImageError::Refused { path: self.path.clone(), why: why.into() }
    }
}

/// Where each file of the archive in `file` lies.
fn names(file: &File, path: &Path) -> Result<HashMap<String, Member>, ImageError> {
    let refused = |why: String| ImageError::Refused { path: path.to_owned(), why };
    let bytes = file.metadata().map_err(|error| refused(error.to_string()))?.len();
    let mut head = [0; 4];
    if file.read_exact_at(&mut head, 0).is_ok() && crate::compressed::is_compressed(&head) {
        return Err(refused("it is compressed; uncompress it first".to_owned()));
    }
    let mut archive = Archive::new(file, Content { offset: 0, bytes });
    let mut names = HashMap::new();
    loop {
        let entry = archive.next_entry().map_err(|error| refused(error.to_string()))?;
        let Some(entry) = entry else { return Ok(names) };
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let name = name.trim_start_matches("./").to_owned();
        let member = match entry.kind {
            Kind::File(content) => Member::File(content),
            Kind::Symlink(target) => match String::from_utf8(target) {
                Ok(target) => Member::Link(beside(&name, &target)),
                Err(_) => continue,
            },
            Kind::Link(target) => match String::from_utf8(target) {
                Ok(target) => Member::Link(target.trim_start_matches("./").to_owned()),
                Err(_) => continue,
            },
            _ => continue,
        };
        names.insert(name, member);
    }
}

/// The name that a symbolic link called `name` leads to.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<_> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// The content of `name`, through links.
fn member(names: &HashMap<String, Member>, name: &str) -> Option<Content> {
    let mut name = name;
    for _ in 0..LINKS {
        match names.get(name)? {
            Member::File(content) => return Some(*content),
            Member::Link(target) => name = target,
        }
    }
    None
}
