//! The balloon behind its transport, with the test as the guest.

use super::driver::*;
use crate::virtio::Service;
use crate::virtio::balloon::{Balloon, BalloonControl, BalloonReport};
use memory::GuestRam;
use std::thread;
use std::time::Duration;
use x86::addr::{Gpa, PortWidth};

const F_STATS: u64 = 1 << 1;
const F_REPORTING: u64 = 1 << 5;
/// Pages of a machine's memory.
const PAGES: u32 = (RAM >> 12) as u32;
const LONG: Duration = Duration::from_secs(20);

fn made(on: On) -> (Driver, BalloonControl) {
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    let balloon = Balloon::new(RAM, Service::Thread).expect("a thread");
    let control = balloon.control();
    (driver_of(on, ram, Box::new(balloon)), control)
}

/// A driver that has queue `number` alone, and what the host has.
fn running(on: On, number: u32, features: u64) -> (Driver, BalloonControl) {
    let (mut driver, control) = made(on);
    assert_eq!(driver.initialize_queue(number, EVENT_IDX | features), 0xf);
    (driver, control)
}

/// Puts page numbers to where tests have their data.
fn numbers(driver: &Driver, pages: &[u32]) -> u32 {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.ram.write(Gpa(DATA), &bytes).expect("RAM");
    bytes.len() as u32
}

fn resident(driver: &Driver) -> u64 {
    driver.ram.resident().expect("the host tells")
}

#[test]
fn pages_that_are_given_leave_memory() {
    on_each(|on| {
        let (mut driver, _control) = running(on, 0, 0);
        driver.ram.write(Gpa(0x8_0000), &[7; 0x8_0000]).expect("RAM");
        let pages: Vec<u32> = (0x80..0xC0).rev().collect();
        let len = numbers(&driver, &pages);
        let before = resident(&driver);
        // Cut within a number.
        driver.chain(DESCRIPTORS, &[(DATA, 5, false), (DATA + 5, len - 5, false)]);
        assert_eq!(driver.submit(), Some(0));
        assert_eq!(resident(&driver), before - 0x4_0000);
        assert_eq!(driver.bytes(Gpa(0x8_0000), 0x4_0000), vec![0; 0x4_0000]);
        assert_eq!(driver.bytes(Gpa(0xC_0000), 0x4_0000), vec![7; 0x4_0000]);
    });
}

#[test]
fn page_numbers_that_are_nothing_do_no_harm() {
    on_each(|on| {
        let (mut driver, _control) = running(on, 0, 0);
        driver.ram.write(Gpa(0x8_0000), &[7; 0x1000]).expect("RAM");
        // Beyond memory, twice the same, and the rings, which stay.
        let rings = [DESCRIPTORS, AVAILABLE, USED].map(|gpa| (gpa >> 12) as u32);
        let len = numbers(&driver, &[[PAGES, u32::MAX, 0x80, 0x80].as_slice(), &rings].concat());
        driver.chain(DESCRIPTORS, &[(DATA, len, false)]);
        assert_eq!(driver.submit(), Some(0));
        assert_eq!(driver.bytes(Gpa(0x8_0000), 0x1000), vec![0; 0x1000]);
        for parts in [
            &[(DATA, 3, false)][..],
            &[(DATA, 0, false)],
            &[(DATA, 64, true)],
            &[(RAM - 4, 64, false)],
            &[(u64::MAX - 3, 8, false)],
            &[(0, RAM as u32, false)],
        ] {
            driver.chain(DESCRIPTORS, parts);
            assert_eq!(driver.submit(), Some(0), "{parts:x?}");
        }
    });
}

/// Spec or Linux: the queue after the statistics, or the fifth.
#[test]
fn free_pages_are_reported_in_the_last_queue() {
    on_each(|on| {
        for (number, features) in [(3, F_STATS | F_REPORTING), (4, F_REPORTING), (2, F_REPORTING)] {
            let (mut driver, control) = running(on, number, features);
            driver.ram.write(Gpa(0x8_0000), &[7; 0x8_0000]).expect("RAM");
            let parts = [(0x8_0000, 0x2_0000, true), (0xA_0800, 0x1000, true), (RAM, 0x1000, true)];
            driver.chain(DESCRIPTORS, &parts);
            driver.offer(0);
            driver.notify_queue(number);
            assert_eq!(driver.wait(), Some(0));
            assert_eq!(driver.bytes(Gpa(0x8_0000), 0x2_0000), vec![0; 0x2_0000]);
            assert_eq!(driver.bytes(Gpa(0xA_0000), 0x6_0000), vec![7; 0x6_0000]);
            assert_eq!(control.report(Duration::ZERO).reported, 0x2_0000);
        }
        let (mut driver, _control) = running(on, 4, 0);
        driver.ram.write(Gpa(0x8_0000), &[7; 0x1000]).expect("RAM");
        driver.chain(DESCRIPTORS, &[(0x8_0000, 0x1000, true)]);
        driver.offer(0);
        driver.notify_queue(4);
        driver.settle();
        assert_eq!(driver.bytes(Gpa(0x8_0000), 1), [7], "nobody has agreed to that");
    });
}

