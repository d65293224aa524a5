//! A virtio device behind either transport, with a driver made of bytes: for property tests and for
//! cargo-fuzz.
//!
//! The device serves its queues at once, so a run is the same each time. Besides not panicking, a
//! step keeps a promise: saved state restores to itself.

#[path = "../../src/virtio/tests/pci_field.rs"]
mod pci_field;

use devices::bus::MmioDevice as _;
use devices::irq::{IrqInputs, IrqLine};
use devices::msi::{Msi, MsiSink};
use devices::pci::PciFunction as _;
use devices::virtio::balloon::{Balloon, BalloonControl};
use devices::virtio::blk::{Block, Cache, Recipe};
use devices::virtio::console::{Console, ConsolePort, ConsoleSize, PortConfig, PortOutput};
use devices::virtio::fs::Fs;
use devices::virtio::net::{Cable, Mac, Net, Switch, UserConfig};
use devices::virtio::vsock::{Place, Vsock};
use devices::virtio::{Entropy, Service, VirtioDevice, VirtioMmio, VirtioPci};
use disk_image::{DiskAccess, Limit, SECTOR, Space, Storage};
use memory::GuestRam;
use pci_field::pci_field;
use share::{Options, Share};
use std::cell::RefCell;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sync::lock;
use x86::addr::{Gpa, PortWidth, Width};

const RAM: u64 = 1 << 20;
/// Entries of each queue.
const SIZE: u16 = 16;
/// Where the rings of a queue are: a page each for descriptors, available ring, used ring.
const RINGS: u64 = 0x1_0000;
const QUEUES: u64 = 5;
/// How many devices there are to choose from: so many, each over MMIO and over PCI.
const DEVICES: u8 = 8;
pub(crate) const KINDS: u8 = 2 * DEVICES;

struct Nowhere;

impl IrqInputs for Nowhere {
    fn set_input(&self, _pin: u8, _level: bool) {}
}

impl MsiSink for Nowhere {
    fn send(&self, _msi: Msi) -> bool {
        true
    }
}

/// A device behind its transport.
enum Device {
    Mmio(Arc<Mutex<VirtioMmio>>),
    Pci(Arc<Mutex<VirtioPci>>),
}

/// The same for both.
macro_rules! on {
    ($device:expr, $own:ident => $body:expr) => {
        match $device {
            Device::Mmio(own) => {
                let mut $own = lock(own);
                $body
            }
            Device::Pci(own) => {
                let mut $own = lock(own);
                $body
            }
        }
    };
}

/// A device and its driver.
pub(crate) struct Rig {
    ram: GuestRam,
    device: Device,
    host: Side,
}

/// What the host has of a device.
#[derive(Default)]
struct Side {
    balloon: Option<BalloonControl>,
    /// A console's end.
    window: Option<ConsolePort>,
    /// Where programs reach the guest, and those that have come.
    socket: Option<PathBuf>,
    programs: RefCell<Vec<UnixStream>>,
}

/// A disk of 64 sectors in memory.
struct Sectors(Mutex<Vec<u8>>);

impl Sectors {
    fn with<T>(&self, offset: u64, bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut lock(&self.0)[offset as usize..][..bytes])
    }
}

impl Storage for Sectors {
    fn sectors(&self) -> u64 {
        lock(&self.0).len() as u64 / SECTOR
    }

    fn granule(&self) -> u32 {
        4096
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(offset, into.len(), |bytes| into.copy_from_slice(bytes));
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.with(offset, from.len(), |bytes| bytes.copy_from_slice(from));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.write_zeroes(offset, bytes, Space::Keep)
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, _: Space) -> io::Result<()> {
        self.with(offset, bytes as usize, |bytes| bytes.fill(0));
        Ok(())
    }
}

/// Takes everything.
struct Sink;

impl PortOutput for Sink {
    fn has_room(&mut self) -> bool {
        true
    }

    fn put(&mut self, _bytes: &[u8]) {}

    fn close(&mut self) {}
}

