//! What all queues of a disk share.

use super::recipe::{Cache, Recipe};
use disk_image::{DiskAccess, Limit, Limiter, Storage};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use sync::lock;
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

/// Between two messages about the host's errors.
const MESSAGES: Duration = Duration::from_secs(10);

/// A disk, as its threads use it.
pub(super) struct Shared {
    pub(super) storage: Box<dyn Storage>,
    pub(super) access: DiskAccess,
    /// What GET_ID answers, padded with zeros.
    pub(super) id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    cache: Cache,
    /// Whether a write is safe when it is answered.
    through: AtomicBool,
    /// For messages.
    name: String,
    limiter: Option<Mutex<Limiter>>,
    begun: Instant,
    /// When the host's last error was told.
    told: Mutex<Option<Instant>>,
    /// Whether the host has failed to write what was in its cache.
    lost: AtomicBool,
}

/// Why a flush fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlushError {
    /// The host has not taken what it was handed.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// This flush or one before has lost what was written.
    #[error("what was written has been lost")]
    Lost,
}

impl Shared {
    pub(super) fn new(storage: Box<dyn Storage>, recipe: Recipe) -> Self {
        let Recipe { access, serial, name, cache, limit, queues: _ } = recipe;
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let limited = |limit: Limit| Mutex::new(Limiter::new(limit, Duration::ZERO));
        let limiter = (!limit.is_none()).then(|| limited(limit));
        let (begun, told) = (Instant::now(), Mutex::default());
        let [through, lost] = [(); 2].map(|()| AtomicBool::new(false));
        Self { storage, access, id, cache, through, name, limiter, begun, told, lost }
    }

    /// A write is to be safe when it is answered, or after a flush.
    pub(super) fn set_writes_through(&self, through: bool) {
        self.through.store(through, Ordering::Relaxed);
    }

    /// Whether a write is safe when it is answered.
    pub(super) fn writes_through(&self) -> bool {
        self.through.load(Ordering::Relaxed)
    }

    /// Whether a flush has the host write what it keeps.
    pub(super) fn syncs(&self) -> bool {
        self.access == DiskAccess::ReadWrite && self.cache != Cache::Unsafe
    }

    /// Makes what was written as safe as the disk's cache is to be.
    pub(super) fn flush(&self) -> Result<(), FlushError> {
        if self.access == DiskAccess::ReadOnly {
            return Ok(());
        }
        self.storage.settle()?;
        if self.cache == Cache::Unsafe {
            return Ok(());
        }
        self.intact()?;
        self.synced(self.storage.sync())
    }

    /// That no flush has failed.
    pub(super) fn intact(&self) -> Result<(), FlushError> {
        if self.lost.load(Ordering::Relaxed) { Err(FlushError::Lost) } else { Ok(()) }
    }

    /// Takes what came of having the host write its cache. Where that failed, Linux may have
    /// dropped the data, and the next call would succeed without them. So there is no next call,
    /// and each flush fails.
    pub(super) fn synced(&self, outcome: io::Result<()>) -> Result<(), FlushError> {
        if let Err(error) = outcome
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                target: "host",
                "the disk {}: the host could not write what its cache held ({error}), and may have \
                 dropped it. Each flush fails from now on. Turn the guest off; {}; then have it \
                 check its file systems",
                self.name, remedy(&error)
            );
        }
        self.intact()
    }

    /// How long the next request has to wait.
    pub(super) fn wait(&self) -> Duration {
        let wait = |limiter: &Mutex<Limiter>| lock(limiter).wait(self.begun.elapsed());
        self.limiter.as_ref().map_or(Duration::ZERO, wait)
    }

    /// Counts a request that moves `bytes`.
    pub(super) fn pay(&self, bytes: u64) {
        if let Some(limiter) = &self.limiter {
            lock(limiter).pay(bytes);
        }
    }

    /// Tells the user of the host's `error`, which the guest sees as one of its disk.
    pub(super) fn tell(&self, error: &io::Error) {
        let mut told = lock(&self.told);
        if told.is_some_and(|last| last.elapsed() < MESSAGES) {
            return;
        }
        *told = Some(Instant::now());
        let remedy = remedy(error);
        tracing::warn!(target: "host", "the disk {} fails: {error}; {remedy}", self.name);
    }
}

/// What the user can do about the host's `error`.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on the host, and the guest can write again"
        }
        io::ErrorKind::FileTooLarge => {
            "allow larger files (ulimit -f, or another file system), and the guest can write again"
        }
        io::ErrorKind::UnexpectedEof => "give the file its old size back",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "permit the file again"
        }
        _ => "the host's log may tell more",
    }
}
