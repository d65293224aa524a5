//! The entropy device behind its transport, with the test as the guest.

use super::driver::*;
use crate::virtio::{Entropy, Service};
use memory::GuestRam;
use x86::addr::Gpa;

fn running(on: On) -> Driver {
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    let mut driver = driver_of(on, ram, Box::new(Entropy::new(Service::Thread).expect("a thread")));
    assert_eq!(driver.initialize(EVENT_IDX), 0xf);
    driver
}

#[test]
fn buffers_are_filled_with_bytes_that_differ() {
    on_each(|on| {
        let mut driver = running(on);
        let mut seen = Vec::new();
        for _ in 0..3 {
            driver.ram.write(Gpa(DATA), &[0; 128]).expect("RAM");
            driver.chain(DESCRIPTORS, &[(DATA, 60, true), (DATA + 64, 4, true)]);
            assert_eq!(driver.submit(), Some(64));
            assert_eq!(driver.bytes(Gpa(DATA + 60), 4), [0; 4], "between the buffers");
            assert_eq!(driver.bytes(Gpa(DATA + 68), 60), [0; 60], "after them");
            seen.push(driver.bytes(Gpa(DATA), 60));
        }
        // Each is twice alike once in 2^480 runs.
        assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
    });
}

#[test]
fn a_request_gets_a_bounded_amount() {
    on_each(|on| {
        let mut driver = running(on);
        driver.ram.write(Gpa(DATA), &[0; 0x2000]).expect("RAM");
        driver.chain(DESCRIPTORS, &[(DATA, 100, true), (DATA + 100, 0x2000 - 100, true)]);
        assert_eq!(driver.submit(), Some(4096));
        assert_eq!(driver.bytes(Gpa(DATA + 4096), 4096), [0; 4096]);
        // As much as there is, told in a length of 32 bits.
        driver.chain(DESCRIPTORS, &[(DATA, u32::MAX, true)]);
        assert!(driver.submit().is_some());
    });
}

#[test]
fn what_a_driver_must_not_do_is_answered() {
    on_each(|on| {
        let mut driver = running(on);
        for parts in [
            &[(DATA, 64, false)][..],
            &[(DATA, 0, true)],
            &[(RAM, 64, true)],
            &[(RAM - 32, 64, true)],
            &[(u64::MAX - 8, 64, true)],
        ] {
            driver.chain(DESCRIPTORS, parts);
            assert_eq!(driver.submit(), Some(0), "{parts:x?}");
        }
        driver.chain(DESCRIPTORS, &[(DATA, 16, false), (DATA, 64, true)]);
        assert_eq!(driver.submit(), Some(64), "what it may read is nothing to it");
        driver.chain(DESCRIPTORS, &[(DATA, 64, true), (DATA, 16, false)]);
        assert_eq!(driver.submit(), None, "it wants a reset");
        assert_eq!(driver.initialize(0), 0xf);
        driver.chain(DESCRIPTORS, &[(DATA, 64, true)]);
        assert_eq!(driver.submit(), Some(64));
    });
}

#[test]
fn it_goes_on_after_a_restore() {
    on_each(|on| {
        let mut driver = running(on);
        driver.chain(DESCRIPTORS, &[(DATA, 64, true)]);
        assert_eq!(driver.submit(), Some(64));
        driver.device.pause();
        driver.offer(0);
        driver.notify();
        let state = driver.device.save();
        let mut other = running(on);
        other.device.pause();
        for page in [DESCRIPTORS, AVAILABLE, USED] {
            other.ram.write(Gpa(page), &driver.bytes(Gpa(page), 4096)).expect("RAM");
        }
        other.device.restore(&state).expect("its own state");
        other.take_place_of(&driver);
        other.device.resume();
        assert_eq!(other.wait(), Some(64), "what was asked for before");
        driver.device.resume();
        assert_eq!(driver.wait(), Some(64));
    });
}
