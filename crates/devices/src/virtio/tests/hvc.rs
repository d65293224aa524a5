//! A device that is one console, behind its transport, with the test as the guest's driver.

use super::console::{Guest, IN, Outside};
use super::driver::*;
use crate::virtio::Service;
use crate::virtio::console::{Console, ConsoleSize, PortConfig, PortOutput};
use memory::GuestRam;
use x86::addr::{Gpa, PortWidth};

const SIZE: u64 = 1 << 0;
/// What the console sends.
const OUT: u64 = 1;

fn guest(on: On, ram: GuestRam) -> Guest {
    let outside = Outside::default();
    let output = Some(Box::new(outside.clone()) as Box<dyn PortOutput>);
    let config = PortConfig { name: "hvc".into(), output, input: true };
    Guest::of(on, ram, Console::one(config, Service::Thread).expect("a thread"), outside)
}

/// One whose driver has it running.
fn running(on: On) -> Guest {
    let mut guest = guest(on, GuestRam::new(&[(Gpa(0), RAM)]).expect("memory"));
    guest.driver.store(0x14, 0);
    assert_eq!(guest.driver.load(0x10) & 3, SIZE as u32, "it has no ports");
    guest.initialize(SIZE, 2);
    guest
}

/// Columns and rows, as the driver reads them.
fn size(guest: &Guest) -> [u32; 2] {
    [0, 2].map(|at| guest.driver.load_config(at, PortWidth::B2))
}

#[test]
fn a_console_needs_no_introduction() {
    on_each(|on| {
        let mut guest = running(on);
        guest.send(OUT, b"out");
        guest.used(OUT);
        assert_eq!(guest.outlet(|out| out.bytes.clone()), b"out");
        guest.offer(IN, 16, WRITE);
        until("room", || guest.ports[0].room() == 16);
        assert_eq!((guest.give(b"in"), guest.used(IN)), (2, b"in".to_vec()));
    });
}

/// Each size is told with an interrupt, and the first with the driver's beginning.
#[test]
fn the_driver_hears_of_each_size() {
    on_each(|on| {
        let guest = running(on);
        assert!(guest.driver.interrupted());
        assert_eq!((guest.driver.load(0x60) & 2, size(&guest)), (2, [0, 0]));
        for (rows, columns) in [(24_u16, 80_u16), (u16::MAX, 1)] {
            guest.driver.store(0x64, 2);
            let generation = guest.driver.load(0xfc);
            let resize = || guest.ports[0].resize(ConsoleSize { rows, columns });
            resize();
            assert_eq!(guest.driver.load(0x60) & 2, 2);
            assert_eq!(size(&guest), [columns, rows].map(u32::from));
            assert_ne!(guest.driver.load(0xfc), generation);
            guest.driver.store(0x64, 2);
            resize();
            assert_eq!(guest.driver.load(0x60) & 2, 0, "it is no other");
        }
        guest.driver.store(0x70, 0);
        guest.ports[0].resize(ConsoleSize { rows: 2, columns: 3 });
        assert_eq!((guest.driver.load(0x60) & 2, size(&guest)), (0, [3, 2]), "after a reset");
    });
}

#[test]
fn a_restored_console_has_the_window_that_it_is_in() {
    on_each(|on| {
        let mut before = running(on);
        before.ports[0].resize(ConsoleSize { rows: 24, columns: 80 });
        let state = before.driver.device.save();
        let after = guest(on, before.driver.ram.clone());
        after.ports[0].resize(ConsoleSize { rows: 50, columns: 132 });
        after.driver.device.restore(&state).expect("its own state");
        assert_eq!((after.driver.load(0x60) & 2, size(&after)), (2, [132, 50]));
        before.driver.device = after.driver.device.clone();
        before.send(OUT, b"on");
        before.used(OUT);
        assert_eq!(after.outlet(|out| out.bytes.clone()), b"on");
    });
}

#[test]
fn a_ring_without_sense_needs_a_reset() {
    on_each(|on| {
        for queue in [IN, OUT] {
            let mut guest = running(on);
            guest.offer(queue, 16, NEXT); // which goes on with itself
            guest.give(b"x");
            until("broken", || guest.driver.load(0x70) == 0x4f);
            guest.initialize(SIZE, 2);
            guest.send(OUT, b"well");
            guest.used(OUT);
            assert_eq!(guest.outlet(|out| out.bytes.clone()), b"well");
        }
    });
}