/// A device, and the host's side of it.
fn make(kind: u8) -> (Box<dyn VirtioDevice>, Side) {
    const NO_THREAD: &str = "no thread is needed";
    match kind % DEVICES {
        0 => (Box::new(Entropy::new(Service::AtOnce).expect(NO_THREAD)), Side::default()),
        1 => {
            let balloon = Balloon::new(RAM, Service::AtOnce).expect(NO_THREAD);
            let control = balloon.control();
            (Box::new(balloon), Side { balloon: Some(control), ..Side::default() })
        }
        2 => {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("gemello-rig-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let place = Place::new(&path).expect("a socket");
            let vsock = Vsock::at_once(3, Some(place)).expect(NO_THREAD);
            (Box::new(vsock), Side { socket: Some(path), ..Side::default() })
        }
        3 => {
            // Any address may be tried: nothing leads elsewhere.
            let config = UserConfig { restrict: Switch::On, ..UserConfig::default() };
            let plugged = Cable::User(config).plug().expect("a network");
            let net = Net::new(Mac::of_machine("rig"), plugged.backend, Service::AtOnce);
            (Box::new(net.expect(NO_THREAD)), Side::default())
        }
        4 => {
            let port = |output: Option<Box<dyn PortOutput>>| PortConfig {
                name: "port".into(),
                input: output.is_none(),
                output,
            };
            let ports = vec![port(None), port(Some(Box::new(Sink)))];
            let console = Console::new(ports, Service::AtOnce).expect(NO_THREAD);
            (Box::new(console), Side::default())
        }
        5 => {
            // A folder in which each guest finds the same, and can change nothing.
            let options = Options { read_only: true, ..Options::default() };
            let share = Share::open("/usr".as_ref(), options);
            let share = Arc::new(share.expect("a folder"));
            let fs = Fs::new("rig", share, 1, Service::AtOnce).expect(NO_THREAD);
            (Box::new(fs), Side::default())
        }
        6 => {
            let output = Some(Box::new(Sink) as Box<dyn PortOutput>);
            let config = PortConfig { name: "hvc".into(), output, input: true };
            let console = Console::one(config, Service::AtOnce).expect(NO_THREAD);
            let window = console.ports().pop();
            (Box::new(console), Side { window, ..Side::default() })
        }
        _ => {
            let sectors = Box::new(Sectors(Mutex::new(vec![7; 64 * SECTOR as usize])));
            let recipe = Recipe {
                access: DiskAccess::ReadWrite,
                serial: "rig".into(),
                name: "disk".into(),
                cache: Cache::default(),
                limit: Limit::default(),
                queues: 1,
            };
            let disk = Block::new(sectors, recipe, Service::AtOnce).expect(NO_THREAD);
            (Box::new(disk), Side::default())
        }
    }
}

impl Rig {
    pub(crate) fn new(kind: u8) -> Self {
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
        let (device, host) = make(kind);
        let line = IrqLine::to_pin(16, Arc::new(Nowhere));
        let device = if kind % KINDS < DEVICES {
            Device::Mmio(VirtioMmio::new(device, ram.clone(), line))
        } else {
            let function = VirtioPci::new(device, ram.clone(), line, Arc::new(Nowhere));
            lock(&function).config_write(4, PortWidth::B2, 6); // memory, bus master
            Device::Pci(function)
        };
        Self { device, ram, host }
    }

    /// A load from the MMIO transport's `register`, or from what it is on PCI.
    fn load(&self, register: u64) -> u64 {
        match &self.device {
            Device::Mmio(device) => lock(device).read(register, Width::B4),
            Device::Pci(device) => {
                let (offset, width) = field(register);
                lock(device).read(0, offset, width).into()
            }
        }
    }

    fn store(&self, register: u64, value: u64) {
        let value = value & 0xFFFF_FFFF;
        match &self.device {
            Device::Mmio(device) => lock(device).write(register, Width::B4, value),
            Device::Pci(device) if register == NOTIFY => {
                lock(device).write(0, 0x3000 + 4 * (value as u32 & 7), PortWidth::B2, 0);
            }
            Device::Pci(device) => {
                let (offset, width) = field(register);
                lock(device).write(0, offset, width, value as u32 & width.mask());
            }
        }
    }

    /// An access to anything of a PCI function's: its configuration space, its BARs.
    fn anywhere(&self, [what, a, b]: [u8; 3], value: u32) {
        let Device::Pci(device) = &self.device else { return };
        let width = [PortWidth::B1, PortWidth::B2, PortWidth::B4][usize::from(what >> 2) % 3];
        let at = u32::from(u16::from_be_bytes([a, b])) & !(width.bytes() as u32 - 1);
        let mut device = lock(device);
        match what & 3 {
            0 => drop(device.config_read(at as u16 & 0xFFF, width)),
            1 => device.config_write(at as u16 & 0xFFF, width, value & width.mask()),
            2 => drop(device.read(usize::from(what >> 4) & 1, at, width)),
            _ => device.write(usize::from(what >> 4) & 1, at, width, value & width.mask()),
        }
    }

    fn poke(&self, at: u64, bytes: &[u8]) {
        let _ = self.ram.write(Gpa(at), bytes);
    }

    fn ring(queue: u64, part: u64) -> u64 {
        RINGS + (queue % QUEUES * 3 + part) * 0x1000
    }

    /// What the used ring of `queue` counts.
    pub(crate) fn used(&self, queue: u64) -> u16 {
        let mut index = [0; 2];
        self.ram.read(Gpa(Self::ring(queue, 2) + 2), &mut index).expect("RAM");
        u16::from_le_bytes(index)
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.load(0x70) & 0x40 != 0
    }

    /// Initializes the device as 3.1.1 says, with the features `wanted` of the first 32.
    fn handshake(&self, wanted: u64) {
        self.store(0x70, 0);
        self.store(0x70, 3);
        self.store(0x14, 0);
        let offered = self.load(0x10);
        for (select, features) in [(0, offered & wanted), (1, 1)] {
            self.store(0x24, select);
            self.store(0x20, features);
        }
        self.store(0x70, 0xb);
        for queue in 0..QUEUES {
            self.store(0x30, queue);
            self.store(0x38, SIZE.into());
            for (part, register) in [(0, 0x80), (1, 0x90), (2, 0xa0)] {
                self.poke(Self::ring(queue, part), &[0; 0x1000]);
                self.store(register, Self::ring(queue, part));
                self.store(register + 4, 0);
            }
            self.store(0x44, 1);
        }
        self.store(0x70, 0xf);
    }

    /// Puts descriptor `head` of `queue` into its available ring.
    fn offer(&self, queue: u64, head: u16) {
        let ring = Self::ring(queue, 1);
        let mut index = [0; 2];
        self.ram.read(Gpa(ring + 2), &mut index).expect("RAM");
        let index = u16::from_le_bytes(index);
        self.poke(ring + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        self.poke(ring + 2, &index.wrapping_add(1).to_le_bytes());
        self.store(NOTIFY, queue % QUEUES);
    }

    /// The host wants something.
    fn host_event(&self, value: u64) {
        let mut programs = self.host.programs.borrow_mut();
        if let Some(path) = &self.host.socket
            && programs.len() < 16
        {
            let mut program = UnixStream::connect(path).expect("it listens");
            let greeting = format!("CONNECT {}\n", value & 3);
            program.write_all(&greeting.as_bytes()[..(value >> 8) as usize % 11]).expect("taken");
            programs.push(program);
        } else if value & 1 == 0 {
            programs.clear();
        } else {
            programs.iter_mut().for_each(|program| drop(program.write(b"hello")));
        }
        if let Some(window) = &self.host.window {
            window.resize(ConsoleSize { rows: value as u16, columns: (value >> 16) as u16 });
            window.receive(|room| vec![b'x'; room.min(100)]);
        }
        if let Some(balloon) = &self.host.balloon {
            balloon.want(value);
            let report = balloon.report(Duration::ZERO);
            assert!(report.wanted <= RAM);
        }
    }

    /// One step of eight bytes: operation, and what it is about.
    pub(crate) fn step(&self, step: [u8; 8]) {
        let [operation, a, b, c, v0, v1, v2, v3] = step;
        let value = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
        let place = u64::from(a) << 12 | u64::from(b) << 4;
        match operation % 13 {
            0 => self.poke(place, &[v0, v1, v2, v3][..usize::from(c % 4) + 1]),
            1 => self.store(u64::from(a) << 2, value),
            2 => drop(self.load(u64::from(a) << 2)),
            3 => self.handshake(if c == 0 { u64::from(u32::MAX) } else { value }),
            4 => {
                // Addresses in and around RAM; lengths short and long.
                let gpa = value & 0x1F_FFFF;
                let len = u32::from(v3) << (b % 25);
                let at = Self::ring(a.into(), 0) + 16 * u64::from(b % SIZE as u8);
                let next = u16::from(b % SIZE as u8) + 1;
                self.poke(at, &gpa.to_le_bytes());
                self.poke(at + 8, &len.to_le_bytes());
                self.poke(at + 12, &u16::from(c & 7).to_le_bytes());
                self.poke(at + 14, &next.to_le_bytes());
            }
            5 => self.offer(a.into(), u16::from(b) % (SIZE + 1)),
            6 => self.store(NOTIFY, value & 7),
            7 => self.store(0x100 + u64::from(a), value),
            8 => on!(&self.device, device => device.pause()),
            9 => on!(&self.device, device => device.resume()),
            10 => self.host_event(value),
            11 => self.anywhere([a, b, c], value as u32),
            _ => on!(&self.device, device => {
                device.pause();
                let state = device.save();
                device.restore(&state).expect("its own state");
                assert_eq!(device.save(), state);
                device.resume();
            }),
        }
    }
}

/// QueueNotify of the MMIO transport.
const NOTIFY: u64 = 0x50;

/// Where the MMIO transport's `register` is in BAR 0 of a function, and how wide: at the ISR status
/// if it is not there.
fn field(register: u64) -> (u32, PortWidth) {
    pci_field(register).unwrap_or((0x1000, PortWidth::B1))
}

/// Has a driver do to a device what `data` says, eight bytes a step. Must neither panic nor hang.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((&kind, steps)) = data.split_first() else { return };
    let rig = Rig::new(kind);
    rig.handshake(u32::MAX.into());
    for step in steps.chunks_exact(8).take(1024) {
        rig.step(step.try_into().unwrap_or_default());
    }
}
