//! The block device (virtio 1.2, 5.2): some queues, a thread for each, one
//! [`Storage`](disk_image::Storage).
//!
//! The disk has a write cache (the host's): a write is safe after a FLUSH. A driver that does not
//! negotiate FLUSH gets write-through (5.2.6.2).

mod recipe;
mod request;
pub(super) mod saved;
mod shared;

pub use recipe::{Cache, Recipe};
pub use saved::BlockState;

use self::request::{Disk, RANGE_SECTORS, RANGES};
use self::shared::Shared;
use super::chain::{Broken, Chain};
use super::saved::DeviceState;
use super::worker::{Serve, Service, Worker};
use super::{Activation, ConfigSpace, Queue, VirtioDevice};
use crate::saved::{Check, RestoreError};
use disk_image::{DiskAccess, SECTOR, Storage};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

/// Entries of a queue at the most.
const QUEUE_SIZE: u16 = 256;
/// Data segments of a request at the most: the queue's entries without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Queues at the most.
const QUEUES_MAX: u16 = 8;
/// Bytes that the host writes in one piece.
const PHYSICAL: u32 = 4096;

/// A disk.
pub struct Block {
    features: u64,
    config: ConfigSpace,
    sectors: u64,
    shared: Arc<Shared>,
    sizes: Vec<u16>,
    /// One for each queue.
    workers: Vec<Worker>,
}

impl Block {
    /// A disk on `storage`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(storage: Box<dyn Storage>, recipe: Recipe, service: Service) -> io::Result<Self> {
        let mut features = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_MQ;
        if recipe.cache != Cache::Writethrough {
            features |= 1 << VIRTIO_BLK_F_FLUSH;
        }
        features |= match recipe.access {
            DiskAccess::ReadOnly => 1 << VIRTIO_BLK_F_RO,
            DiskAccess::ReadWrite => 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
        };
        let queues = match service {
            Service::Thread => recipe.queues.clamp(1, QUEUES_MAX),
            Service::AtOnce => 1,
        };
        let (sectors, granule) = (storage.sectors(), storage.granule());
        let serial = recipe.serial.clone();
        let shared = Arc::new(Shared::new(storage, recipe));
        let worker = |number: u16| {
            let disk = Disk { shared: Arc::clone(&shared), buffer: Vec::new() };
            let name = match number {
                0 => format!("disk {serial}"),
                _ => format!("disk {serial} {number}"),
            };
            Worker::new(name, disk, service)
        };
        let workers = (0..queues).map(worker).collect::<io::Result<_>>()?;
        let config = ConfigSpace::new(config(sectors, granule, queues));
        let sizes = vec![QUEUE_SIZE; queues.into()];
        Ok(Self { features, config, sectors, shared, sizes, workers })
    }
}

/// struct virtio_blk_config (5.2.4) up to write_zeroes_may_unmap.
fn config(sectors: u64, granule: u32, queues: u16) -> [u8; 60] {
    let mut config = [0; 60];
    let blocks = |bytes: u32| bytes / SECTOR as u32;
    let mut put = |at: usize, value: u32| config[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, sectors as u32);
    put(4, (sectors >> 32) as u32);
    put(12, SEG_MAX);
    put(20, SECTOR as u32);
    // physical_block_exp, alignment_offset, min_io_size; opt_io_size
    put(24, blocks(PHYSICAL).ilog2() | blocks(PHYSICAL) << 16);
    put(28, blocks(granule.max(PHYSICAL)));
    put(32, u32::from(queues) << 16);
    put(36, RANGE_SECTORS);
    put(40, RANGES);
    put(44, blocks(granule).max(1));
    put(48, RANGE_SECTORS);
    put(52, RANGES);
    put(56, 1);
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
        &self.sizes
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.config.read(offset, into);
    }

    fn config_generation(&self) -> u32 {
        self.config.generation()
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
        // Who saves the machine next finds the file as it will stay.
        if let Err(error) = self.shared.storage.settle() {
            self.shared.tell(&error);
        }
    }

    fn save(&self) -> DeviceState {
        let Self { features: _, config: _, sectors, shared, sizes: _, workers: _ } = self;
        DeviceState::Block(BlockState {
            version: BlockState::VERSION,
            sectors: *sectors,
            read_only: shared.access == DiskAccess::ReadOnly,
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let &DeviceState::Block(BlockState { version, sectors, read_only }) = state else {
            return Err(RestoreError::Kind { device: "disk" });
        };
        let check = Check::version("disk", version, BlockState::VERSION)?;
        check.that(sectors == self.sectors, "sectors", sectors, self.sectors)?;
        let own = self.shared.access == DiskAccess::ReadOnly;
        check.that(read_only == own, "read_only", read_only, own)
    }
}

impl Serve for Disk {
    fn serve(&mut self, queue: &Queue, chain: Chain, features: u64) -> Result<(), Broken> {
        let write_through = features >> VIRTIO_BLK_F_FLUSH & 1 == 0;
        let (head, written) = Disk::serve(self, queue.ram(), chain, write_through)?;
        queue.complete(head, written)
    }

    fn wait(&mut self) -> Duration {
        self.shared.wait()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("sectors", &self.sectors).finish_non_exhaustive()
    }
}
