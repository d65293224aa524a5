//! The bus: configuration by both mechanisms, BARs that move, and any access at all.

use super::*;
use crate::bus::Bus;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use sync::lock;
use x86::addr::{Gpa, Port, PortWidth, Width};

const ECAM: u64 = 0xE000_0000;
const MEMORY: u64 = 0xC000_0000;
const MEMORY_END: u64 = 0xDFFF_FFFF;

/// A function of two BARs, each a memory of its own.
struct Scratchpad {
    config: Config,
    memory: [Vec<u8>; 2],
}

impl Scratchpad {
    fn new() -> Self {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 1,
            class: [0xFF, 0, 0],
            subsystem_vendor: 1,
            subsystem: 2,
        };
        let mut config = Config::new(&identity);
        config.add_bar(0x1000);
        config.add_bar(0x100);
        Self { config, memory: [vec![0; 0x1000], vec![0; 0x100]] }
    }
}

impl PciFunction for Scratchpad {
    fn config_read(&mut self, register: u16, width: PortWidth) -> u32 {
        assert!(usize::from(register).is_multiple_of(width.bytes()) && register < 0x1000);
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u16, width: PortWidth, value: u32) {
        assert!(usize::from(register).is_multiple_of(width.bytes()) && register < 0x1000);
        self.config.write(register, width, value);
    }

    fn decoders(&self) -> Vec<Arc<Decoder>> {
        self.config.decoders()
    }

    fn read(&mut self, bar: usize, offset: u32, width: PortWidth) -> u32 {
        let mut value = [0; 4];
        let len = width.bytes();
        value[..len].copy_from_slice(&self.memory[bar][offset as usize..][..len]);
        u32::from_le_bytes(value)
    }

