//! A driver that plays the guest: it lays rings and requests out in RAM by hand.

use super::pci_field::pci_field;
use crate::bus::MmioDevice as _;
use crate::irq::{IrqInputs, IrqLine};
use crate::msi::{Msi, MsiSink};
use crate::pci::PciFunction as _;
use crate::saved::RestoreError;
use crate::virtio::blk::{Block, Cache, Recipe};
use crate::virtio::{MmioState, PciState, Service, TransportState};
use crate::virtio::{VirtioDevice, VirtioMmio, VirtioPci};
pub(super) use disk_image::DiskAccess::{self, ReadOnly, ReadWrite};
use disk_image::{Limit, Space, Storage};
use memory::GuestRam;
use proptest::prelude::*;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sync::lock;
use x86::addr::{Gpa, PortWidth};

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
pub(super) const DISCARD: u32 = 11;
pub(super) const ZEROES: u32 = 13;
/// What a [`Platter`] reads as where it was discarded.
pub(super) const DISCARDED: u8 = 0xD5;

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
    /// Whether the host's disk has no room for what its cache holds.
    pub(super) full: bool,
    /// While set, every access waits.
    pub(super) gate: Option<Arc<AtomicBool>>,
}

impl Platter {
    pub(super) fn new(sectors: usize) -> Self {
        let bytes: Vec<u8> = (0..sectors * 512).map(|i| (i / 512 * 7 + i) as u8).collect();
        let durable = bytes.clone();
        Self(Arc::new(Mutex::new(Content { bytes, durable, ..Content::default() })))
    }

    fn fill(&self, offset: u64, bytes: u64, with: u8) -> io::Result<()> {
        let range = offset as usize..(offset + bytes) as usize;
        self.access(|content| content.bytes[range].fill(with))
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

    fn granule(&self) -> u32 {
        4096
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        self.access(|content| into.copy_from_slice(&content.bytes[at..at + into.len()]))
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.access(|content| content.bytes[at..at + from.len()].copy_from_slice(from))
    }

    fn sync(&self) -> io::Result<()> {
        self.access(|content| {
            if content.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            content.durable = content.bytes.clone();
            content.flushes += 1;
            Ok(())
        })?
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.fill(offset, bytes, DISCARDED)
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, _: Space) -> io::Result<()> {
        self.fill(offset, bytes, 0)
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

/// The messages that the device has sent.
#[derive(Default)]
pub(super) struct Inbox(pub(super) Mutex<Vec<Msi>>);

impl MsiSink for Inbox {
    fn send(&self, msi: Msi) -> bool {
        lock(&self.0).push(msi);
        true
    }
}

/// The transport under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Mmio,
    Pci,
}

/// Runs `test` on every transport.
pub(super) fn on_each(test: impl Fn(On)) {
    [On::Mmio, On::Pci].into_iter().for_each(test);
}

/// Any transport.
pub(super) fn on_any() -> impl Strategy<Value = On> {
    prop_oneof![Just(On::Mmio), Just(On::Pci)]
}

/// A device behind its transport.
#[derive(Clone)]
pub(super) enum Device {
    Mmio(Arc<Mutex<VirtioMmio>>),
    Pci(Arc<Mutex<VirtioPci>>),
}

/// Its saved state.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Mmio(MmioState),
    Pci(PciState),
}

impl State {
    pub(super) fn transport(&self) -> &TransportState {
        match self {
            Self::Mmio(state) => &state.transport,
            Self::Pci(state) => &state.transport,
        }
    }

    pub(super) fn interrupt_status(&self) -> u32 {
        match self {
            Self::Mmio(state) => state.interrupt_status,
            Self::Pci(state) => state.isr.into(),
        }
    }
}

impl Device {
    pub(super) fn pause(&self) {
        match self {
            Self::Mmio(device) => lock(device).pause(),
            Self::Pci(device) => lock(device).pause(),
        }
    }

    pub(super) fn resume(&self) {
        match self {
            Self::Mmio(device) => lock(device).resume(),
            Self::Pci(device) => lock(device).resume(),
        }
    }

