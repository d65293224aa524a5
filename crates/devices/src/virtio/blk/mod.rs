//! The block device (virtio 1.2, 5.2): one queue, one thread, one [`Storage`].
//!
//! The disk has a write cache (the host's): a write is safe after a FLUSH. A driver that does not
//! negotiate FLUSH gets write-through (5.2.6.2).

mod format;
mod image;
mod request;
pub(super) mod saved;

pub use format::Format;
pub use image::{DiskAccess, ImageError, RawImage, SECTOR, Storage, Trust};
pub use saved::BlockState;

use self::request::Disk;
use super::chain::{Broken, Chain};
use super::saved::DeviceState;
use super::worker::{Serve, Service, Worker};
use super::{Activation, ConfigSpace, Queue, VirtioDevice};
use crate::saved::{Check, RestoreError};
use std::io;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

/// Entries of the queue at the most.
const QUEUE_SIZE: u16 = 256;
/// Data segments of a request at the most: the queue's entries without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// A disk.
#[derive(Debug)]
pub struct Block {
    features: u64,
    config: ConfigSpace,
    sectors: u64,
    access: DiskAccess,
    worker: Worker,
}

impl Block {
    /// A disk on `storage` that calls itself `id` (20 bytes at the most are told).
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(
        storage: Box<dyn Storage>,
        access: DiskAccess,
        id: &str,
        service: Service,
    ) -> io::Result<Self> {
        let mut features =
            1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
        if access == DiskAccess::ReadOnly {
            features |= 1 << VIRTIO_BLK_F_RO;
        }
        let sectors = storage.sectors();
        let mut padded = [0; VIRTIO_BLK_ID_BYTES as usize];
        padded.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        let disk = Disk { storage, access, id: padded, buffer: Vec::new() };
        let worker = Worker::new(format!("disk {id}"), disk, service)?;
        let config = ConfigSpace::new(config(sectors));
        Ok(Self { features, config, sectors, access, worker })
    }
}

/// struct virtio_blk_config (5.2.4) up to blk_size: capacity, size_max, seg_max, geometry,
/// blk_size.
fn config(sectors: u64) -> [u8; 24] {
    let mut config = [0; 24];
    config[..8].copy_from_slice(&sectors.to_le_bytes());
    config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
    config[20..].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    config
}

impl VirtioDevice for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.config.read(offset, into);
    }

    fn config_generation(&self) -> u32 {
        self.config.generation()
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq: _, ram: _ } = activation;
        if let Some(queue) = queues.into_iter().next().flatten() {
            self.worker.start(queue, features);
        }
    }

    fn notify(&mut self, _queue: usize) {
        self.worker.notify();
    }

    fn quiesce(&mut self) {
        self.worker.stop();
    }

    fn save(&self) -> DeviceState {
        let Self { features: _, config: _, sectors, access, worker: _ } = self;
        DeviceState::Block(BlockState {
            version: BlockState::VERSION,
            sectors: *sectors,
            read_only: *access == DiskAccess::ReadOnly,
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let &DeviceState::Block(BlockState { version, sectors, read_only }) = state else {
            return Err(RestoreError::Kind { device: "disk" });
        };
        let check = Check::version("disk", version, BlockState::VERSION)?;
        check.that(sectors == self.sectors, "sectors", sectors, self.sectors)?;
        let own = self.access == DiskAccess::ReadOnly;
        check.that(read_only == own, "read_only", read_only, own)
    }
}

impl Serve for Disk {
    fn serve(&mut self, queue: &Queue, chain: Chain, features: u64) -> Result<(), Broken> {
        let write_through = features >> VIRTIO_BLK_F_FLUSH & 1 == 0;
        let (head, written) = Disk::serve(self, queue.ram(), chain, write_through)?;
        queue.complete(head, written)
    }
}
