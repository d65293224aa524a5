//! The network device behind its transport, its cable in a backend that the test holds.

use super::driver::*;
use crate::saved::RestoreError;
use crate::virtio::net::{Mac, Net, NetState};
use crate::virtio::saved::DeviceState;
use crate::virtio::{Service, VirtioDevice as _};
use ::net::{Backend, BackendState, CONNECTIONS_MAX, Connection, Delivery};
use ::net::{Frame, Guest, Link, Offload};
use memory::GuestRam;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sync::lock;
use x86::addr::{Gpa, PortWidth};

const MRG_RXBUF: u64 = 1 << 15;
const GUEST_TSO4: u64 = 1 << 7 | GUEST_CSUM;
const GUEST_CSUM: u64 = 1 << 1;
/// Where the rings of the transmit queue are.
const TRANSMIT: [u64; 3] = [0x2_0000, 0x2_1000, 0x2_2000];

/// What the test and the device's thread share.
#[derive(Default)]
struct Wire {
    to_guest: VecDeque<Vec<u8>>,
    from_guest: Vec<(Vec<u8>, Offload)>,
    refused: usize,
    resets: usize,
    unplugged: bool,
    /// What it would save, and what it was restored with.
    state: BackendState,
    restored: Option<BackendState>,
}

struct Cable {
    wire: Arc<Mutex<Wire>>,
    silent: OwnedFd,
}

impl Backend for Cable {
    fn transmit(&mut self, frame: &[u8], offload: Offload, _guest: &mut dyn Guest) {
        lock(&self.wire).from_guest.push((frame.to_vec(), offload));
    }

