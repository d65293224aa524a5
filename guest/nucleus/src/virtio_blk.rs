//! A block device behind virtio's MMIO transport (virtio 1.2: 2.7 split queues, 4.2 MMIO, 5.2 block
//! device).
//!
//! One request at a time, waited for. Both register layouts are served: the one of the standard
//! (version 2) and the older one that QEMU still shows unless told otherwise (version 1, 4.2.4).

use crate::frames::Frames;
use crate::physical::{Frame, PAGE, get16, get32, set16, set32, set64};
use crate::{clock, cpu};

// Registers (4.2.2, 4.2.4).
const MAGIC: u64 = 0x00;
const VERSION: u64 = 0x04;
const DEVICE: u64 = 0x08;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SELECT: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const GUEST_PAGE_SIZE: u64 = 0x28;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_ALIGN: u64 = 0x3C;
const QUEUE_PAGE: u64 = 0x40;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_DESCRIPTORS: u64 = 0x80;
const QUEUE_AVAILABLE: u64 = 0x90;
const QUEUE_USED: u64 = 0xA0;
const CONFIG: u64 = 0x100;

const MAGIC_VALUE: u32 = 0x7472_6976;
const BLOCK: u32 = 2;

// Status bits (2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
/// VIRTIO_F_VERSION_1 (6), bit 32.
const VERSION_1: u32 = 1;

/// Descriptors in the queue.
const SIZE: u16 = 8;
// Offsets in the queue's two pages: descriptors, available ring; used ring; then the request's
// header and status.
const AVAILABLE: u64 = SIZE as u64 * 16;
const USED: u64 = PAGE;
const HEADER: u64 = 2 * PAGE - 64;
const RESULT: u64 = 2 * PAGE - 16;

// Descriptor flags (2.7.5).
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// A request that takes longer than this (in microseconds) has failed.
const PATIENCE: u64 = 20_000_000;

pub struct Disk {
    base: u64,
    queue: u64,
    index: u16,
    sectors: u64,
}

impl Disk {
    /// Starts the block device at `base`, if there is one.
    pub fn start(base: u64, frames: &mut Frames) -> Option<Self> {
        let version = get32(base + VERSION);
        if get32(base + MAGIC) != MAGIC_VALUE || get32(base + DEVICE) != BLOCK {
            return None;
        }
        set32(base + STATUS, 0);
        set32(base + STATUS, ACKNOWLEDGE | DRIVER);
        if version >= 2 {
            set32(base + DEVICE_FEATURES_SELECT, 1);
            let features = get32(base + DEVICE_FEATURES) & VERSION_1;
            set32(base + DRIVER_FEATURES_SELECT, 1);
            set32(base + DRIVER_FEATURES, features);
        }
        set32(base + DRIVER_FEATURES_SELECT, 0);
        set32(base + DRIVER_FEATURES, 0);
        if version >= 2 {
            set32(base + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
            if get32(base + STATUS) & FEATURES_OK == 0 {
                return None;
            }
        }
        let queue = queue(base, version, frames)?;
        set32(base + STATUS, get32(base + STATUS) | DRIVER_OK);
        let sectors = u64::from(get32(base + CONFIG)) | u64::from(get32(base + CONFIG + 4)) << 32;
        Some(Self { base, queue, index: 0, sectors })
    }

    /// Its size, in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub fn read(&mut self, sector: u64, frame: Frame) -> bool {
        self.request(0, sector, frame, DEVICE_WRITES)
    }

    pub fn write(&mut self, sector: u64, frame: Frame) -> bool {
        self.request(1, sector, frame, 0)
    }

    /// Header, data, status: a chain of three descriptors (5.2.6).
    fn request(&mut self, kind: u32, sector: u64, frame: Frame, direction: u16) -> bool {
        let queue = self.queue;
        set32(queue + HEADER, kind);
        set32(queue + HEADER + 4, 0);
        set64(queue + HEADER + 8, sector);
        set32(queue + RESULT, 0xFF);
        self.describe(0, queue + HEADER, 16, NEXT);
        self.describe(1, frame.0, PAGE as u32, NEXT | direction);
        self.describe(2, queue + RESULT, 1, DEVICE_WRITES);
        set16(queue + AVAILABLE + 4 + u64::from(self.index % SIZE) * 2, 0);
        self.index = self.index.wrapping_add(1);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        set16(queue + AVAILABLE + 2, self.index);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        set32(self.base + QUEUE_NOTIFY, 0);
        let start = clock::microseconds();
        while get16(queue + USED + 2) != self.index {
            if clock::microseconds() - start > PATIENCE {
                return false;
            }
            cpu::pause();
        }
        set32(self.base + INTERRUPT_ACKNOWLEDGE, get32(self.base + INTERRUPT_STATUS));
        get32(queue + RESULT) & 0xFF == 0
    }

    fn describe(&self, index: u16, address: u64, length: u32, flags: u16) {
        let descriptor = self.queue + u64::from(index) * 16;
        set64(descriptor, address);
        set32(descriptor + 8, length);
        set16(descriptor + 12, flags);
        set16(descriptor + 14, index + 1);
    }
}

/// Two pages for the queue, made known to the device.
fn queue(base: u64, version: u32, frames: &mut Frames) -> Option<u64> {
    let (first, second) = (frames.take()?, frames.take()?);
    assert!(second.0 == first.0 + PAGE, "frames at boot come in ascending order");
    first.zero();
    second.zero();
    set32(base + QUEUE_SELECT, 0);
    if get32(base + QUEUE_SIZE_MAX) < SIZE.into() {
        return None;
    }
    set32(base + QUEUE_SIZE, SIZE.into());
    set16(first.0 + AVAILABLE, 1); // no interrupts wanted
    if version >= 2 {
        for (register, address) in
            [(QUEUE_DESCRIPTORS, 0), (QUEUE_AVAILABLE, AVAILABLE), (QUEUE_USED, USED)]
        {
            set32(base + register, (first.0 + address) as u32);
            set32(base + register + 4, ((first.0 + address) >> 32) as u32);
        }
        set32(base + QUEUE_READY, 1);
    } else {
        set32(base + GUEST_PAGE_SIZE, PAGE as u32);
        set32(base + QUEUE_ALIGN, PAGE as u32);
        set32(base + QUEUE_PAGE, (first.0 / PAGE) as u32);
    }
    Some(first.0)
}
