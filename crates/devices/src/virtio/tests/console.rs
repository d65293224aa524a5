//! The console device behind its transport, with the test as the guest's driver.

use super::driver::*;
use crate::virtio::Service;
use crate::virtio::console::{Console, ConsolePort, PortConfig, PortOutput};
use memory::GuestRam;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sync::lock;
use x86::addr::{Gpa, PortWidth};

const MULTIPORT: u64 = 1 << 1;
/// Queues of a device with two ports.
const QUEUES: u64 = 6;
/// Queue numbers: what port 0 receives, what the driver is told and says, what port 1 sends.
pub(super) const IN: u64 = 0;
const TOLD: u64 = 2;
const SAID: u64 = 3;
const OUT: u64 = 5;
/// Entries that the driver gives each queue.
const ENTRIES: u16 = 2;

/// Where the rings of `queue` are.
const fn rings(queue: u64) -> [u64; 3] {
    let base = 0x1_0000 * (queue + 1);
    [base, base + 0x1000, base + 0x2000]
}

/// Where the data of `queue`'s entry is.
const fn data(queue: u64, entry: u16) -> u64 {
    0x8_0000 + 0x1_0000 * queue + 0x8000 * entry as u64
}

/// What has come out of a port.
#[derive(Default)]
pub(super) struct Outlet {
    pub(super) bytes: Vec<u8>,
    full: bool,
    closed: usize,
}

#[derive(Clone, Default)]
pub(super) struct Outside(Arc<Mutex<Outlet>>);

impl PortOutput for Outside {
    fn has_room(&mut self) -> bool {
        !lock(&self.0).full
    }

    fn put(&mut self, bytes: &[u8]) {
        lock(&self.0).bytes.extend_from_slice(bytes);
    }

    fn close(&mut self) {
        lock(&self.0).closed += 1;
    }
}

/// A guest with two ports: one receives, one sends.
pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) ports: Vec<ConsolePort>,
    outside: Outside,
    /// How often there was room for input again.
    drained: Arc<AtomicUsize>,
    available: [u16; QUEUES as usize],
    used: [u16; QUEUES as usize],
}

