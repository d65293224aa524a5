//! A driver that plays the guest: it lays rings and requests out in RAM by hand.

use crate::bus::MmioDevice as _;
use crate::irq::{IrqInputs, IrqLine};
pub(super) use crate::virtio::blk::DiskAccess::{self, ReadOnly, ReadWrite};
use crate::virtio::blk::{Block, Storage};
use crate::virtio::{Service, VirtioDevice, VirtioMmio};
use memory::GuestRam;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sync::lock;
use x86::addr::{Gpa, Width};

pub(super) const RAM: u64 = 1 << 20;
/// Entries of the queue.
pub(super) const SIZE: u16 = 16;
pub(super) const DESCRIPTORS: u64 = 0x1000;
pub(super) const AVAILABLE: u64 = 0x2000;
pub(super) const USED: u64 = 0x3000;
/// Where tests put headers, and the status after them.
pub(super) const HEADER: u64 = 0x4000;
pub(super) const STATUS: u64 = 0x4800;
/// Where tests put data: to the end of RAM.
pub(super) const DATA: u64 = 0x8000;
/// Where tests put an indirect table.
pub(super) const TABLE: u64 = 0x5000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;

pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const F_FLUSH: u64 = 1 << 9;
pub(super) const F_RO: u64 = 1 << 5;

/// What the driver finds in the status byte before the device has written it.
pub(super) const UNTOUCHED: u8 = 0xEE;

/// A disk in memory, which knows what a crash of the host would leave.
#[derive(Clone, Default)]
pub(super) struct Platter(pub(super) Arc<Mutex<Content>>);

#[derive(Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) flushes: usize,
    pub(super) failing: bool,
    /// While set, every access waits.
    pub(super) gate: Option<Arc<AtomicBool>>,
}

impl Platter {
    pub(super) fn new(sectors: usize) -> Self {
        let bytes: Vec<u8> = (0..sectors * 512).map(|i| (i / 512 * 7 + i) as u8).collect();
        let durable = bytes.clone();
        Self(Arc::new(Mutex::new(Content { bytes, durable, ..Content::default() })))
    }