    pub(super) fn save(&self) -> State {
        match self {
            Self::Mmio(device) => State::Mmio(lock(device).save()),
            Self::Pci(device) => State::Pci(lock(device).save()),
        }
    }

    pub(super) fn restore(&self, state: &State) -> Result<(), RestoreError> {
        match (self, state) {
            (Self::Mmio(device), State::Mmio(state)) => lock(device).restore(state),
            (Self::Pci(device), State::Pci(state)) => lock(device).restore(state),
            _ => panic!("a state of the other transport"),
        }
    }
}

/// A descriptor: address, length, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);

pub(super) struct Driver {
    pub(super) ram: GuestRam,
    pub(super) device: Device,
    pin: Arc<Pin>,
    pub(super) inbox: Arc<Inbox>,
    /// What ISR status has told and is not acknowledged: PCI's forgets what it has told.
    told: AtomicU32,
    available: u16,
    used: u16,
}

/// A device on `platter` and fresh RAM, not initialized.
pub(super) fn device(on: On, platter: &Platter, access: DiskAccess) -> Driver {
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    device_on(on, ram, platter, access)
}

/// A disk with one queue.
pub(super) fn recipe(access: DiskAccess) -> Recipe {
    let (serial, name) = ("gemello-disk0".to_owned(), "a platter".to_owned());
    let (cache, limit) = (Cache::Writeback, Limit::default());
    Recipe { access, serial, name, cache, limit, queues: 1 }
}

/// The same on this RAM.
pub(super) fn device_on(on: On, ram: GuestRam, platter: &Platter, access: DiskAccess) -> Driver {
    let block = Block::new(Box::new(platter.clone()), recipe(access), Service::Thread);
    driver_of(on, ram, Box::new(block.expect("thread")))
}

/// A driver of `device`, behind its transport. On PCI, it may use memory.
pub(super) fn driver_of(on: On, ram: GuestRam, device: Box<dyn VirtioDevice>) -> Driver {
    let (pin, inbox) = (Arc::new(Pin::default()), Arc::new(Inbox::default()));
    let irq = IrqLine::to_pin(16, Arc::clone(&pin) as _);
    let device = match on {
        On::Mmio => Device::Mmio(VirtioMmio::new(device, ram.clone(), irq)),
        On::Pci => {
            let function = VirtioPci::new(device, ram.clone(), irq, Arc::clone(&inbox) as _);
            lock(&function).config_write(4, PortWidth::B2, 6);
            Device::Pci(function)
        }
    };
    Driver { ram, device, pin, inbox, told: AtomicU32::new(0), available: 0, used: 0 }
}

/// A device that a driver has running with `features` besides VERSION_1.
pub(super) fn running(on: On, platter: &Platter, features: u64) -> Driver {
    let mut driver = device(on, platter, ReadWrite);
    driver.initialize(features);
    driver
}

/// Waits until `what` holds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Driver {
    /// A load from the MMIO transport's `register`, or from what it is on PCI.
    pub(super) fn load(&self, register: u64) -> u32 {
        match (&self.device, register) {
            (Device::Mmio(device), _) => lock(device).read(register, PortWidth::B4.into()) as u32,
            (Device::Pci(_), 0x60) => {
                let isr = self.read_bar(0, 0x1000, PortWidth::B1);
                self.told.fetch_or(isr, Ordering::SeqCst) | isr
            }
            (Device::Pci(_), _) => {
                let field = pci_field(register);
                field.map_or(u32::MAX, |(offset, width)| self.read_bar(0, offset, width))
            }
        }
    }

    /// A store to it.
    pub(super) fn store(&self, register: u64, value: u32) {
        match (&self.device, register) {
            (Device::Mmio(device), _) => {
                lock(device).write(register, PortWidth::B4.into(), value.into());
            }
            (Device::Pci(_), 0x50) => {
                self.write_bar(0, 0x3000 + 4 * (value & 0x3FF), PortWidth::B2, value);
            }
            (Device::Pci(_), 0x64) => {
                self.load(0x60);
                self.told.fetch_and(!value, Ordering::SeqCst);
            }
            (Device::Pci(_), _) => {
                if register == 0x70 && value == 0 {
                    self.told.store(0, Ordering::SeqCst);
                }
                if let Some((offset, width)) = pci_field(register) {
                    self.write_bar(0, offset, width, value & width.mask());
                }
            }
        }
    }

