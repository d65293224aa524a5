//! The block device (virtio 1.2, 5.2): one queue, one thread, one [`Storage`].
//!
//! The disk has a write cache (the host's): a write is safe after a FLUSH. A driver that does not negotiate FLUSH
//! gets write-through (5.2.6.2).

mod format;
mod image;
mod request;

pub use format::Format;
pub use image::{ImageError, RawImage, SECTOR, Storage, Trust};

use self::request::Disk;
use super::chain::{Broken, Chain};
use super::worker::{Serve, Worker};
use super::{Ring, RingPosition, VirtioDevice};
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
    config: [u8; 24],
    worker: Worker,
}

impl Block {
    /// A disk on `storage` that calls itself `id` (20 bytes at the most are told).
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(storage: Box<dyn Storage>, read_only: bool, id: &str) -> io::Result<Self> {
        let mut features =
            1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
        if read_only {
            features |= 1 << VIRTIO_BLK_F_RO;
        }
        let config = config(storage.sectors());
        let mut padded = [0; VIRTIO_BLK_ID_BYTES as usize];
        padded.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        let disk = Disk { storage, read_only, id: padded, buffer: Vec::new() };
        Ok(Self { features, config, worker: Worker::new(format!("disk {id}"), disk)? })
    }
}

/// struct virtio_blk_config (5.2.4) up to blk_size: capacity, size_max, seg_max, geometry, blk_size.
fn config(sectors: u64) -> [u8; 24] {
    let mut config = [0; 24];
    config[..8].copy_from_slice(&sectors.to_le_bytes());
    config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
    config[20..].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    config
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, features: u64, rings: Vec<Option<Ring>>) {
        if let Some(ring) = rings.into_iter().next().flatten() {
            self.worker.start(ring, features);
        }
    }

    fn notify(&mut self, queue: usize) {
        if queue == 0 {
            self.worker.notify();
        }
    }

    fn stop(&mut self) -> Vec<Option<RingPosition>> {
        vec![self.worker.stop()]
    }
}

impl Serve for Disk {
    fn serve(&mut self, ring: &Ring, chain: Chain, features: u64) -> Result<u32, Broken> {
        let write_through = features >> VIRTIO_BLK_F_FLUSH & 1 == 0;
        Disk::serve(self, ring.ram(), chain, write_through)
    }
}
