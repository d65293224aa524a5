//! The devices that a machine may be given, beyond what every PC has.

use devices::virtio::blk::Cache;
use devices::virtio::net::{Cable, Mac};
use disk_image::{Backing, Image, ImageFormat, Limit};
use serde::{Deserialize, Serialize};
use share::Options;
use std::path::PathBuf;
use std::sync::Arc;

/// The most bytes of a scratch disk.
pub const SCRATCH_MAX: u64 = 1 << 40;
/// The most ports of a console device.
pub const PORTS_MAX: usize = 16;
/// The most bytes of a port's name.
pub const PORT_NAME_MAX: usize = 64;

/// A virtio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Device {
    /// A disk of the host's. The guest counts the disks in their order.
    Disk(Disk),
    /// A disk whose content is the machine's own.
    Scratch(Scratch),
    /// A console device with these ports: byte streams between programs of the guest and the host.
    Console(Vec<Port>),
    /// A console device without ports, Linux's `/dev/hvc0`, which has a window's size.
    Hvc,
    /// A network device.
    Net(Network),
    /// Random bytes of the host's.
    Entropy,
    /// A memory balloon.
    Balloon,
    /// Sockets between the guest and the host.
    Vsock(Vsock),
    /// A folder of the host's.
    Share(Share),
}

/// A port of a console device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What the guest knows it by, [`PORT_NAME_MAX`] bytes at the most.
    pub name: String,
    /// Whether the guest receives something.
    pub input: bool,
    /// Whether the guest sends something.
    pub output: bool,
}

/// A virtio disk without a name on the host: part of the file when the machine is saved, and gone
/// with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    /// Its size, a multiple of 512; [`SCRATCH_MAX`] at the most.
    pub bytes: u64,
    /// Whether the guest can only read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// What it holds when the machine is built; zeros follow. A saved machine's file has what it
    /// holds then.
    #[serde(skip)]
    pub content: Arc<[u8]>,
}

impl Scratch {
    /// Full of zeros, for the guest to write.
    pub fn zeros(bytes: u64) -> Self {
        Self { bytes, read_only: false, content: Arc::default() }
    }

    /// These bytes, whole sectors of them, for the guest to read.
    pub fn read_only(content: Arc<[u8]>) -> Self {
        Self { bytes: content.len() as u64, read_only: true, content }
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its address.
    pub mac: Mac,
    /// What it is joined to.
    pub cable: Cable,
}

/// A folder of the host's that the guest can mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The folder.
    pub path: PathBuf,
    /// What the guest mounts: letters, digits, `-`, `_` and `.`, 36 at the most.
    pub tag: String,
    /// How it is shared.
    pub options: Options,
}

/// Sockets between a guest and the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's context ID, 3 to 2^32 - 2.
    pub cid: u32,
    /// The socket at which programs of the host's reach the guest by Firecracker's convention, and
    /// what those begin with at which it reaches them.
    pub path: Option<PathBuf>,
}

/// A virtio disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// An image file or a block device of the host.
    pub path: PathBuf,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// The format that it is said to have; without, its content tells.
    pub format: Option<ImageFormat>,
    /// The files that it may be built on.
    pub backing: Backing,
    /// What the disk calls itself; without, it counts.
    pub serial: Option<String>,
    /// When the guest's writes are safe.
    pub cache: Cache,
    /// What it may do in a second.
    pub limit: Limit,
}

impl Disk {
    /// The disk in the file at `path`, all else as usual.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            read_only: false,
            format: None,
            backing: Backing::default(),
            serial: None,
            cache: Cache::default(),
            limit: Limit::default(),
        }
    }

    /// Its image.
    pub fn image(&self) -> Image {
        let Self { path, format, backing, cache, .. } = self;
        let (path, backing) = (path.clone(), backing.clone());
        Image { path, format: *format, backing, cache: cache.of_the_host() }
    }
}