fn message(id: u32, event: u16, value: u16) -> Vec<u8> {
    let words = [id as u16, (id >> 16) as u16, event, value];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Guest {
    /// A device that nobody drives yet.
    fn new(on: On, service: Service) -> Self {
        Self::on_ram(on, service, GuestRam::new(&[(Gpa(0), RAM)]).expect("memory"))
    }

    fn on_ram(on: On, service: Service, ram: GuestRam) -> Self {
        let outside = Outside::default();
        let input = PortConfig { name: "in".into(), output: None, input: true };
        let output = Some(Box::new(outside.clone()) as Box<dyn PortOutput>);
        let output = PortConfig { name: "out".into(), output, input: false };
        let console = Console::new(vec![input, output], service).expect("a thread");
        Self::of(on, ram, console, outside)
    }

    /// The guest of `console`, whose output goes `outside`.
    pub(super) fn of(on: On, ram: GuestRam, console: Console, outside: Outside) -> Self {
        let ports = console.ports();
        let drained = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&drained);
        ports[0].on_drain(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let driver = driver_of(on, ram, Box::new(console));
        let (available, used) = Default::default();
        Self { driver, ports, outside, drained, available, used }
    }

    /// A driver that knows both ports.
    fn ready(on: On) -> Self {
        let mut guest = Self::new(on, Service::Thread);
        guest.begin();
        guest
    }

    fn begin(&mut self) {
        self.initialize(MULTIPORT, QUEUES);
        self.say(&message(u32::MAX, 0, 1));
        assert_eq!([self.hear(), self.hear()], [message(0, 1, 1), message(1, 1, 1)]);
        for (id, name) in [(0, "in"), (1, "out")] {
            self.say(&message(id, 3, 1));
            assert_eq!(self.hear(), [&message(id, 7, 1), name.as_bytes()].concat());
            assert_eq!(self.hear(), message(id, 6, 1));
        }
    }

    pub(super) fn initialize(&mut self, features: u64, queues: u64) {
        let driver = &self.driver;
        driver.negotiate(features);
        for queue in 0..queues {
            let rings = rings(queue);
            driver.ram.write(Gpa(rings[0]), &[0; 0x3000]).expect("RAM");
            driver.set_queue_of(queue as u32, ENTRIES.into(), rings);
        }
        (self.available, self.used) = Default::default();
        driver.store(0x70, 0xf);
        assert_eq!(driver.load(0x70), 0xf);
    }

    /// Offers the next entry of `queue`, a buffer of `len` bytes, and notifies.
    pub(super) fn offer(&mut self, queue: u64, len: u32, flags: u16) -> u64 {
        let [descriptors, available, _] = rings(queue);
        let next = &mut self.available[queue as usize];
        let entry = *next % ENTRIES;
        let at = data(queue, entry);
        let slot = available + 4 + 2 * u64::from(entry);
        *next = next.wrapping_add(1);
        let next = *next;
        self.driver.describe(descriptors, entry, (at, len, flags, entry));
        self.driver.ram.write(Gpa(slot), &entry.to_le_bytes()).expect("RAM");
        self.driver.ram.write(Gpa(available + 2), &next.to_le_bytes()).expect("RAM");
        self.driver.store(0x50, queue as u32);
        at
    }

    /// Gives the device `bytes` by `queue`, and does not wait.
    pub(super) fn send(&mut self, queue: u64, bytes: &[u8]) {
        let entry = self.available[queue as usize] % ENTRIES;
        self.driver.ram.write(Gpa(data(queue, entry)), bytes).expect("RAM");
        self.offer(queue, bytes.len() as u32, 0);
    }

    /// Whether the device has used an entry of `queue` that was not seen yet.
    fn is_used(&self, queue: u64) -> bool {
        let [_, _, used] = rings(queue);
        self.driver.u16_at(Gpa(used + 2)) != self.used[queue as usize]
    }

    /// The next used entry of `queue`: what is in it.
    pub(super) fn used(&mut self, queue: u64) -> Vec<u8> {
        until("used", || self.is_used(queue));
        let [_, _, ring] = rings(queue);
        let next = &mut self.used[queue as usize];
        let slot = ring + 4 + 8 * u64::from(*next % ENTRIES);
        *next = next.wrapping_add(1);
        let entry = self.driver.u16_at(Gpa(slot));
        let len = self.driver.bytes(Gpa(slot + 4), 4);
        let len = u32::from_le_bytes(len.try_into().expect("4"));
        self.driver.bytes(Gpa(data(queue, entry)), len as usize)
    }

    /// A control message to the device, which takes it.
    fn say(&mut self, bytes: &[u8]) {
        self.send(SAID, bytes);
        self.used(SAID);
    }

    /// The next control message from it.
    fn hear(&mut self) -> Vec<u8> {
        self.offer(TOLD, 64, WRITE);
        self.used(TOLD)
    }

    /// Gives the guest `bytes` by port 0; how many it has got.
    pub(super) fn give(&self, bytes: &[u8]) -> usize {
        self.ports[0].receive(|room| bytes[..room.min(bytes.len())].to_vec())
    }

    pub(super) fn outlet<T>(&self, look: impl FnOnce(&mut Outlet) -> T) -> T {
        look(&mut lock(&self.outside.0))
    }
}

#[test]
fn it_introduces_itself() {
    on_each(|on| {
        let guest = Guest::new(on, Service::Thread);
        assert_eq!(guest.driver.load_config(4, PortWidth::B4), 2, "max_nr_ports");
        assert_eq!(guest.driver.load_config(8, PortWidth::B4), 0);
        guest.driver.store(0x14, 0);
        assert_eq!(u64::from(guest.driver.load(0x10)) & 7, MULTIPORT);
        let sizes: Vec<u32> = (0..QUEUES as u32 + 1)
            .map(|queue| {
                guest.driver.store(0x30, queue);
                guest.driver.load(if on == On::Mmio { 0x34 } else { 0x38 })
            })
            .collect();
        assert_eq!(sizes, [128, 2, 32, 32, 2, 128, 0]);
    });
}

#[test]
fn what_a_guest_sends_comes_out_and_its_end_too() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.say(&message(1, 6, 1));
        let every: Vec<u8> = (0..=255).collect();
        for part in [&every[..], &[], &[7; 0x8000]] {
            guest.send(OUT, part);
            guest.used(OUT);
        }
        assert!(guest.outlet(|out| out.bytes == [&every[..], &[7; 0x8000]].concat()));
        assert_eq!(guest.ports[1].stats().sent, 256 + 0x8000);
        guest.say(&message(1, 6, 0));
        until("closed", || guest.outlet(|out| out.closed == 1));
        assert_eq!(guest.hear(), message(1, 6, 0), "the host has closed it, too");
        // What comes after the end goes nowhere.
        guest.say(&message(1, 6, 1));
        guest.send(OUT, b"late");
        guest.used(OUT);
        guest.say(&message(1, 6, 0));
        guest.driver.settle();
        assert_eq!(guest.outlet(|out| (out.bytes.len(), out.closed)), (256 + 0x8000, 1));
    });
}

