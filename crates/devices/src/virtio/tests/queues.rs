//! What the contract of devices promises beyond one request after the other: several queues, chains
//! that are answered late, out of order and from other threads, and a configuration that changes.

use super::driver::*;
use crate::saved::RestoreError;
use crate::virtio::chain::Chain;
use crate::virtio::saved::DeviceState;
use crate::virtio::{Activation, ConfigSpace, Queue, VirtioDevice, VirtioIrq};
use memory::GuestRam;
use std::sync::{Arc, Mutex};
use std::thread;
use sync::lock;
use x86::addr::{Gpa, PortWidth};

/// Where the rings of queue `number` are.
const fn rings(number: u64) -> [u64; 3] {
    let base = 0x1_0000 * (number + 1);
    [base, base + 0x1000, base + 0x2000]
}

/// What the device's thread sees.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Backend>>);

#[derive(Default)]
struct Backend {
    chains: Vec<(Queue, Chain)>,
    irq: Option<Arc<dyn VirtioIrq>>,
    refused: usize,
}

impl Held {
    fn heads(&self) -> Vec<u16> {
        lock(&self.0).chains.iter().map(|(_, chain)| chain.head.index()).collect()
    }

    fn take(&self, head: u16) -> (Queue, Chain) {
        let mut backend = lock(&self.0);
        let held = |(_, chain): &(Queue, Chain)| chain.head.index() == head;
        let at = backend.chains.iter().position(held).expect("held");
        backend.chains.remove(at)
    }

    fn answer(&self, head: u16, written: u32) {
        let (queue, chain) = self.take(head);
        queue.complete(chain.head, written).expect("a whole ring");
    }
}

/// A device of two queues that answers nothing by itself, with eight bytes of configuration.
struct Holder {
    held: Held,
    queues: Vec<Option<Queue>>,
    config: ConfigSpace,
}

impl Holder {
    fn look(&self, number: usize) {
        let Some(queue) = &self.queues[number] else { return };
        loop {
            match queue.next() {
                Ok(Some(chain)) => lock(&self.held.0).chains.push((queue.clone(), chain)),
                Ok(None) => return,
                Err(why) => {
                    queue.fail(&why);
                    lock(&self.held.0).refused += 1;
                }
            }
        }
    }
}

impl VirtioDevice for Holder {
    fn kind(&self) -> u32 {
        99
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &[SIZE, SIZE]
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.config.read(offset, into);
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8]) {
        // The second word can be written.
        if offset >= 4 {
            let change = |config: &mut [u8]| {
                let there = config.iter_mut().skip(offset);
                there.zip(bytes).for_each(|(into, byte)| *into = *byte);
            };
            self.config.update(change);
        }
    }

    fn config_generation(&self) -> u32 {
        self.config.generation()
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features: _, queues, irq, ram: _ } = activation;
        self.queues = queues;
        lock(&self.held.0).irq = Some(irq);
        (0..self.queues.len()).for_each(|number| self.look(number));
    }

    fn notify(&mut self, queue: usize) {
        self.look(queue);
    }

    fn quiesce(&mut self) {
        self.queues.clear();
        lock(&self.held.0).chains.clear();
    }

    fn reset(&mut self) {
        self.config.update(|config| config[4..].fill(0));
    }

    fn save(&self) -> DeviceState {
        DeviceState::Stateless
    }

    fn restore(&mut self, _: &DeviceState) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// A driver that has both queues of a [`Holder`] ready, but not the device running.
fn set_up(on: On, ram: GuestRam) -> (Driver, Held, ConfigSpace) {
    let (held, config) = (Held::default(), ConfigSpace::new([1, 2, 3, 4, 0, 0, 0, 0]));
    let holder = Holder { held: held.clone(), queues: Vec::new(), config: config.clone() };
    let driver = driver_of(on, ram, Box::new(holder));
    (driver, held, config)
}

