//! What is done to images while no machine has them: made, looked at, resized, committed.

use super::file::ImageFile;
use super::header::Header;
use super::open::resolve;
use super::qcow2;
use super::{Backing, DiskAccess, Image, ImageError, ImageFormat, SECTOR};
use imago::file::File as HostFile;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder as _, ShallowMapping};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes that a commit moves at once.
const CHUNK: u64 = 1 << 20;

/// Why a tool did not do its work. What it found is as it was, unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The host.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Host {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk would lose its end.
    #[error(
        "{path} has {now} bytes, and what lies beyond {wanted} would be lost",
        path = path.display()
    )]
    Shrinks {
        /// The file.
        path: PathBuf,
        /// Bytes that the disk has.
        now: u64,
        /// Bytes that it was to have.
        wanted: u64,
    },
    /// It would do harm, or makes no sense.
    #[error("{path}: {why}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

fn host(what: &'static str, path: &Path) -> impl Fn(io::Error) -> ToolError {
    move |source| ToolError::Host { what, path: path.to_owned(), source }
}

fn refused(path: &Path, why: impl Into<String>) -> ToolError {
    ToolError::Refused { path: path.to_owned(), why: why.into() }
}

/// An image to be made.
#[derive(Clone, Debug)]
pub struct New {
    /// Its format.
    pub format: ImageFormat,
    /// Bytes of the disk; without, as many as the backing file's.
    pub bytes: Option<u64>,
    /// The file that it is built on, and that file's format if its content should not tell.
    pub backing: Option<(PathBuf, Option<ImageFormat>)>,
}

/// Makes an image at `path`, where nothing is yet.
///
/// # Errors
/// There is something, or it cannot be made; then there is nothing.
pub fn create(path: &Path, new: &New) -> Result<(), ToolError> {
    let below = new.backing.as_ref().map(|(file, format)| base(path, file, *format)).transpose()?;
    if below.is_some() && new.format == ImageFormat::Raw {
        return Err(refused(path, "a raw image has no backing file; make it qcow2"));
    }
    let bytes = new.bytes.or(below.as_ref().map(|below| below.bytes));
    let Some(bytes) = bytes else { return Err(refused(path, "give the size of the disk")) };
    sized(path, bytes)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => refused(path, "it exists already; choose another name"),
        _ => host("create", path)(source),
    })?;
    let fill = || match new.format {
        ImageFormat::Raw => file.set_len(bytes),
        ImageFormat::Qcow2 => format_qcow2(path, file.try_clone()?, bytes, below),
    };
    fill().and_then(|()| file.sync_all()).map_err(|source| {
        let _ = std::fs::remove_file(path);
        host("create", path)(source)
    })
}

/// What an image is built on.
struct Base {
    name: String,
    format: ImageFormat,
    bytes: u64,
}

/// The file at `backing` as the image at `path` names it.
fn base(path: &Path, backing: &Path, format: Option<ImageFormat>) -> Result<Base, ToolError> {
    let image = Image { backing: Backing::Allow, format, ..Image::at(backing) };
    let (opened, format) = image.begin(DiskAccess::ReadOnly)?;
    let bytes = match format {
        ImageFormat::Raw => opened.bytes,
        ImageFormat::Qcow2 => image.header(&opened.file)?.size,
    };
    let real = backing.canonicalize().map_err(host("find", backing))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(host("find the folder of", path))?;
    // Beside each other, they can be moved together.
    let name = real.strip_prefix(&folder).ok().filter(|name| name.components().count() == 1);
    let name = name.unwrap_or(&real).to_str().map(str::to_owned);
    let name = name.ok_or_else(|| refused(backing, "its name is no text; rename it"))?;
    Ok(Base { name, format, bytes })
}

fn format_qcow2(path: &Path, file: File, bytes: u64, below: Option<Base>) -> io::Result<()> {
    let storage = qcow2::host_file(path, ImageFile { file, bytes: 0 }, DiskAccess::ReadWrite)?;
    let builder = Qcow2::<HostFile>::create_builder(storage);
    let builder = builder.size(bytes);
    match below {
        None => builder.create(),
        Some(Base { name, format, bytes: _ }) => {
            builder.backing(name, format.name().to_owned()).create()
        }
    }
}

fn sized(path: &Path, bytes: u64) -> Result<(), ToolError> {
    if bytes < SECTOR || !bytes.is_multiple_of(SECTOR) {
        return Err(refused(path, format!("{bytes} bytes are no whole sectors of {SECTOR}")));
    }
    Ok(())
}

/// What is known of an image without using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Bytes that the file takes on the host.
    pub allocated: u64,
    /// Of a qcow2 image.
    pub qcow2: Option<Qcow2Info>,
}

/// What only a qcow2 image has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Info {
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster.
    pub cluster: u32,
    /// Internal snapshots.
    pub snapshots: u32,
    /// The backing file that it names.
    pub backing: Option<PathBuf>,
}