#[test]
fn an_output_without_room_holds_the_guest_back() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.say(&message(1, 6, 1));
        guest.outlet(|out| out.full = true);
        guest.send(OUT, b"one");
        guest.send(OUT, b"two");
        guest.say(&message(1, 6, 0));
        guest.driver.settle();
        assert!(!guest.is_used(OUT));
        assert_eq!(guest.outlet(|out| (out.bytes.len(), out.closed)), (0, 0), "no end before it");
        guest.outlet(|out| out.full = false);
        guest.ports[1].wake();
        assert_eq!(guest.hear(), message(1, 6, 0));
        assert_eq!(guest.outlet(|out| (out.bytes.clone(), out.closed)), (b"onetwo".to_vec(), 1));
    });
}

/// A chain of more than one step, of which the output takes one, and the rest in another device.
#[test]
fn a_chain_that_is_half_taken_goes_on_where_it_was() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.say(&message(1, 6, 1));
        let long: Vec<u8> = (0..0x8000_u32 * 3).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
        // Each step takes 64 KiB, and this output is full after the first.
        struct Once(Outside);
        impl PortOutput for Once {
            fn has_room(&mut self) -> bool {
                self.0.has_room()
            }
            fn put(&mut self, bytes: &[u8]) {
                self.0.put(bytes);
                lock(&self.0.0).full = true;
            }
            fn close(&mut self) {
                self.0.close();
            }
        }
        let outside = Outside::default();
        let ports = |output: Box<dyn PortOutput>| {
            let input = PortConfig { name: "in".into(), output: None, input: true };
            vec![input, PortConfig { name: "out".into(), output: Some(output), input: false }]
        };
        let state = guest.driver.device.save();
        let once = Console::new(ports(Box::new(Once(outside.clone()))), Service::Thread);
        let first = driver_of(on, guest.driver.ram.clone(), Box::new(once.expect("a thread")));
        first.device.restore(&state).expect("such a device's");
        guest.driver.device = first.device.clone();
        guest.driver.ram.write(Gpa(data(OUT, 0)), &long).expect("RAM");
        guest.offer(OUT, long.len() as u32, 0);
        until("one step", || lock(&outside.0).bytes.len() == 0x1_0000);
        assert!(!guest.is_used(OUT));
        let state = guest.driver.device.save();
        assert_eq!(state, guest.driver.device.save(), "saving changes nothing");
        let rest = Outside::default();
        let second = Console::new(ports(Box::new(rest.clone())), Service::Thread);
        let second = driver_of(on, guest.driver.ram.clone(), Box::new(second.expect("a thread")));
        second.device.restore(&state).expect("such a device's");
        guest.driver.device = second.device.clone();
        guest.used(OUT);
        let all = [lock(&outside.0).bytes.clone(), lock(&rest.0).bytes.clone()].concat();
        assert!(all == long, "{} bytes", all.len());
    });
}

