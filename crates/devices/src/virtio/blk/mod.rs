//! The block device (virtio 1.2, 5.2): some queues, a thread for each (`server.rs`), one
//! [`Storage`](disk_image::Storage).
//!
//! The disk has a write cache (the host's): a write is safe after a FLUSH. A driver may turn the
//! cache off, and one that does not negotiate FLUSH gets write-through (5.2.6.2).

mod recipe;
mod request;
pub(super) mod saved;
mod server;
mod shared;

pub use recipe::{Cache, Recipe};
pub use saved::BlockState;

use self::request::{Disk, RANGE_SECTORS, RANGES};
use self::server::Server;
use self::shared::Shared;
use super::attendant::{Attendant, Job};
use super::saved::DeviceState;
use super::{Activation, ConfigSpace, Service, VirtioDevice};
use crate::saved::{Check, RestoreError};
use disk_image::{DiskAccess, SECTOR, Storage};
use std::fmt;
use std::io;
use std::sync::Arc;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
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
/// Where struct virtio_blk_config says whether the cache is on (5.2.4).
const WRITEBACK: usize = 32;

/// A disk.
pub struct Block {
    features: u64,
    config: ConfigSpace,
    sectors: u64,
    shared: Arc<Shared>,
    sizes: Vec<u16>,
    /// One for each queue.
    servers: Vec<Attendant>,
    /// Whether the write cache is on before the driver chooses.
    writeback: bool,
    /// What the driver negotiated.
    negotiated: u64,
}

impl Block {
    /// A disk on `storage`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn new(storage: Box<dyn Storage>, recipe: Recipe, service: Service) -> io::Result<Self> {
        let features = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_CONFIG_WCE
            | 1 << VIRTIO_BLK_F_MQ
            | match recipe.access {
                DiskAccess::ReadOnly => 1 << VIRTIO_BLK_F_RO,
                DiskAccess::ReadWrite => 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
            };
        let writeback = recipe.cache != Cache::Writethrough;
        let queues = match service {
            Service::Thread => recipe.queues.clamp(1, QUEUES_MAX),
            Service::AtOnce => 1,
        };
        let (sectors, granule) = (storage.sectors(), storage.granule());
        let serial = recipe.serial.clone();
        let shared = Arc::new(Shared::new(storage, recipe));
        let server = |number: u16| {
            let disk = Disk { shared: Arc::clone(&shared), buffer: Vec::new() };
            let name = match number {
                0 => format!("disk {serial}"),
                _ => format!("disk {serial} {number}"),
            };
            Attendant::new(name, Server::new(disk, service), service)
        };
        let servers = (0..queues).map(server).collect::<io::Result<_>>()?;
        let mut config = config(sectors, granule, queues);
        config[WRITEBACK] = writeback.into();
        let config = ConfigSpace::new(config);
        let sizes = vec![QUEUE_SIZE; queues.into()];
        Ok(Self { features, config, sectors, shared, sizes, servers, writeback, negotiated: 0 })
    }

    fn set_writeback(&self, on: bool) {
        self.config.update(|config| config[WRITEBACK] = on.into());
    }

    fn is_writeback(&self) -> bool {
        let mut on = [0];
        self.config.read(WRITEBACK, &mut on);
        on != [0]
    }

    /// Has the queues' threads write as the driver has negotiated and chosen (5.2.5.2).
    fn choose_writes(&self) {
        let has = |feature: u32| self.negotiated >> feature & 1 != 0;
        let back = match (has(VIRTIO_BLK_F_FLUSH), has(VIRTIO_BLK_F_CONFIG_WCE)) {
            (false, _) => false,
            (true, true) => self.is_writeback(),
            (true, false) => self.writeback,
        };
        self.shared.set_writes_through(!back);
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

    fn write_config(&mut self, offset: usize, bytes: &[u8]) {
        let byte = WRITEBACK.checked_sub(offset).and_then(|at| bytes.get(at));
        if let Some(byte) = byte {
            self.set_writeback(*byte != 0);
            self.choose_writes();
        }
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq: _, ram: _ } = activation;
        self.negotiated = features;
        if features >> VIRTIO_BLK_F_FLUSH & 1 == 0 {
            self.set_writeback(false);
        }
        self.choose_writes();
        for (server, queue) in self.servers.iter().zip(queues) {
            if queue.is_some() {
                server.start(Job { queues: vec![queue], features });
            }
        }
    }

    fn notify(&mut self, queue: usize) {
        if let Some(server) = self.servers.get(queue) {
            server.ring();
        }
    }

    fn reset(&mut self) {
        self.negotiated = 0;
        self.set_writeback(self.writeback);
    }

    fn quiesce(&mut self) {
        self.servers.iter().for_each(Attendant::stop);
        // Who saves the machine next finds the file as it will stay.
        if let Err(error) = self.shared.storage.settle() {
            self.shared.tell(&error);
        }
    }

    fn save(&self) -> DeviceState {
        let Self { features: _, config: _, sectors, shared, sizes: _, servers: _, .. } = self;
        DeviceState::Block(BlockState {
            version: BlockState::VERSION,
            sectors: *sectors,
            read_only: shared.access == DiskAccess::ReadOnly,
            writeback: self.is_writeback(),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let &DeviceState::Block(BlockState { version, sectors, read_only, writeback }) = state
        else {
            return Err(RestoreError::Kind { device: "disk" });
        };
        let check = Check::version("disk", version, BlockState::VERSION)?;
        check.that(sectors == self.sectors, "sectors", sectors, self.sectors)?;
        let own = self.shared.access == DiskAccess::ReadOnly;
        check.that(read_only == own, "read_only", read_only, own)?;
        self.set_writeback(writeback);
        Ok(())
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("sectors", &self.sectors).finish_non_exhaustive()
    }
}