#[test]
fn the_driver_is_told_the_size_and_tells_how_far_it_is() {
    on_each(|on| {
        let (driver, control) = running(on, 0, 0);
        let wants = |bytes| BalloonReport { wanted: bytes, ..BalloonReport::default() };
        assert_eq!(control.report(Duration::ZERO), wants(0));
        control.want(0x1_2FFF);
        assert!(driver.interrupted());
        assert_eq!(driver.load(0x60) & 2, 2, "the configuration has changed");
        assert_eq!(driver.load_config(0, PortWidth::B4), 0x12);
        driver.store_config(4, PortWidth::B4, 0x11);
        driver.store_config(0, PortWidth::B4, 0x99);
        assert_eq!(driver.load_config(0, PortWidth::B4), 0x12, "it is not the driver's");
        assert_eq!(control.report(Duration::ZERO).given, 0x1_1000);
        control.want(u64::MAX);
        assert_eq!(driver.load_config(0, PortWidth::B4), PAGES, "all that there is");
        driver.store(0x70, 0);
        let report = control.report(Duration::ZERO);
        assert_eq!((report.wanted, report.given), (RAM, 0), "after a reset");
    });
}

#[test]
fn what_is_wanted_during_a_pause_is_told_after_it() {
    on_each(|on| {
        let (driver, control) = running(on, 0, 0);
        driver.device.pause();
        control.want(0x3000);
        assert!(!driver.interrupted());
        let state = driver.device.save();
        driver.device.resume();
        assert!(driver.interrupted());
        let (other, control) = running(on, 0, 0);
        other.device.pause();
        other.device.restore(&state).expect("its own state");
        assert!(!other.interrupted());
        other.device.resume();
        assert!(other.interrupted(), "the guest has not given anything yet");
        assert_eq!(control.report(Duration::ZERO).wanted, 0x3000);
    });
}

#[test]
fn statistics_come_when_the_host_asks() {
    on_each(|on| {
        let (mut driver, control) = running(on, 2, F_STATS);
        let mut entries = Vec::new();
        for (tag, value) in [(4_u16, 100_u64), (5, 200), (6, u64::MAX), (99, 1), (7, 50)] {
            entries.extend(tag.to_le_bytes());
            entries.extend(value.to_le_bytes());
        }
        driver.ram.write(Gpa(DATA), &entries).expect("RAM");
        driver.chain(DESCRIPTORS, &[(DATA, entries.len() as u32 + 3, false)]);
        driver.offer(0);
        driver.notify_queue(2);
        until("a report", || {
            control.report(Duration::ZERO).stats.total == Some(200) || driver.has_answer()
        });
        // The report has asked for newer ones, so the buffer comes back.
        assert_eq!(driver.wait(), Some(0));
        driver.ram.write(Gpa(DATA + 2), &101_u64.to_le_bytes()).expect("RAM");
        thread::scope(|scope| {
            let asked = scope.spawn(|| control.report(LONG));
            driver.offer(0);
            driver.notify_queue(2);
            // A driver fills the buffer again whenever it comes back.
            while !asked.is_finished() {
                if driver.has_answer() {
                    assert_eq!(driver.wait(), Some(0));
                    driver.offer(0);
                    driver.notify_queue(2);
                }
                thread::yield_now();
            }
            let stats = asked.join().expect("no panic").stats;
            assert_eq!((stats.free, stats.total), (Some(101), Some(200)));
            assert_eq!((stats.available, stats.caches), (None, Some(50)));
        });
    });
}

/// The buffer that is kept is given again after a restore.
#[test]
fn the_statistics_buffer_survives_a_restore() {
    on_each(|on| {
        let (mut driver, control) = running(on, 2, F_STATS);
        driver.chain(DESCRIPTORS, &[(DATA, 10, false)]);
        driver.ram.write(Gpa(DATA), &[5, 0, 9, 0, 0, 0, 0, 0, 0, 0]).expect("RAM");
        driver.offer(0);
        driver.notify_queue(2);
        driver.device.pause();
        assert_eq!(driver.u16_at(Gpa(USED + 2)), 0);
        driver.device.resume();
        until("a report", || control.report(Duration::ZERO).stats.total == Some(9));
        assert_eq!(driver.wait(), Some(0));
    });
}

#[test]
fn a_broken_ring_wants_a_reset() {
    on_each(|on| {
        for number in [0, 1, 2] {
            let (mut driver, _control) = running(on, number, F_STATS);
            driver.chain(DESCRIPTORS, &[(DATA, 8, true), (DATA, 8, false)]);
            driver.offer(0);
            driver.notify_queue(number);
            assert_eq!(driver.wait(), None);
            assert_eq!(driver.initialize_queue(0, 0), 0xf);
            driver.chain(DESCRIPTORS, &[(DATA, 4, false)]);
            assert_eq!(driver.submit(), Some(0));
        }
    });
}