#[test]
fn what_the_host_gives_fills_buffers_once_the_port_is_open() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.offer(IN, 10, WRITE);
        assert_eq!((guest.give(b"early"), guest.ports[0].room()), (0, 0));
        guest.say(&message(0, 6, 1));
        until("told of room", || guest.drained.load(Ordering::SeqCst) == 1);
        assert_eq!(guest.ports[0].room(), 10);
        guest.offer(IN, 10, WRITE);
        assert_eq!(guest.give(b"hello, this is long"), 19);
        assert_eq!([guest.used(IN), guest.used(IN)], [b"hello, thi".to_vec(), b"s is long".into()]);
        assert_eq!(guest.give(b"more"), 0);
        guest.offer(IN, 10, WRITE);
        until("told of room", || guest.drained.load(Ordering::SeqCst) == 2);
        assert_eq!(guest.give(b"more"), 4);
        guest.ports[0].hang_up();
        assert_eq!(guest.used(IN), b"more", "all there is comes before the end");
        assert_eq!(guest.hear(), message(0, 6, 0));
        guest.offer(IN, 10, WRITE);
        guest.ports[0].hang_up();
        assert_eq!(guest.ports[0].stats().received, 23);
    });
}

/// The end may come before there is a driver.
#[test]
fn a_port_that_the_host_has_closed_is_closed_from_the_beginning() {
    let mut guest = Guest::new(On::Pci, Service::Thread);
    guest.ports[0].hang_up();
    guest.initialize(MULTIPORT, QUEUES);
    guest.say(&message(0, 3, 1));
    assert_eq!(guest.hear(), [&message(0, 7, 1), &b"in"[..]].concat());
    guest.say(&message(1, 3, 1));
    assert_eq!(guest.hear(), [&message(1, 7, 1), &b"out"[..]].concat());
    assert_eq!(guest.hear(), message(1, 6, 1));
}

#[test]
fn messages_without_sense_change_nothing() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        let state = guest.driver.device.save();
        let words = [
            message(2, 6, 1),
            message(u32::MAX, 6, 1),
            message(u32::MAX - 1, 3, 1),
            message(0, 0, 1),
            message(0, 3, 0),
            message(0, 99, 1),
            message(u32::MAX, 0, 0),
            message(1, 1, 1),
            message(0, 6, 1)[..7].to_vec(),
            Vec::new(),
        ];
        for bytes in &words {
            guest.say(bytes);
        }
        let after = guest.driver.device.save();
        assert_eq!(after.transport().device, state.transport().device);
        // One that has no room for a message misses it.
        guest.say(&message(0, 3, 1));
        guest.offer(TOLD, 3, WRITE);
        assert_eq!(guest.used(TOLD), b"");
        assert_eq!(guest.hear(), message(0, 6, 1));
        assert_eq!(guest.driver.load(0x70), 0xf);
    });
}

#[test]
fn a_ring_without_sense_needs_a_reset_and_nothing_more() {
    on_each(|on| {
        for queue in [IN, TOLD, SAID, OUT] {
            let mut guest = Guest::ready(on);
            guest.say(&message(0, 6, 1));
            guest.say(&message(0, 3, 1)); // so that there is something to be told
            guest.offer(queue, 16, NEXT); // which goes on with itself
            guest.give(b"x");
            until("broken", || guest.driver.load(0x70) == 0x4f);
            assert_eq!((guest.give(b"x"), guest.ports[0].room()), (0, 0));
            guest.begin();
            guest.say(&message(1, 6, 1));
            guest.send(OUT, b"well");
            guest.used(OUT);
            assert_eq!(guest.outlet(|out| out.bytes.clone()), b"well");
        }
    });
}

/// Both ways at once, and the driver begins anew again and again.
#[test]
fn a_driver_may_begin_anew_while_data_flow() {
    on_each(|on| {
        let mut guest = Guest::new(on, Service::Thread);
        let port = guest.ports[0].clone();
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let giver = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                port.receive(|room| vec![9; room.min(3)]);
            }
        });
        for _ in 0..30 {
            guest.begin();
            guest.say(&message(0, 6, 1));
            guest.say(&message(1, 6, 1));
            guest.offer(IN, 10, WRITE);
            assert!(matches!(&guest.used(IN)[..], [9, ..]));
            guest.send(OUT, &[1; 0x8000]);
            guest.offer(IN, 10, WRITE);
            guest.driver.store(0x70, 0);
            let before = guest.driver.bytes(Gpa(data(IN, 1)), 16);
            guest.driver.ram.write(Gpa(data(IN, 1)), &[0; 16]).expect("RAM");
            std::thread::yield_now();
            let after = guest.driver.bytes(Gpa(data(IN, 1)), 16);
            assert_eq!(after, [0; 16], "written to after the reset: {before:?}");
        }
        over.store(true, Ordering::SeqCst);
        giver.join().expect("no panic");
    });
}

