//! What a disk is to be.

use disk_image::{DiskAccess, HostCache, Limit};
use serde::{Deserialize, Serialize};

/// When the guest's writes are safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// After a flush.
    #[default]
    Writeback,
    /// When they are answered, unless the driver chooses otherwise.
    Writethrough,
    /// After a flush, and the host's page cache is left out where the image is raw.
    None,
    /// When the machine has ended and the host has written its cache: a flush does not wait.
    Unsafe,
}

impl Cache {
    /// What the host keeps of the image.
    pub fn of_the_host(self) -> HostCache {
        match self {
            Self::None => HostCache::Bypassed,
            Self::Writeback | Self::Writethrough | Self::Unsafe => HostCache::Used,
        }
    }
}

/// What a disk is to be.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Whether the guest can write.
    pub access: DiskAccess,
    /// What it calls itself: 20 bytes at the most are told.
    pub serial: String,
    /// What messages call it.
    pub name: String,
    /// When writes are safe.
    pub cache: Cache,
    /// What it may do in a second. A disk that serves at once keeps none.
    pub limit: Limit,
    /// Queues that are of use: one for each processor. It has eight at the most.
    pub queues: u16,
}