    fn write(&mut self, bar: usize, offset: u32, width: PortWidth, value: u32) {
        let bytes = &value.to_le_bytes()[..width.bytes()];
        self.memory[bar][offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

struct Rig {
    bus: Bus,
    pci: Arc<PciBus>,
    pads: Vec<Arc<Mutex<Scratchpad>>>,
}

/// A bus with the host bridge and two scratchpads, placed as firmware would.
fn rig() -> Rig {
    let pads: Vec<_> = (0..2).map(|_| Arc::new(Mutex::new(Scratchpad::new()))).collect();
    let mut next = MEMORY as u32;
    for pad in &pads {
        next = lock(pad).config.assign(next);
    }
    let pci = PciBus::new(pads.iter().map(|pad| Arc::clone(pad) as _));
    let mut bus = Bus::new();
    let layout = PciLayout { ecam: Gpa(ECAM), memory: Gpa(MEMORY)..=Gpa(MEMORY_END) };
    pci.attach(&mut bus, &layout).expect("nothing else is there");
    Rig { bus, pci, pads }
}

impl Rig {
    /// Configuration mechanism #1.
    fn select(&self, device: u32, register: u32) {
        let address = 1 << 31 | device << 11 | register & 0xFC;
        self.bus.pio_write(Port(0xCF8), PortWidth::B4, address);
    }

    fn read(&self, device: u32, register: u32, width: PortWidth) -> u32 {
        self.select(device, register);
        self.bus.pio_read(Port(0xCFC + (register & 3) as u16), width)
    }

    fn write(&self, device: u32, register: u32, width: PortWidth, value: u32) {
        self.select(device, register);
        self.bus.pio_write(Port(0xCFC + (register & 3) as u16), width, value);
    }

    fn ecam(&self, device: u64, register: u64, width: Width) -> u64 {
        self.bus.mmio_read(Gpa(ECAM + (device << 15) + register), width)
    }

    fn load(&self, gpa: u64) -> u64 {
        self.bus.mmio_read(Gpa(gpa), Width::B4)
    }

    fn store(&self, gpa: u64, value: u64) {
        self.bus.mmio_write(Gpa(gpa), Width::B4, value);
    }
}

#[test]
fn both_mechanisms_find_the_functions_and_nothing_else() {
    let rig = rig();
    for device in 0..32 {
        let ids = match device {
            0 => 0x0008_1B36,
            1 | 2 => 0x5678_1234,
            _ => u32::MAX,
        };
        assert_eq!(rig.read(device, 0, PortWidth::B4), ids);
        assert_eq!(rig.ecam(device.into(), 0, Width::B4), u64::from(ids));
    }
    assert_eq!(rig.ecam(0, 0, Width::B8) as u32, 0x0008_1B36, "wider accesses are split");
    assert_eq!(rig.read(0, 0x0A, PortWidth::B2), 0x0600, "a host bridge");
    assert_eq!(rig.ecam(0, 0x100, Width::B4), 0xFFFF_FFFF, "no extended space");
    assert_eq!(rig.ecam(0, 1 << 12, Width::B4), 0xFFFF_FFFF, "no function 1");
    rig.bus.pio_write(Port(0xCF8), PortWidth::B4, 1 << 31 | 1 << 16);
    assert_eq!(rig.bus.pio_read(Port(0xCFC), PortWidth::B4), u32::MAX, "no bus 1");
    rig.bus.pio_write(Port(0xCF8), PortWidth::B4, 0);
    assert_eq!(rig.bus.pio_read(Port(0xCFC), PortWidth::B4), u32::MAX, "not enabled");
}

#[test]
fn the_address_register_is_a_doubleword() {
    let rig = rig();
    rig.bus.pio_write(Port(0xCF8), PortWidth::B4, u32::MAX);
    assert_eq!(rig.bus.pio_read(Port(0xCF8), PortWidth::B4), 0x80FF_FFFC);
    for (port, width) in [(0xCFB, PortWidth::B1), (0xCF8, PortWidth::B2), (0xCFA, PortWidth::B4)] {
        rig.bus.pio_write(Port(port), width, 1);
        assert_eq!(rig.bus.pio_read(Port(0xCF8), PortWidth::B4), 0x80FF_FFFC, "{port:#x}");
    }
}

#[test]
fn narrow_and_unaligned_accesses_are_of_the_same_bytes() {
    let rig = rig();
    rig.write(1, 0x3D, PortWidth::B1, 0xFF);
    rig.write(1, 0x0C, PortWidth::B1, 0x10);
    assert_eq!(rig.read(1, 0x0C, PortWidth::B4), 0x10, "latency, type and BIST are read only");
    let bytes = (0..4).map(|at| rig.read(1, at, PortWidth::B1)).collect::<Vec<_>>();
    assert_eq!(bytes, [0x34, 0x12, 0x78, 0x56]);
    assert_eq!(rig.read(1, 1, PortWidth::B2), 0x7812);
    assert_eq!(rig.ecam(1, 1, Width::B4) as u32 & 0xFF_FFFF, 0x56_7812);
    rig.store(MEMORY + 1, 0x4433_2211);
    assert_eq!((rig.load(MEMORY), rig.load(MEMORY + 4)), (0x3322_1100, 0x44));
    // Across the end of the first function's second BAR.
    rig.store(MEMORY + 0x10FE, 0x4433_2211);
    assert_eq!(rig.load(MEMORY + 0x10FE), 0xFFFF_2211);
}

#[test]
fn a_bar_tells_its_size_and_answers_where_it_is_moved() {
    let rig = rig();
    rig.store(MEMORY + 8, 0xAB);
    assert_eq!(rig.read(1, 0x10, PortWidth::B4), MEMORY as u32);
    rig.write(1, 0x10, PortWidth::B4, u32::MAX);
    assert_eq!(rig.read(1, 0x10, PortWidth::B4), 0xFFFF_F000);
    rig.write(1, 0x14, PortWidth::B4, u32::MAX);
    assert_eq!(rig.read(1, 0x14, PortWidth::B4), 0xFFFF_FF00);
    rig.write(1, 0x18, PortWidth::B4, u32::MAX);
    assert_eq!(rig.read(1, 0x18, PortWidth::B4), 0, "there is no third");
    assert_eq!((rig.load(MEMORY + 8), rig.bus.unclaimed().len()), (0xFFFF_FFFF, 1));
    rig.write(1, 0x10, PortWidth::B4, 0xD000_0000);
    assert_eq!(rig.load(0xD000_0008), 0xAB);
    rig.write(1, 4, PortWidth::B2, 0);
    assert_eq!(rig.load(0xD000_0008), 0xFFFF_FFFF, "memory space is off");
    rig.store(0xD000_0008, 1);
    rig.write(1, 4, PortWidth::B2, 2);
    assert_eq!(rig.load(0xD000_0008), 0xAB);
    // Over the other function, and outside of the window.
    rig.write(1, 0x10, PortWidth::B4, rig.read(2, 0x10, PortWidth::B4));
    let shared: u64 = rig.read(2, 0x10, PortWidth::B4).into();
    assert_eq!(rig.load(shared + 8), 0xAB, "the first one answers");
    rig.write(1, 0x10, PortWidth::B4, ECAM as u32);
    assert_eq!(rig.load(ECAM), 0x0008_1B36, "the configuration window stays");
}

#[test]
fn the_bus_goes_on_from_its_state() {
    let old = rig();
    old.select(2, 0x3C);
    old.write(0, 0x0C, PortWidth::B1, 0x40);
    let state = old.pci.save();
    let new = rig();
    new.pci.restore(&state).expect("its own state");
    assert_eq!(new.pci.save(), state);
    let before = new.pci.save();
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut spoilt = serde_json::to_value(&state).expect("plain data");
        change(&mut spoilt);
        let spoilt = serde_json::from_value(spoilt).expect("the same fields");
        new.pci.restore(&spoilt).expect_err("spoilt").to_string()
    };
    assert!(refused(|s| s["version"] = 2.into()).contains("PCI bus has version 2"));
    assert!(refused(|s| s["address"] = 1.into()).contains("address = 0x1"));
    let bridge = refused(|s| s["host_bridge"]["config"][0] = 0.into());
    assert!(bridge.contains("PCI host bridge has config = 0x0"), "{bridge}");
    assert_eq!(new.pci.save(), before);
}

/// One processor moves a BAR, another uses it: each load finds the BAR's content or nothing.
#[test]
fn a_bar_may_move_while_it_is_used() {
    let rig = rig();
    lock(&rig.pads[0]).memory[0].fill(0x5A);
    let places = [MEMORY, 0xC800_0000, 0xD123_4000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 0..30_000 {
                rig.bus.mmio_write(Gpa(ECAM + (1 << 15) + 0x10), Width::B4, places[step % 3]);
            }
        });
        for step in 0..30_000_usize {
            let value = rig.load(places[step % 3] + 0x10);
            assert!(value == 0x5A5A_5A5A || value == 0xFFFF_FFFF, "{value:#x}");
        }
    });
}