fn run(driver: &Driver) {
    for (register, value) in [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 0xb)] {
        driver.store(register, value);
    }
    for number in 0..2 {
        driver.set_queue_of(number as u32, SIZE.into(), rings(number));
    }
    driver.store(0x70, 0xf);
    assert_eq!(driver.load(0x70), 0xf);
}

fn running(on: On) -> (Driver, Held, ConfigSpace) {
    let parts = set_up(on, GuestRam::new(&[(Gpa(0), RAM)]).expect("memory"));
    run(&parts.0);
    parts
}

/// Offers `heads` to queue `number`, each a chain of one descriptor, and tells the device.
fn offer(driver: &Driver, number: u64, heads: &[u16]) {
    heads.iter().for_each(|&head| put(driver, number, head));
    driver.store(0x50, number as u32);
}

/// Offers `head` without a word to the device.
fn put(driver: &Driver, number: u64, head: u16) {
    let [descriptors, available, _] = rings(number);
    driver.describe(descriptors, head, (DATA, 64, WRITE, 0));
    let index = driver.u16_at(Gpa(available + 2));
    let slot = available + 4 + 2 * u64::from(index % SIZE);
    driver.ram.write(Gpa(slot), &head.to_le_bytes()).expect("RAM");
    driver.ram.write(Gpa(available + 2), &index.wrapping_add(1).to_le_bytes()).expect("RAM");
}

/// What the used ring of queue `number` holds: chain and length.
fn used(driver: &Driver, number: u64) -> Vec<(u16, u16)> {
    let [_, _, used] = rings(number);
    let entry = |index: u16| used + 4 + 8 * u64::from(index % SIZE);
    (0..driver.u16_at(Gpa(used + 2)))
        .map(|index| (driver.u16_at(Gpa(entry(index))), driver.u16_at(Gpa(entry(index) + 4))))
        .collect()
}

#[test]
fn chains_are_answered_in_any_order_from_any_thread() {
    on_each(|on| {
        let (driver, held, _) = running(on);
        offer(&driver, 1, &[3, 0, 7]);
        assert_eq!((held.heads(), driver.interrupted()), (vec![3, 0, 7], false));
        thread::scope(|scope| {
            scope.spawn(|| {
                held.answer(7, 70);
                held.answer(3, 30);
            });
        });
        assert!(driver.interrupted());
        offer(&driver, 1, &[7]);
        held.answer(0, 1);
        held.answer(7, 2);
        assert_eq!(used(&driver, 1), [(7, 70), (3, 30), (0, 1), (7, 2)]);
        assert_eq!(used(&driver, 0), []);
    });
}

/// It has one more whenever one is answered, as a driver on another processor may.
#[test]
fn a_driver_without_end_keeps_no_device_busy() {
    on_each(|on| {
        let (driver, held, _) = running(on);
        offer(&driver, 0, &[3]);
        let queue = lock(&held.0).chains[0].0.clone();
        held.answer(3, 0);
        let mut answered = 0;
        let mut answer = |chain: Chain, more: bool| {
            answered += 1;
            assert!(answered <= 7, "it goes on for ever");
            if more {
                put(&driver, 0, 3);
            }
            queue.complete(chain.head, 0)
        };
        put(&driver, 0, 3);
        assert!(queue.each(5, |chain| answer(chain, true)).expect("a good ring"), "there is one");
        assert!(!queue.each(5, |chain| answer(chain, false)).expect("a good ring"));
        assert_eq!(answered, 6);
    });
}