    fn access<T>(&self, work: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let gate = lock(&self.0).gate.clone();
        while gate.as_ref().is_some_and(|gate| gate.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut content = lock(&self.0);
        if content.failing {
            return Err(io::Error::other("the platter is scratched"));
        }
        Ok(work(&mut content))
    }
}

impl Storage for Platter {
    fn sectors(&self) -> u64 {
        lock(&self.0).bytes.len() as u64 / 512
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        self.access(|content| into.copy_from_slice(&content.bytes[at..at + into.len()]))
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.access(|content| content.bytes[at..at + from.len()].copy_from_slice(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.access(|content| {
            content.durable = content.bytes.clone();
            content.flushes += 1;
        })
    }
}

/// The level of the device's interrupt line.
#[derive(Default)]
pub(super) struct Pin(AtomicBool);

impl IrqInputs for Pin {
    fn set_input(&self, pin: u8, level: bool) {
        assert_eq!(pin, 16);
        self.0.store(level, Ordering::SeqCst);
    }
}

/// A descriptor: address, length, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);

pub(super) struct Driver {
    pub(super) ram: GuestRam,
    pub(super) device: Arc<Mutex<VirtioMmio>>,
    pin: Arc<Pin>,
    available: u16,
    used: u16,
}

/// A device on `platter` and fresh RAM, not initialized.
pub(super) fn device(platter: &Platter, access: DiskAccess) -> Driver {
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    device_on(ram, platter, access)
}

/// The same on this RAM.
pub(super) fn device_on(ram: GuestRam, platter: &Platter, access: DiskAccess) -> Driver {
    let block = Block::new(Box::new(platter.clone()), access, "gemello-disk0", Service::Thread)
        .expect("thread");
    driver_of(ram, Box::new(block))
}

/// A driver of `device`, behind its transport.
pub(super) fn driver_of(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Driver {
    let pin = Arc::new(Pin::default());
    let irq = IrqLine::to_pin(16, Arc::clone(&pin) as _);
    let device = VirtioMmio::new(device, ram.clone(), irq);
    Driver { ram, device, pin, available: 0, used: 0 }
}

/// A device that a driver has running with `features` besides VERSION_1.
pub(super) fn running(platter: &Platter, features: u64) -> Driver {
    let mut driver = device(platter, ReadWrite);
    driver.initialize(features);
    driver
}

impl Driver {
    pub(super) fn load(&self, register: u64) -> u32 {
        lock(&self.device).read(register, Width::B4) as u32
    }

    pub(super) fn store(&self, register: u64, value: u32) {
        lock(&self.device).write(register, Width::B4, value.into());
    }

    /// 3.1.1 and 4.2.3, with an empty ring. Gives Status.
    pub(super) fn initialize(&mut self, features: u64) -> u32 {
        self.ram.write(Gpa(DESCRIPTORS), &[0; 0x3000]).expect("RAM");
        (self.available, self.used) = (0, 0);
        let features = features | VERSION_1;
        self.store(0x70, 0);
        self.store(0x70, 1);
        self.store(0x70, 3);
        for select in 0..2 {
            self.store(0x24, select);
            self.store(0x20, (features >> (32 * select)) as u32);
        }
        self.store(0x70, 0xb);
        assert_eq!(self.load(0x70), 0xb, "FEATURES_OK");
        self.set_queue(SIZE.into(), [DESCRIPTORS, AVAILABLE, USED]);
        self.store(0x70, 0xf);
        self.load(0x70)
    }

    pub(super) fn set_queue(&self, size: u32, [descriptors, available, used]: [u64; 3]) {
        self.store(0x30, 0);
        self.store(0x38, size);
        for (register, address) in [(0x80, descriptors), (0x90, available), (0xa0, used)] {
            self.store(register, address as u32);
            self.store(register + 4, (address >> 32) as u32);
        }
        self.store(0x44, 1);
    }

    pub(super) fn describe(&self, table: u64, index: u16, (gpa, len, flags, next): Descriptor) {
        let mut bytes = gpa.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.ram.write(Gpa(table + 16 * u64::from(index)), &bytes).expect("RAM");
    }

    /// Chains `parts` (address, length, writable) from descriptor 0 of `table`.
    pub(super) fn chain(&self, table: u64, parts: &[(u64, u32, bool)]) {
        for (index, &(gpa, len, writable)) in (0..).zip(parts) {
            let last = usize::from(index) + 1 == parts.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.describe(table, index, (gpa, len, flags, index + 1));
        }
    }

    pub(super) fn header(&self, kind: u32, sector: u64) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.ram.write(Gpa(HEADER), &bytes).expect("RAM");
        self.ram.write(Gpa(STATUS), &[UNTOUCHED]).expect("RAM");
    }

    /// Offers `head` to the device, without telling it.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + 2 * u64::from(self.available % SIZE);
        self.ram.write(Gpa(slot), &head.to_le_bytes()).expect("RAM");
        self.available = self.available.wrapping_add(1);
        self.ram.write(Gpa(AVAILABLE + 2), &self.available.to_le_bytes()).expect("RAM");
    }

    pub(super) fn notify(&self) {
        self.store(0x50, 0);
    }

    /// Offers descriptor 0 and waits for the device: what it wrote, or `None` if it wants a reset.
    pub(super) fn submit(&mut self) -> Option<u32> {
        self.offer(0);
        self.notify();
        self.wait()
    }

    /// The next used buffer's length, or `None` if the device wants a reset.
    pub(super) fn wait(&mut self) -> Option<u32> {
        let began = Instant::now();
        loop {
            if self.u16_at(Gpa(USED + 2)) != self.used {
                let slot = USED + 4 + 8 * u64::from(self.used % SIZE);
                self.used = self.used.wrapping_add(1);
                return Some(self.u32_at(Gpa(slot + 4)));
            }
            if self.load(0x70) & 0x40 != 0 {
                return None;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "the device does not answer");
            std::thread::yield_now();
        }
    }

    /// One request with its data in one piece at [`DATA`]: status and written length.
    pub(super) fn request(&mut self, kind: u32, sector: u64, len: u32) -> (u8, u32) {
        self.header(kind, sector);
        self.chain(
            DESCRIPTORS,
            &[(HEADER, 16, false), (DATA, len, kind != OUT), (STATUS, 1, true)],
        );
        let written = self.submit().expect("answered");
        (self.status(), written)
    }

    pub(super) fn status(&self) -> u8 {
        let mut byte = [0];
        self.ram.read(Gpa(STATUS), &mut byte).expect("RAM");
        byte[0]
    }

    pub(super) fn bytes(&self, gpa: Gpa, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(gpa, &mut bytes).expect("RAM");
        bytes
    }

    pub(super) fn u16_at(&self, gpa: Gpa) -> u16 {
        u16::from_le_bytes(self.bytes(gpa, 2).try_into().expect("2"))
    }

    fn u32_at(&self, gpa: Gpa) -> u32 {
        u32::from_le_bytes(self.bytes(gpa, 4).try_into().expect("4"))
    }

    /// Whether the interrupt line is up.
    pub(super) fn interrupted(&self) -> bool {
        self.pin.0.load(Ordering::SeqCst)
    }

    /// Waits until the worker is idle: everything it wants to say is said.
    pub(super) fn settle(&self) {
        let _ = lock(&self.device).save();
    }
}
