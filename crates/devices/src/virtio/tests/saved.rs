//! Saved state: a device restored into a fresh one goes on where the old one was.

use super::OK;
use super::driver::*;
use crate::sync::lock;

#[test]
fn a_restored_device_goes_on() {
    let platter = Platter::new(64);
    let mut old = running(&platter, EVENT_IDX | F_FLUSH);
    old.ram.write(DATA, &[0x55; 512]).expect("RAM");
    for sector in 0..20 {
        assert_eq!(old.request(OUT, sector, 512).0, OK);
    }
    let state = lock(&old.device).save();
    let position = &state.transport.queues[0].position;
    assert_eq!((position.next_avail, position.next_used), (20, 20));
    assert_eq!(state, lock(&old.device).save(), "saving changes nothing");

    let new = device_on(old.ram.clone(), &platter, false);
    assert_ne!(lock(&new.device).save(), state);
    lock(&new.device).restore(&state).expect("its own state");
    assert_eq!(lock(&new.device).save(), state);
    assert_eq!(new.interrupted(), state.interrupt_status != 0);

    // The driver does not know that the device is another one.
    old.device = new.device.clone();
    assert_eq!(old.request(IN, 19, 512), (OK, 513));
    assert_eq!(old.bytes(DATA, 512), [0x55; 512]);
}

#[test]
fn a_request_that_waits_in_the_ring_is_served_after_restoring() {
    let platter = Platter::new(64);
    let mut old = running(&platter, 0);
    old.header(IN, 3);
    old.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    let state = lock(&old.device).save();
    old.offer(0); // and no notification: the old device is gone
    let new = device_on(old.ram.clone(), &platter, false);
    lock(&new.device).restore(&state).expect("its own state");
    old.device = new.device.clone();
    assert_eq!(old.wait(), Some(513));
}

#[test]
fn a_broken_device_stays_broken_until_its_reset() {
    let platter = Platter::new(64);
    let mut old = running(&platter, 0);
    old.offer(SIZE);
    old.notify();
    assert_eq!(old.wait(), None);
    let state = lock(&old.device).save();
    assert!(state.transport.needs_reset);
    let mut new = device_on(old.ram.clone(), &platter, false);
    lock(&new.device).restore(&state).expect("its own state");
    assert_eq!(lock(&new.device).save(), state);
    assert_eq!(new.load(0x70), 0x4f);
    assert!(new.interrupted());
    new.store(0x70, 0);
    new.initialize(0);
    assert_eq!(new.request(IN, 0, 512).0, OK);
}

#[test]
fn a_device_nobody_uses_restores_too() {
    let platter = Platter::new(64);
    let old = device(&platter, false);
    old.store(0x24, 1);
    old.store(0x38, 64);
    let state = lock(&old.device).save();
    let new = device(&platter, false);
    lock(&new.device).restore(&state).expect("its own state");
    assert_eq!(lock(&new.device).save(), state);
}

#[test]
fn a_paused_device_writes_nothing() {
    let platter = Platter::new(64);
    let mut driver = running(&platter, 0);
    lock(&driver.device).pause();
    driver.header(IN, 3);
    driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    driver.offer(0);
    driver.notify();
    let state = lock(&driver.device).save();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!((driver.status(), state.transport.queues[0].position.next_avail), (UNTOUCHED, 0));
    lock(&driver.device).restore(&state).expect("its own state");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(driver.status(), UNTOUCHED);
    lock(&driver.device).resume();
    assert_eq!(driver.wait(), Some(513));
}