#[test]
fn chains_in_flight_are_given_again_after_a_pause_and_after_restoring() {
    on_each(|on| {
        let (driver, held, _) = running(on);
        offer(&driver, 0, &[3, 0, 7, 5]);
        held.answer(0, 1);
        driver.device.pause();
        assert!(held.heads().is_empty());
        driver.device.resume();
        assert_eq!(held.heads(), [3, 7, 5]);
        held.answer(7, 2);
        let state = driver.device.save();
        let position = &state.transport().queues[0].position;
        assert_eq!((position.next_avail, position.next_used), (4, 2));
        assert_eq!(position.in_flight, [3, 5]);

        let (other, held, _) = set_up(on, driver.ram.clone());
        other.device.restore(&state).expect("its own state");
        assert_eq!(held.heads(), [3, 5]);
        offer(&other, 0, &[0]);
        held.answer(0, 3);
        held.answer(5, 4);
        held.answer(3, 5);
        assert_eq!(used(&other, 0), [(0, 1), (7, 2), (0, 3), (5, 4), (3, 5)]);
        assert!(other.device.save().transport().queues[0].position.in_flight.is_empty());
    });
}

#[test]
fn an_answer_after_the_reset_has_no_effect() {
    on_each(|on| {
        let (driver, held, _) = running(on);
        offer(&driver, 0, &[0]);
        let (queue, chain) = held.take(0);
        driver.store(0x70, 0);
        let [_, _, ring] = rings(0);
        let before = driver.bytes(Gpa(ring), 0x100);
        queue.complete(chain.head, 64).expect("nothing to go wrong");
        assert_eq!((driver.bytes(Gpa(ring), 0x100), driver.interrupted()), (before, false));
    });
}

#[test]
fn a_driver_that_offers_more_chains_than_descriptors_breaks_the_device() {
    on_each(|on| {
        let (driver, held, _) = running(on);
        for _ in 0..SIZE {
            offer(&driver, 0, &[4]);
        }
        assert_eq!((held.heads().len(), driver.load(0x70)), (SIZE.into(), 0xf));
        offer(&driver, 0, &[4]);
        assert_eq!((held.heads().len(), driver.load(0x70)), (SIZE.into(), 0x4f));
        offer(&driver, 0, &[4]);
        assert_eq!(lock(&held.0).refused, 1, "the queue is closed");
        driver.store(0x70, 0);
        driver.ram.write(Gpa(0x1_0000), &[0; 0x4000]).expect("RAM");
        run(&driver);
        offer(&driver, 0, &[4]);
        assert_eq!(held.heads(), [4]);
    });
}

#[test]
fn a_queue_switched_off_leaves_the_other_running() {
    let (driver, held, _) = running(On::Mmio);
    offer(&driver, 0, &[1]);
    offer(&driver, 1, &[2]);
    driver.store(0x30, 0);
    driver.store(0x44, 0);
    assert_eq!(held.heads(), [2]);
    offer(&driver, 0, &[3]);
    offer(&driver, 1, &[4]);
    assert_eq!(held.heads(), [2, 4]);
    offer(&driver, 2, &[]); // there is no such queue
}

#[test]
fn the_configuration_is_written_and_changes_with_a_new_generation() {
    on_each(|on| {
        let (driver, held, config) = running(on);
        let load = |offset, width| driver.load_config(offset, width);
        assert_eq!(driver.load(0x100), 0x0403_0201);
        driver.store(0x100, u32::MAX);
        driver.store(0x104, 0x0807_0605);
        driver.store_config(6, PortWidth::B1, 0xAA);
        assert_eq!((driver.load(0x100), driver.load(0x104)), (0x0403_0201, 0x08AA_0605));
        assert_eq!((load(3, PortWidth::B1), load(6, PortWidth::B2)), (0x04, 0x08AA));
        assert_eq!((load(8, PortWidth::B4), load(7, PortWidth::B1)), (0, 0x08));
        let before = driver.load(0xfc);
        config.update(|bytes| bytes[0] = 9);
        lock(&held.0).irq.as_ref().expect("active").config();
        assert_ne!(driver.load(0xfc), before);
        assert_eq!((driver.load(0x100), driver.load(0x60)), (0x0403_0209, 2));
        assert!(driver.interrupted());
        driver.store(0x70, 0);
        assert_eq!(driver.load(0x104), 0, "what the driver wrote is forgotten");
    });
}
