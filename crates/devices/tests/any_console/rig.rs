//! A console device whose driver is driven by bytes: for property tests and for cargo-fuzz.
//!
//! It begins with a driver that is ready, so that what follows gets far. Besides not panicking and
//! not hanging, a saved state restores to itself.

use devices::bus::MmioDevice as _;
use devices::irq::IrqLine;
use devices::virtio::console::{Console, ConsolePort, PortConfig, PortOutput, PortStats};
use devices::virtio::{Service, VirtioMmio};
use memory::GuestRam;
use std::sync::{Arc, Mutex};
use sync::lock;
use x86::addr::{Gpa, Width};

const RAM: u64 = 1 << 18;
const QUEUES: u64 = 6;
const ENTRIES: u16 = 8;
/// Where data is.
const DATA: u64 = 0x2_0000;

/// Takes everything.
struct Sink;

impl PortOutput for Sink {
    fn has_room(&mut self) -> bool {
        true
    }

    fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 64 << 10, "a step is bounded");
    }

    fn close(&mut self) {}
}

/// An interrupt that leads nowhere.
struct Nowhere;

impl devices::irq::IrqInputs for Nowhere {
    fn set_input(&self, _pin: u8, _level: bool) {}
}

struct Rig {
    ram: GuestRam,
    device: Arc<Mutex<VirtioMmio>>,
    ports: Vec<ConsolePort>,
    available: [u16; QUEUES as usize],
}

const fn rings(queue: u64) -> [u64; 3] {
    let base = 0x3000 * (queue + 1);
    [base, base + 0x1000, base + 0x2000]
}

impl Rig {
    fn new() -> Self {
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
        let port = |(name, input): (&str, bool)| PortConfig {
            name: name.into(),
            output: (!input).then(|| Box::new(Sink) as Box<dyn PortOutput>),
            input,
        };
        let ports = [("in", true), ("out", false)].map(port).into();
        let console = Console::new(ports, Service::AtOnce).expect("no thread is needed");
        let ports = console.ports();
        let irq = IrqLine::to_pin(16, Arc::new(Nowhere) as _);
        let device = VirtioMmio::new(Box::new(console), ram.clone(), irq);
        let mut rig = Self { ram, device, ports, available: [0; QUEUES as usize] };
        rig.initialize();
        rig
    }

    fn store(&self, register: u64, value: u32) {
        lock(&self.device).write(register, Width::B4, value.into());
    }

    /// A driver that knows both ports, and has them open.
    fn initialize(&mut self) {
        for status in [0, 1, 3] {
            self.store(0x70, status);
        }
        for (select, features) in [(0, 2), (1, 1)] {
            self.store(0x24, select);
            self.store(0x20, features);
        }
        self.store(0x70, 0xb);
        for queue in 0..QUEUES {
            let [descriptors, available, used] = rings(queue);
            self.ram.write(Gpa(descriptors), &[0; 0x3000]).expect("RAM");
            self.store(0x30, queue as u32);
            // Queues that carry nothing take fewer.
            self.store(0x38, if matches!(queue, 1 | 4) { 2 } else { ENTRIES.into() });
            for (register, address) in [(0x80, descriptors), (0x90, available), (0xa0, used)] {
                self.store(register, address as u32);
            }
            self.store(0x44, 1);
        }
        self.available = [0; QUEUES as usize];
        self.store(0x70, 0xf);
        for (id, event) in [(u32::MAX, 0), (0, 3), (1, 3), (0, 6), (1, 6)] {
            self.say(id, event, 1);
        }
    }

    /// Offers descriptor `entry` of `queue`, and notifies.
    fn offer(&mut self, queue: u64, entry: u16) {
        let [_, available, _] = rings(queue);
        let next = &mut self.available[queue as usize];
        let slot = available + 4 + 2 * u64::from(*next % ENTRIES);
        *next = next.wrapping_add(1);
        self.ram.write(Gpa(slot), &entry.to_le_bytes()).expect("RAM");
        self.ram.write(Gpa(available + 2), &next.to_le_bytes()).expect("RAM");
        self.store(0x50, queue as u32);
    }

    fn describe(&self, queue: u64, entry: u16, at: u64, [len, flags]: [u32; 2]) {
        let [descriptors, ..] = rings(queue);
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend((flags as u16).to_le_bytes());
        bytes.extend(((flags >> 16) as u16).to_le_bytes());
        self.ram.write(Gpa(descriptors + 16 * u64::from(entry)), &bytes).expect("RAM");
    }

    fn say(&mut self, id: u32, event: u16, value: u16) {
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        self.ram.write(Gpa(DATA), &bytes).expect("RAM");
        self.describe(3, 0, DATA, [8, 0]);
        self.offer(3, 0);
    }

    /// One step of eight bytes: operation, queue, entry, values.
    fn step(&mut self, [operation, queue, entry, v0, v1, v2, v3, v4]: [u8; 8]) {
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let (queue, entry) = (u64::from(queue) % QUEUES, u16::from(entry % 8));
        match operation % 12 {
            0 => drop(self.ram.write(Gpa(u64::from(value) % (RAM - 4)), &[v4, v3, v2, v1])),
            1 => self.store(u64::from(entry) * 16 + u64::from(v4 & 15) * 4, value),
            2 => self.describe(queue, entry, value.into(), [u32::from(v4) << 8, value >> 7]),
            // A buffer of RAM, and no more.
            3 => {
                let device_writes = u32::from(matches!(queue, 0 | 2)) * 2;
                self.describe(queue, entry, DATA + u64::from(v0) * 256, [99, device_writes]);
                self.offer(queue, entry);
            }
            4 => self.offer(queue, (value % 11) as u16),
            5 => self.say(u32::from(v0 & 3), u16::from(v1 & 7), u16::from(v2 & 1)),
            6 => self.store(0x50, value % 8),
            7 => drop(self.ports[0].receive(|room| vec![v0; room.min(usize::from(v1) * 8)])),
            8 if v0 & 7 == 0 => self.ports[usize::from(v1 & 1)].hang_up(),
            9 if v0 & 7 == 0 => self.initialize(),
            10 => {
                let mut device = lock(&self.device);
                device.pause();
                let state = device.save();
                device.restore(&state).expect("its own state");
                assert_eq!(device.save(), state);
                device.resume();
            }
            _ => drop(lock(&self.device).read(u64::from(value % 0x120), Width::B4)),
        }
    }
}

/// Drives a device as `data` says, eight bytes a step; what has passed through its ports. Must
/// neither panic nor hang.
pub(crate) fn fuzz(data: &[u8]) -> Vec<PortStats> {
    let mut rig = Rig::new();
    for step in data.chunks_exact(8).take(2048) {
        rig.step(step.try_into().unwrap_or_default());
    }
    rig.ports.iter().map(ConsolePort::stats).collect()
}
