use super::*;
use x86::addr::{Gpa, Port, PortWidth, Width};

/// Remembers writes; reads give the low byte of the address.
#[derive(Default)]
struct Bytes(Vec<(u64, u64, u64)>);

impl PioDevice for Bytes {
    fn read(&mut self, port: Port, _: PortWidth) -> u32 {
        u32::from(port.0) & 0xFF
    }
    fn write(&mut self, port: Port, width: PortWidth, value: u32) {
        self.0.push((u64::from(port.0), width.into(), u64::from(value)));
    }
}

impl MmioDevice for Bytes {
    fn read(&mut self, offset: u64, _: Width) -> u64 {
        offset | 0xAA00_0000
    }
    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.0.push((offset, width.into(), value));
    }
    fn max_width(&self) -> Width {
        Width::B4
    }
}

#[test]
fn wide_accesses_split_across_devices_and_holes() {
    let (a, b) = (Arc::new(Mutex::new(Bytes::default())), Arc::new(Mutex::new(Bytes::default())));
    let mut bus = Bus::new();
    bus.add_pio("b", Port(0x12)..=Port(0x12), Arc::clone(&b) as _).unwrap();
    bus.add_pio("a", Port(0x10)..=Port(0x11), Arc::clone(&a) as _).unwrap();
    assert_eq!(bus.pio_read(Port(0x10), PortWidth::B4), 0xFF12_1110);
    bus.pio_write(Port(0x11), PortWidth::B2, 0xBBAA);
    assert_eq!(lock(&a).0, [(0x11, 1, 0xAA)]);
    assert_eq!(lock(&b).0, [(0x12, 1, 0xBB)]);
    assert_eq!(bus.pio_read(Port(0x0F), PortWidth::B2), 0x10FF);
    let seen: Vec<_> = bus.unclaimed().iter().map(|u| (u.place, u.reads, u.writes)).collect();
    assert_eq!(seen, [(Place::Port(Port(0x0F)), 1, 0), (Place::Port(Port(0x13)), 1, 0)]);
}

#[test]
fn memory_offsets_widths_and_holes() {
    let a = Arc::new(Mutex::new(Bytes::default()));
    let mut bus = Bus::new();
    bus.add_mmio("a", Gpa(0x1000)..=Gpa(0x1FFF), Arc::clone(&a) as _).unwrap();
    assert_eq!(bus.mmio_read(Gpa(0x1010), Width::B8), 0xAA00_0014_AA00_0010);
    bus.mmio_write(Gpa(0x1010), Width::B8, 0x2222_2222_1111_1111);
    assert_eq!(lock(&a).0, [(0x10, 4, 0x1111_1111), (0x14, 4, 0x2222_2222)]);
    assert_eq!(bus.mmio_read(Gpa(0x2000), Width::B8), u64::MAX);
    assert_eq!(bus.mmio_read(Gpa(u64::MAX), Width::B8), u64::MAX);
    bus.mmio_write(Gpa(0x2000), Width::B1, 0);
    assert_eq!(
        bus.unclaimed()[0],
        Unclaimed { place: Place::Memory(Gpa(0x2000)), reads: 1, writes: 1 }
    );
}

#[test]
fn overlap_and_empty_are_refused() {
    let a = Arc::new(Mutex::new(Bytes::default()));
    let mut bus = Bus::new();
    bus.add_pio("a", Port(0x10)..=Port(0x1F), Arc::clone(&a) as _).unwrap();
    let error = bus.add_pio("b", Port(0x1F)..=Port(0x20), Arc::clone(&a) as _).unwrap_err();
    assert_eq!(error, BusError::Overlap { name: "b", first: 0x1F, last: 0x20, other: "a" });
    let reversed = Port(0x21)..=Port(0x20);
    assert!(matches!(bus.add_pio("c", reversed, a), Err(BusError::Empty { .. })));
}
