//! The file system device (virtio 1.2, 5.11): a folder of the host's, by FUSE.
//!
//! Queue 0 is for requests that are not to wait, those after it for all others; each has threads of
//! its own, and all serve one [`Share`]. The device has no window of shared memory (DAX).

mod exchange;
pub(super) mod saved;

pub use saved::FsState;

use self::exchange::Buffers;
use super::chain::{Broken, Chain};
use super::saved::DeviceState;
use super::worker::{Serve, Service, Worker};
use super::{Activation, Queue, VirtioDevice};
use crate::saved::{Check, RestoreError};
use share::{Share, ShareState};
use std::fmt;
use std::io;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

/// Entries of a queue at the most: room for 1 MiB of data in pages, and for what is around it.
const QUEUE_SIZE: u16 = 1024;
/// Bytes of a tag at the most (5.11.4).
pub const TAG: usize = 36;
/// Queues for requests at the most.
const QUEUES_MAX: u16 = 8;

/// A shared folder.
pub struct Fs {
    tag: String,
    share: Arc<Share>,
    sizes: Vec<u16>,
    /// One for each queue.
    workers: Vec<Worker>,
}

impl Fs {
    /// `share`, called `tag`, with `queues` queues if they are of use.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(tag: &str, share: Arc<Share>, queues: u16, service: Service) -> io::Result<Self> {
        let queues = queues.clamp(1, QUEUES_MAX);
        let worker = |number: u16| {
            let name = format!("share {number} {tag}");
            Worker::new(name, Server(Arc::clone(&share)), service)
        };
        let workers = (0..=queues).map(worker).collect::<io::Result<_>>()?;
        let sizes = vec![QUEUE_SIZE; usize::from(queues) + 1];
        Ok(Self { tag: tag.to_owned(), share, sizes, workers })
    }

    /// struct virtio_fs_config (5.11.4).
    fn config(&self) -> [u8; TAG + 4] {
        let mut config = [0; TAG + 4];
        config.iter_mut().zip(self.tag.bytes()).take(TAG).for_each(|(to, byte)| *to = byte);
        config[TAG..].copy_from_slice(&(self.sizes.len() as u32 - 1).to_le_bytes());
        config
    }
}

impl VirtioDevice for Fs {
    fn kind(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &self.sizes
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        into.fill(0);
        let config = self.config();
        into.iter_mut().zip(config.iter().skip(offset)).for_each(|(to, byte)| *to = *byte);
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq: _, ram: _ } = activation;
        for (worker, queue) in self.workers.iter().zip(queues) {
            if let Some(queue) = queue {
                worker.start(queue, features);
            }
        }
    }

    fn notify(&mut self, queue: usize) {
        if let Some(worker) = self.workers.get(queue) {
            worker.notify();
        }
    }

    fn quiesce(&mut self) {
        self.workers.iter().for_each(Worker::stop);
    }

    fn reset(&mut self) {
        self.share.reset();
    }

    fn save(&self) -> DeviceState {
        let Self { tag, share, sizes: _, workers: _ } = self;
        DeviceState::Fs(FsState {
            version: FsState::VERSION,
            tag: tag.clone(),
            read_only: share.options().read_only,
            share: share.save(),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Fs(FsState { version, tag, read_only, share }) = state else {
            return Err(RestoreError::Kind { device: "shared folder" });
        };
        let check = Check::version("shared folder", *version, FsState::VERSION)?;
        check.that(*tag == self.tag, "tag", tag, &self.tag)?;
        let check = Check::version("shared folder", share.version, ShareState::VERSION)?;
        let own = self.share.options().read_only;
        check.that(*read_only == own, "read_only", *read_only, own)?;
        self.share.restore(share);
        Ok(())
    }
}

/// What serves a queue.
struct Server(Arc<Share>);

impl Serve for Server {
    fn serve(&mut self, queue: &Queue, chain: Chain, _features: u64) -> Result<(), Broken> {
        let Chain { head, readable, writable } = chain;
        let buffers = Buffers::new(queue.ram(), &readable, &writable);
        let written = self.0.serve(&buffers);
        queue.complete(head, written as u32)
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs").field("tag", &self.tag).finish_non_exhaustive()
    }
}