/// Looks at `image`, whether or not a machine has it.
///
/// # Errors
/// It is no image, or cannot be read.
pub fn info(image: &Image) -> Result<Info, ToolError> {
    let path = &image.path;
    let file = File::open(path).map_err(host("open", path))?;
    let metadata = file.metadata().map_err(host("read", path))?;
    let opened = ImageFile { file, bytes: metadata.len() };
    let format = image.format_of(&opened)?;
    let qcow2 = match format {
        ImageFormat::Raw => None,
        ImageFormat::Qcow2 => Some(image.header(&opened.file)?),
    };
    let bytes = qcow2.as_ref().map_or(opened.bytes, |header| header.size);
    let qcow2 = qcow2.map(|Header { version, cluster, snapshots, backing, .. }| {
        let backing = backing.map(|named| resolve(path, &named.name));
        Qcow2Info { version, cluster, snapshots, backing }
    });
    let allocated = metadata.blocks() * 512;
    Ok(Info { path: path.clone(), format, bytes, allocated, qcow2 })
}

/// Whether a disk may lose its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// It may.
    Allowed,
    /// It may not.
    Refused,
}

/// Gives the disk of `image` another size.
///
/// # Errors
/// It would lose its end and may not, is in use, or the host refuses.
pub fn resize(image: &Image, bytes: u64, shrink: Shrink) -> Result<(), ToolError> {
    let path = &image.path;
    sized(path, bytes)?;
    let (opened, format) = image.begin(DiskAccess::ReadWrite)?;
    let check = |now: u64| {
        if bytes < now && shrink == Shrink::Refused {
            return Err(ToolError::Shrinks { path: path.clone(), now, wanted: bytes });
        }
        Ok(())
    };
    match format {
        ImageFormat::Raw => {
            check(opened.bytes)?;
            opened.file.set_len(bytes).map_err(host("resize", path))?;
            opened.file.sync_all().map_err(host("resize", path))
        }
        ImageFormat::Qcow2 => {
            let header = image.header(&opened.file)?;
            check(header.size)?;
            if header.snapshots > 0 {
                return Err(refused(path, "it has snapshots in it, of another size; delete them"));
            }
            let mut access = image.layers(opened, DiskAccess::ReadWrite, 1)?.access;
            access.resize(bytes, PreallocateMode::None).map_err(host("resize", path))?;
            access.flush().and_then(|()| access.sync()).map_err(host("resize", path))
        }
    }
}

/// Writes what `image` has of its own into its backing file, and empties it. Returns the backing
/// file's path. Whatever happens in between, the disk reads the same.
///
/// # Errors
/// It has none, one of both is in use, or the host refuses.
pub fn commit(image: &Image) -> Result<PathBuf, ToolError> {
    let path = &image.path;
    let (opened, format) = image.begin(DiskAccess::ReadWrite)?;
    let none = || refused(path, "it has no backing file to be committed to");
    if format == ImageFormat::Raw {
        return Err(none());
    }
    let header = image.header(&opened.file)?;
    let Some(named) = &header.backing else { return Err(none()) };
    if header.snapshots > 0 {
        return Err(refused(path, "it has snapshots in it, which need it as it is; delete them"));
    }
    let below = image.backing(named)?;
    let mut over = qcow2::layer(path, opened, DiskAccess::ReadWrite, &header, None)?.access;
    let mut base = writable(&below)?;
    if base.size() < over.size() {
        base.resize(over.size(), PreallocateMode::None).map_err(host("grow", &below.path))?;
    }
    copy(&over, &base).map_err(host("commit to", &below.path))?;
    base.flush().and_then(|()| base.sync()).map_err(host("commit to", &below.path))?;
    // From here on the backing file says the same.
    let size = over.size();
    over.discard_to_backing(0, size).map_err(host("empty", path))?;
    over.flush().and_then(|()| over.sync()).map_err(host("empty", path))?;
    Ok(below.path)
}

fn writable(image: &Image) -> Result<qcow2::Access, ToolError> {
    let (opened, format) = image.begin(DiskAccess::ReadWrite)?;
    match format {
        ImageFormat::Qcow2 => Ok(image.layers(opened, DiskAccess::ReadWrite, 1)?.access),
        ImageFormat::Raw => {
            Ok(qcow2::raw_layer(&image.path, opened, DiskAccess::ReadWrite)?.access)
        }
    }
}

/// Writes to `base` what `over`, opened alone, has.
fn copy(over: &qcow2::Access, base: &qcow2::Access) -> io::Result<()> {
    let (mut at, end) = (0, over.size());
    let mut buffer = vec![0; CHUNK as usize];
    while at < end {
        let (mapping, len) = over.get_shallow_mapping(at, (end - at).min(CHUNK))?;
        let len = len.min(end - at).min(CHUNK);
        if len == 0 {
            return Err(io::Error::other("its tables end before the disk does"));
        }
        match mapping {
            ShallowMapping::Zero { explicit: false, .. } | ShallowMapping::Indirect { .. } => {}
            ShallowMapping::Zero { .. } => base.write_zeroes(at, len)?,
            _ => {
                let piece = &mut buffer[..len as usize];
                over.read(&mut *piece, at)?;
                base.write(&*piece, at)?;
            }
        }
        at += len;
    }
    Ok(())
}