/// One that begins in the last register of a function ends at the next function, which is none.
#[test]
fn an_access_over_a_functions_end_is_split() {
    let rig = rig();
    rig.bus.mmio_write(Gpa(ECAM + 0xBFFD), Width::B4, 0);
    let seen = rig.bus.mmio_read(Gpa(ECAM + 0x8FFD), Width::B4);
    assert_eq!(seen >> 24, 0xFF, "{seen:#x}");
}

proptest! {
    /// Any access anywhere: nothing panics, a function sees aligned accesses within its BARs only,
    /// and the identities stay.
    #[test]
    fn any_access_is_survived(
        accesses in prop::collection::vec((0..6_u8, any::<u32>(), any::<u32>(), 0..4_usize), 0..200)
    ) {
        let rig = rig();
        for (kind, place, value, width) in accesses {
            let width = [Width::B1, Width::B2, Width::B4, Width::B8][width];
            let port_width = PortWidth::try_from(width.bytes()).unwrap_or(PortWidth::B4);
            let gpa = match kind {
                0 => ECAM + u64::from(place & 0xF_FFFF),
                // The functions' headers.
                1 => ECAM + u64::from((place & 3) << 15 | place >> 24 & 0x3F),
                2 => MEMORY + u64::from(place & 0x3FFF),
                _ => MEMORY + u64::from(place & 0x1FFF_FFFF),
            };
            match kind {
                4 => rig.bus.pio_write(Port(0xCF8 + (place & 7) as u16), port_width, value),
                5 => rig.select(place & 3, place >> 8),
                _ => rig.bus.mmio_write(Gpa(gpa), width, value.into()),
            }
            rig.bus.mmio_read(Gpa(gpa), width);
            rig.bus.pio_read(Port(0xCF8 + (place & 7) as u16), port_width);
        }
        for device in 1..3 {
            prop_assert_eq!(rig.read(device, 0, PortWidth::B4), 0x5678_1234);
            rig.write(device, 4, PortWidth::B2, 2);
            rig.write(device, 0x10, PortWidth::B4, 0xD000_0000);
            rig.write(device, 0x14, PortWidth::B4, 0xD000_2000);
            rig.store(0xD000_0010, 7);
            prop_assert_eq!(rig.load(0xD000_0010), 7);
            rig.write(device, 4, PortWidth::B2, 0);
        }
    }
}