/// 128 MiB in one chain, of which there is no end in sight.
#[test]
fn what_takes_long_holds_no_reset_up() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.say(&message(1, 6, 1));
        let parts: Vec<_> = (0..256).map(|_| (0, 1 << 19, false)).collect();
        guest.driver.chain(0x7_0000, &parts);
        let [descriptors, available, _] = rings(OUT);
        guest.driver.describe(descriptors, 0, (0x7_0000, 16 * 256, INDIRECT, 0));
        guest.driver.ram.write(Gpa(available + 2), &[1, 0, 0, 0]).expect("RAM");
        guest.driver.store(0x50, OUT as u32);
        until("begun", || guest.outlet(|out| !out.bytes.is_empty()));
        guest.driver.store(0x70, 0);
        let taken = guest.outlet(|out| out.bytes.len());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(guest.outlet(|out| out.bytes.len()), taken);
        guest.begin();
        guest.say(&message(1, 6, 1));
        guest.send(OUT, b"well");
        guest.used(OUT);
        assert!(guest.outlet(|out| out.bytes.ends_with(b"well")));
    });
}

#[test]
fn at_once_means_before_the_notification_ends() {
    let mut guest = Guest::new(On::Pci, Service::AtOnce);
    guest.begin();
    guest.say(&message(1, 6, 1));
    guest.outlet(|out| out.full = true); // put waits then
    guest.send(OUT, b"now");
    assert!(guest.is_used(OUT));
    assert_eq!(guest.outlet(|out| out.bytes.clone()), b"now");
}

#[test]
fn a_restored_device_goes_on() {
    on_each(|on| {
        let mut guest = Guest::ready(on);
        guest.say(&message(0, 6, 1));
        guest.say(&message(1, 6, 1));
        guest.send(OUT, b"before ");
        guest.used(OUT);
        guest.ports[0].hang_up();
        let state = guest.driver.device.save();
        let new = Guest::on_ram(on, Service::Thread, guest.driver.ram.clone());
        new.driver.device.restore(&state).expect("its own state");
        assert_eq!(new.driver.device.save(), state);
        guest.driver.device = new.driver.device.clone();
        assert_eq!(guest.hear(), message(0, 6, 0), "it was to be told that");
        guest.send(OUT, b"after");
        guest.used(OUT);
        assert_eq!(new.outlet(|out| (out.bytes.clone(), out.closed)), (b"after".to_vec(), 0));
        // A port that is at its end is so in the new process, too.
        guest.say(&message(1, 6, 0));
        assert_eq!(guest.hear(), message(1, 6, 0));
        let ended = Guest::on_ram(on, Service::Thread, guest.driver.ram.clone());
        ended.driver.device.restore(&guest.driver.device.save()).expect("its own state");
        assert_eq!(ended.outlet(|out| out.closed), 1);
    });
}

#[test]
fn states_of_other_consoles_are_refused() {
    let guest = Guest::ready(On::Mmio);
    let State::Mmio(state) = guest.driver.device.save() else { panic!("on MMIO") };
    let before = guest.driver.device.save();
    let text = serde_json::to_string(&state).expect("plain data");
    for (from, to, why) in [
        ("\"name\":\"in\"", "\"name\":\"im\"", "name = im, which is not in"),
        ("\"ports\":[{", "\"ports\":[],\"x\":[{", "unknown field"),
        ("Console\":{\"version\":1", "Console\":{\"version\":2", "console has version 2"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        let error = match serde_json::from_str(&text.replacen(from, to, 1)) {
            Ok(state) => {
                guest.driver.device.restore(&State::Mmio(state)).expect_err(why).to_string()
            }
            Err(error) => error.to_string(),
        };
        assert!(error.contains(why), "{why}: {error}");
    }
    assert_eq!(guest.driver.device.save(), before);
}