    /// A load from byte `offset` of the device's configuration.
    pub(super) fn load_config(&self, offset: u32, width: PortWidth) -> u32 {
        match &self.device {
            Device::Mmio(device) => {
                lock(device).read(u64::from(offset) + 0x100, width.into()) as u32
            }
            Device::Pci(_) => self.read_bar(0, 0x2000 + offset, width),
        }
    }

    /// A store to it.
    pub(super) fn store_config(&self, offset: u32, width: PortWidth, value: u32) {
        match &self.device {
            Device::Mmio(device) => {
                lock(device).write(u64::from(offset) + 0x100, width.into(), value.into());
            }
            Device::Pci(_) => self.write_bar(0, 0x2000 + offset, width, value),
        }
    }

    pub(super) fn function(&self) -> &Mutex<VirtioPci> {
        match &self.device {
            Device::Pci(device) => device,
            Device::Mmio(_) => panic!("on MMIO"),
        }
    }

    pub(super) fn read_bar(&self, bar: usize, offset: u32, width: PortWidth) -> u32 {
        lock(self.function()).read(bar, offset, width)
    }

    pub(super) fn write_bar(&self, bar: usize, offset: u32, width: PortWidth, value: u32) {
        lock(self.function()).write(bar, offset, width, value);
    }

    /// Goes on in the rings where `other` is.
    pub(super) fn take_place_of(&mut self, other: &Self) {
        (self.available, self.used) = (other.available, other.used);
    }

    /// 3.1.1 and 4.2.3, with an empty ring. Gives Status.
    pub(super) fn initialize(&mut self, features: u64) -> u32 {
        self.initialize_queue(0, features)
    }

    /// The same with queue `number` alone.
    pub(super) fn initialize_queue(&mut self, number: u32, features: u64) -> u32 {
        self.ram.write(Gpa(DESCRIPTORS), &[0; 0x3000]).expect("RAM");
        (self.available, self.used) = (0, 0);
        self.negotiate(features);
        self.set_queue_of(number, SIZE.into(), [DESCRIPTORS, AVAILABLE, USED]);
        self.store(0x70, 0xf);
        self.load(0x70)
    }

    /// From the reset to FEATURES_OK, with `features` and VERSION_1.
    pub(super) fn negotiate(&self, features: u64) {
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
    }

    pub(super) fn set_queue(&self, size: u32, rings: [u64; 3]) {
        self.set_queue_of(0, size, rings);
    }

    pub(super) fn set_queue_of(
        &self,
        number: u32,
        size: u32,
        [descriptors, available, used]: [u64; 3],
    ) {
        self.store(0x30, number);
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
        self.notify_queue(0);
    }

    pub(super) fn notify_queue(&self, number: u32) {
        self.store(0x50, number);
    }

    /// Whether a used buffer waits to be taken.
    pub(super) fn has_answer(&self) -> bool {
        self.u16_at(Gpa(USED + 2)) != self.used
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

    /// A request whose data the device reads.
    pub(super) fn send(&mut self, kind: u32, sector: u64, len: u32) -> (u8, u32) {
        self.header(kind, sector);
        let all = [(HEADER, 16, false), (DATA, len, false), (STATUS, 1, true)];
        self.chain(DESCRIPTORS, &all);
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

    /// Whether the interrupt line is up, or was until ISR status was read.
    pub(super) fn interrupted(&self) -> bool {
        self.pin.0.load(Ordering::SeqCst) || self.told.load(Ordering::SeqCst) != 0
    }

    /// Waits until the worker is idle: everything it wants to say is said.
    pub(super) fn settle(&self) {
        let _ = self.device.save();
    }
}
