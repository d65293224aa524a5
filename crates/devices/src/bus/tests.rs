use super::*;

/// Remembers writes; reads give the low byte of the address.
#[derive(Default)]
struct Bytes(Vec<(u64, u8, u64)>);

impl PioDevice for Bytes {
    fn read(&mut self, port: u16, _: u8) -> u32 {
        u32::from(port) & 0xFF
    }
    fn write(&mut self, port: u16, size: u8, value: u32) {
        self.0.push((u64::from(port), size, u64::from(value)));
    }
}

impl MmioDevice for Bytes {
    fn read(&mut self, offset: u64, _: u8) -> u64 {
        offset | 0xAA00_0000
    }
    fn write(&mut self, offset: u64, size: u8, value: u64) {
        self.0.push((offset, size, value));
    }
    fn max_width(&self) -> u8 {
        4
    }
}

#[test]
fn wide_accesses_split_across_devices_and_holes() {
    let (a, b) = (Arc::new(Mutex::new(Bytes::default())), Arc::new(Mutex::new(Bytes::default())));
    let mut bus = Bus::new();
    bus.add_pio("b", 0x12..=0x12, Arc::clone(&b) as _).unwrap();
    bus.add_pio("a", 0x10..=0x11, Arc::clone(&a) as _).unwrap();
    assert_eq!(bus.pio_read(0x10, 4), 0xFF12_1110);
    bus.pio_write(0x11, 2, 0xBBAA);
    assert_eq!(lock(&a).0, [(0x11, 1, 0xAA)]);
    assert_eq!(lock(&b).0, [(0x12, 1, 0xBB)]);
    assert_eq!(bus.pio_read(0x0F, 2), 0x10FF);
    let seen: Vec<_> = bus.unclaimed().iter().map(|u| (u.place, u.reads, u.writes)).collect();
    assert_eq!(seen, [(Place::Port(0x0F), 1, 0), (Place::Port(0x13), 1, 0)]);
}

#[test]
fn memory_offsets_widths_and_holes() {
    let a = Arc::new(Mutex::new(Bytes::default()));
    let mut bus = Bus::new();
    bus.add_mmio("a", 0x1000..=0x1FFF, Arc::clone(&a) as _).unwrap();
    assert_eq!(bus.mmio_read(0x1010, 8), 0xAA00_0014_AA00_0010);
    bus.mmio_write(0x1010, 8, 0x2222_2222_1111_1111);
    assert_eq!(lock(&a).0, [(0x10, 4, 0x1111_1111), (0x14, 4, 0x2222_2222)]);
    assert_eq!(bus.mmio_read(0x2000, 8), u64::MAX);
    assert_eq!(bus.mmio_read(u64::MAX, 8), u64::MAX);
    bus.mmio_write(0x2000, 1, 0);
    assert_eq!(bus.unclaimed()[0], Unclaimed { place: Place::Memory(0x2000), reads: 1, writes: 1 });
}

#[test]
fn overlap_and_empty_are_refused() {
    let a = Arc::new(Mutex::new(Bytes::default()));
    let mut bus = Bus::new();
    bus.add_pio("a", 0x10..=0x1F, Arc::clone(&a) as _).unwrap();
    let error = bus.add_pio("b", 0x1F..=0x20, Arc::clone(&a) as _).unwrap_err();
    assert_eq!(error, BusError::Overlap { name: "b", first: 0x1F, last: 0x20, other: "a" });
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = 0x21..=0x20;
    assert!(matches!(bus.add_pio("c", reversed, a), Err(BusError::Empty { .. })));
}