    fn work(&mut self, guest: &mut dyn Guest) {
        let mut wire = lock(&self.wire);
        while let Some(frame) = wire.to_guest.front() {
            let (header, rest) = frame.split_at(2);
            let offload = Offload { checksum: Some((34, 16)), segment: Some(1460) };
            let frame = Frame { parts: [header, rest, &[]], offload };
            if guest.deliver(&frame) == Delivery::Full {
                wire.refused += 1;
                return;
            }
            wire.to_guest.pop_front();
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.silent.as_fd()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn reset(&mut self) {
        lock(&self.wire).resets += 1;
    }

    fn save(&self) -> BackendState {
        lock(&self.wire).state.clone()
    }

    fn restore(&mut self, state: BackendState) {
        lock(&self.wire).restored = Some(state);
    }

    fn link(&self) -> Link {
        if lock(&self.wire).unplugged { Link::Down } else { Link::Up }
    }
}

/// The device, and the wire.
fn net(service: Service) -> (Net, Arc<Mutex<Wire>>) {
    let wire = Arc::<Mutex<Wire>>::default();
    let silent = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    let cable = Cable { wire: Arc::clone(&wire), silent };
    (Net::new(Mac::of_machine("a"), Box::new(cable), service).expect("a thread"), wire)
}

/// A driver that has both queues, and the wire.
fn running(on: On, features: u64) -> (Driver, Arc<Mutex<Wire>>) {
    let (net, wire) = net(Service::Thread);
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    let mut driver = driver_of(on, ram, Box::new(net));
    begin(&mut driver, features);
    (driver, wire)
}

/// Has the driver begin anew, with empty rings.
fn begin(driver: &mut Driver, features: u64) {
    driver.initialize(0);
    driver.ram.write(Gpa(TRANSMIT[0]), &[0; 0x3000]).expect("RAM");
    driver.negotiate(features);
    for (number, rings) in [(0, [DESCRIPTORS, AVAILABLE, USED]), (1, TRANSMIT)] {
        driver.set_queue_of(number, SIZE.into(), rings);
    }
    driver.store(0x70, 0xf);
    assert_eq!(driver.load(0x70), 0xf);
}

/// Gives the receive queue buffer `number`, of `len` bytes.
fn give(driver: &mut Driver, number: u16, len: u32) {
    driver.describe(DESCRIPTORS, number, (place(number), len, WRITE, 0));
    driver.offer(number);
}

fn place(number: u16) -> u64 {
    DATA + 0x1000 * u64::from(number)
}

#[test]
fn a_frame_lies_in_as_many_buffers_as_it_needs_and_in_none_before() {
    on_each(|on| {
        let (mut driver, wire) = running(on, MRG_RXBUF | GUEST_TSO4);
        let frame: Vec<u8> = (0..250).collect();
        lock(&wire).to_guest.push_back(frame.clone());
        give(&mut driver, 0, 100);
        give(&mut driver, 1, 100);
        driver.notify();
        until("it is tried", || lock(&wire).refused > 0);
        assert_eq!(driver.u16_at(Gpa(USED + 2)), 0, "two buffers are too few");
        give(&mut driver, 2, 100);
        driver.notify();
        until("it comes", || driver.u16_at(Gpa(USED + 2)) != 0);
        assert_eq!(driver.u16_at(Gpa(USED + 2)), 3, "all at once");
        assert_eq!([driver.wait(), driver.wait(), driver.wait()], [100, 100, 62].map(Some));
        let read = |number, len| driver.bytes(Gpa(place(number)), len);
        let all = [read(0, 100), read(1, 100), read(2, 62)].concat();
        // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers (5.1.6)
        assert_eq!(all[..12], [1, 1, 2, 0, 0xB4, 5, 34, 0, 16, 0, 3, 0]);
        assert_eq!(all[12..], frame);
        until("it interrupts", || driver.interrupted());
    });
}

#[test]
fn without_merging_a_frame_needs_one_buffer() {
    on_each(|on| {
        let (mut driver, wire) = running(on, 0);
        lock(&wire).to_guest.extend([vec![7; 200], vec![8; 50]]);
        give(&mut driver, 0, 100);
        give(&mut driver, 1, 100);
        driver.notify();
        assert_eq!([driver.wait(), driver.wait()], [Some(0), Some(62)]);
        assert_eq!(driver.bytes(Gpa(place(1) + 12), 50), [8; 50]);
    });
}

/// Sends the chain of `parts` from descriptor 0.
fn transmit(driver: &Driver, parts: &[(u64, u32, bool)]) {
    driver.chain(TRANSMIT[0], parts);
    let index = offer_to_transmit(driver);
    until("it is taken", || driver.u16_at(Gpa(TRANSMIT[2] + 2)) == index);
}

/// Offers descriptor 0 of the transmit queue; what the ring counts then.
fn offer_to_transmit(driver: &Driver) -> u16 {
    let available = TRANSMIT[1];
    let index = driver.u16_at(Gpa(available + 2));
    let slot = available + 4 + 2 * u64::from(index % SIZE);
    driver.ram.write(Gpa(slot), &[0, 0]).expect("RAM");
    let index = index.wrapping_add(1);
    driver.ram.write(Gpa(available + 2), &index.to_le_bytes()).expect("RAM");
    driver.notify_queue(1);
    index
}

#[test]
fn frames_go_out_whatever_their_pieces_and_what_is_none_does_not() {
    on_each(|on| {
        let (driver, wire) = running(on, 1);
        // As above: flags to csum_offset, with TCPV4 and ECN.
        driver.ram.write(Gpa(HEADER), &[1, 0x81, 54, 0, 0xB4, 5, 34, 0, 16]).expect("RAM");
        driver.ram.write(Gpa(DATA), &[9; 70_000]).expect("RAM");
        transmit(&driver, &[(HEADER, 12, false), (DATA, 3, false), (DATA, 4, false)]);
        transmit(&driver, &[(HEADER, 5, false), (HEADER + 5, 7 + 9, false)]);
        transmit(&driver, &[(HEADER, 11, false)]);
        transmit(&driver, &[(HEADER, 12, false), (DATA, 70_000, false)]);
        transmit(&driver, &[(HEADER, 12, false), (RAM - 1, 2, false)]);
        transmit(&driver, &[(HEADER, 12, true)]);
        let wire = lock(&wire);
        let sizes = wire.from_guest.iter().map(|(frame, offload)| (frame.len(), *offload));
        let left = Offload { checksum: Some((34, 16)), segment: Some(1460) };
        assert_eq!(sizes.collect::<Vec<_>>(), [(7, left), (9, left)]);
    });
}

#[test]
fn a_reset_reaches_the_cable_and_a_pause_does_not() {
    on_each(|on| {
        let (driver, wire) = running(on, 0);
        until("the driver's own reset is told", || lock(&wire).resets > 0);
        let before = lock(&wire).resets;
        driver.device.pause();
        let state = driver.device.save();
        driver.device.restore(&state).expect("its own");
        driver.device.resume();
        assert_eq!(lock(&wire).resets, before);
        driver.store(0x70, 0);
        until("it is told", || lock(&wire).resets > before);
    });
}

/// Field status of the configuration space.
fn status(driver: &Driver) -> u32 {
    driver.load_config(6, PortWidth::B2)
}

#[test]
fn the_driver_hears_of_a_cable_that_is_pulled() {
    on_each(|on| {
        let (driver, wire) = running(on, 1 << 16);
        assert_eq!(status(&driver), 1);
        lock(&wire).unplugged = true;
        driver.notify();
        until("it is told", || driver.load(0x60) & 2 != 0);
        assert_eq!(status(&driver), 0);
        driver.device.pause();
        let state = driver.device.save();
        lock(&wire).unplugged = false;
        driver.device.restore(&state).expect("its own");
        assert_eq!(status(&driver), 0, "as the driver knows it");
        driver.device.resume();
        until("it is told again", || status(&driver) == 1);
    });
}

/// A frame comes into buffer 0, whatever was before.
fn receives(driver: &mut Driver, wire: &Mutex<Wire>) {
    lock(wire).to_guest = [vec![8; 50]].into();
    give(driver, 0, 100);
    driver.notify();
    assert_eq!(driver.wait(), Some(62));
    assert_eq!(driver.bytes(Gpa(place(0) + 12), 50), [8; 50]);
}

#[test]
fn a_ring_without_sense_needs_a_reset_and_works_after_one() {
    on_each(|on| {
        for transmit in [false, true] {
            let (mut driver, wire) = running(on, 0);
            // A chain that leads to itself.
            if transmit {
                driver.describe(TRANSMIT[0], 0, (DATA, 64, NEXT, 0));
                offer_to_transmit(&driver);
            } else {
                lock(&wire).to_guest.push_back(vec![7; 50]);
                driver.describe(DESCRIPTORS, 0, (DATA, 64, NEXT | WRITE, 0));
                driver.offer(0);
                driver.notify();
            }
            until("it says so", || driver.load(0x70) & 0x40 != 0);
            until("and tells the driver", || driver.load(0x60) & 2 != 0);
            driver.store(0x70, 0xf);
            assert_eq!(driver.load(0x70), 0x4f, "nothing but a reset helps");
            begin(&mut driver, 0);
            receives(&mut driver, &wire);
        }
    });
}

#[test]
fn a_reset_under_load_stills_memory_and_frames_come_after_it() {
    on_each(|on| {
        let (mut driver, wire) = running(on, 0);
        for round in 0..24_u64 {
            lock(&wire).to_guest = (0..64).map(|_| vec![7; 60]).collect();
            for number in 0..SIZE {
                give(&mut driver, number, 100);
            }
            driver.notify();
            // At another moment each time.
            std::thread::sleep(Duration::from_micros(round * 20));
            driver.store(0x70, 0);
            assert_eq!(driver.load(0x70), 0);
            let before = driver.bytes(Gpa(0), RAM as usize);
            driver.notify();
            driver.notify_queue(1);
            std::thread::sleep(Duration::from_millis(1));
            assert!(driver.bytes(Gpa(0), RAM as usize) == before, "round {round}");
            begin(&mut driver, 0);
            receives(&mut driver, &wire);
        }
    });
}

#[test]
fn what_the_cable_wants_saved_is_saved_and_comes_back() {
    let connection = Connection {
        guest: "10.0.2.15:4000".parse().expect("an address"),
        remote: "192.0.2.1:80".parse().expect("an address"),
        next: 7,
        expected: 8,
    };
    let connections = vec![connection];
    let state = BackendState { station: Some([2; 6]), connections, ..BackendState::default() };
    on_each(|on| {
        let (driver, wire) = running(on, 0);
        lock(&wire).state = state.clone();
        // It is attended to, so that there is something to save.
        transmit(&driver, &[(HEADER, 12, false), (DATA, 3, false)]);
        driver.device.pause();
        let saved = driver.device.save();
        let (other, restored) = running(on, 0);
        other.device.pause();
        other.device.restore(&saved).expect("its own");
        assert_eq!(other.device.save(), saved, "also before it goes on");
        other.device.resume();
        until("the cable has it", || lock(&restored).restored.as_ref() == Some(&state));
        // What a driver that has begun anew knew is nobody's.
        other.store(0x70, 0);
        other.device.pause();
        assert_ne!(other.device.save(), saved);
    });
    let (mut device, _wire) = net(Service::AtOnce);
    let DeviceState::Net(own) = device.save() else { panic!("another device's") };
    let connections = vec![connection; CONNECTIONS_MAX + 1];
    let backend = BackendState { connections, ..BackendState::default() };
    let refused = device.restore(&DeviceState::Net(NetState { backend, ..own }));
    assert!(matches!(refused, Err(RestoreError::Value { field: "connections", .. })));
}
