//! The block device behind its transport, with the test as the guest.

mod balloon;
mod console;
mod driver;
mod entropy;
mod fs;
mod hostile;
mod hvc;
mod net;
mod pci;
mod pci_field;
mod queues;
mod saved;
mod straight;
mod vsock;

use crate::virtio::Service;
use crate::virtio::VirtioDevice as _;
use crate::virtio::blk::{Block, Recipe};
use disk_image::Limit;
use driver::*;
use memory::{Change, GuestRam};
use proptest::prelude::*;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use x86::addr::Gpa;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

#[test]
fn the_device_introduces_itself() {
    let driver = device(On::Mmio, &Platter::new(0x1_2345), ReadOnly);
    let registers = [0x0, 0x4, 0x8, 0x34, 0x44, 0x60, 0x70, 0xfc].map(|at| driver.load(at));
    assert_eq!(registers, [0x7472_6976, 2, 2, 256, 0, 0, 0, 0]);
    assert_eq!([driver.load(0x100), driver.load(0x104)], [0x1_2345, 0], "capacity");
    assert_eq!([driver.load(0x10c), driver.load(0x114)], [254, 512], "seg_max, blk_size");
    assert_eq!(driver.load(0xb0), u32::MAX, "no shared memory: length -1");
    let features = |select| {
        driver.store(0x14, select);
        u64::from(driver.load(0x10))
    };
    let all = features(0) | features(1) << 32;
    assert_eq!(all, VERSION_1 | EVENT_IDX | 1 << 28 | F_FLUSH | F_RO | 0x1C44);
}

#[test]
fn what_is_written_is_read_back() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut driver = running(on, &platter, F_FLUSH);
        let text: Vec<u8> = (0..1024_u32).map(|i| ((i * i) >> 3) as u8).collect();
        driver.ram.write(Gpa(DATA), &text).expect("RAM");
        assert_eq!(driver.request(OUT, 62, 1024), (OK, 1));
        assert_eq!(platter.0.lock().unwrap().bytes[62 * 512..], text);
        driver.ram.write(Gpa(DATA), &[0; 1024]).expect("RAM");
        assert_eq!(driver.request(IN, 62, 1024), (OK, 1025));
        assert_eq!(driver.bytes(Gpa(DATA), 1024), text);
    });
}

#[test]
fn a_request_is_served_before_its_notification_ends() {
    let platter = Platter::new(64);
    let block = Block::new(Box::new(platter.clone()), recipe(ReadWrite), Service::AtOnce);
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    let mut driver = driver_of(On::Pci, ram, Box::new(block.expect("no thread is needed")));
    driver.initialize(F_FLUSH);
    driver.ram.write(Gpa(DATA), &[7; 512]).expect("RAM");
    for (kind, sector) in [(OUT, 62), (IN, 62), (OUT, 1 << 40)] {
        driver.header(kind, sector);
        let data = (DATA, 512, kind != OUT);
        driver.chain(DESCRIPTORS, &[(HEADER, 16, false), data, (STATUS, 1, true)]);
        let before = driver.u16_at(Gpa(USED + 2));
        driver.offer(0);
        driver.notify();
        assert_eq!(driver.u16_at(Gpa(USED + 2)), before + 1, "it is answered");
        let expected = if sector == 62 { OK } else { IOERR };
        assert_eq!(driver.bytes(Gpa(STATUS), 1), [expected]);
    }
    assert_eq!(platter.0.lock().unwrap().bytes[62 * 512..63 * 512], [7; 512]);
    // One that comes while the device stands still is served when it goes on.
    driver.device.pause();
    driver.header(IN, 0);
    driver.offer(0);
    driver.notify();
    assert_eq!(driver.u16_at(Gpa(USED + 2)), 3);
    driver.device.resume();
    assert_eq!(driver.u16_at(Gpa(USED + 2)), 4);
}

#[test]
fn a_request_may_be_cut_anyhow_and_be_indirect() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut driver = running(on, &platter, 0);
        let expected = platter.0.lock().unwrap().bytes[3 * 512..5 * 512].to_vec();
        let parts = [
            (HEADER, 3, false),
            (HEADER + 3, 0, false),
            (HEADER + 3, 13, false),
            (DATA, 1, true),
            (DATA + 1, 700, true),
            // The rest of the data, and the status.
            (DATA + 701, 324, true),
        ];
        for table in [DESCRIPTORS, TABLE] {
            driver.header(IN, 3);
            driver.ram.write(Gpa(DATA), &[0xFF; 1025]).expect("RAM");
            driver.chain(table, &parts);
            if table == TABLE {
                let len = 16 * parts.len() as u32;
                driver.describe(DESCRIPTORS, 0, (TABLE, len, INDIRECT, 0));
            }
            assert_eq!(driver.submit(), Some(1025));
            assert_eq!(driver.bytes(Gpa(DATA), 1024), expected);
            assert_eq!(driver.bytes(Gpa(DATA + 1024), 1), [OK]);
        }
    });
}

#[test]
fn long_transfers_go_in_pieces() {
    on_each(|on| {
        let platter = Platter::new(2048);
        let mut driver = running(on, &platter, 0);
        let len = 0x9_0000; // two pieces and a quarter
        assert_eq!(driver.request(IN, 100, len), (OK, len + 1));
        let expected = platter.0.lock().unwrap().bytes[100 * 512..][..len as usize].to_vec();
        assert!(driver.bytes(Gpa(DATA), len as usize) == expected);
        assert_eq!(driver.request(OUT, 1, len), (OK, 1));
        assert!(platter.0.lock().unwrap().bytes[512..][..len as usize] == expected);
    });
}

#[test]
fn a_flush_is_honoured() {
    on_each(|on| {
        let platter = Platter::new(8);
        let durable = |sector: usize| platter.0.lock().unwrap().durable[sector * 512];
        let mut driver = running(on, &platter, F_FLUSH);
        driver.ram.write(Gpa(DATA), &[0xAB; 512]).expect("RAM");
        driver.request(OUT, 2, 512);
        assert_ne!(durable(2), 0xAB, "write-back: nothing is durable yet");
        driver.header(FLUSH, 0);
        driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (STATUS, 1, true)]);
        assert_eq!((driver.submit(), driver.status()), (Some(1), OK));
        assert_eq!((durable(2), platter.0.lock().unwrap().flushes), (0xAB, 1));
        platter.0.lock().unwrap().failing = true;
        driver.header(FLUSH, 0);
        assert_eq!((driver.submit(), driver.status()), (Some(1), IOERR), "a lost flush is told");
    });
}

/// The host drops what it could not write, and tells one call of it.
#[test]
fn after_a_lost_flush_none_succeeds() {
    on_each(|on| {
        let platter = Platter::new(8);
        let mut driver = running(on, &platter, F_FLUSH);
        let flush = |driver: &mut Driver| {
            driver.header(FLUSH, 0);
            driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (STATUS, 1, true)]);
            assert_eq!(driver.submit(), Some(1));
            driver.status()
        };
        assert_eq!(flush(&mut driver), OK);
        platter.0.lock().unwrap().full = true;
        assert_eq!(flush(&mut driver), IOERR);
        platter.0.lock().unwrap().full = false;
        assert_eq!(flush(&mut driver), IOERR);
        assert_eq!((driver.request(OUT, 2, 512).0, driver.request(IN, 2, 512).0), (OK, OK));
        driver.store(0x70, 0);
        driver.initialize(F_FLUSH);
        assert_eq!(flush(&mut driver), IOERR, "a reset brings nothing back");
        // Each write is a flush without the feature.
        driver.store(0x70, 0);
        driver.initialize(0);
        assert_eq!(driver.request(OUT, 2, 512).0, IOERR);
    });
}

#[test]
fn without_flush_every_write_is_durable() {
    on_each(|on| {
        let platter = Platter::new(8);
        let mut driver = running(on, &platter, 0);
        driver.ram.write(Gpa(DATA), &[0xAB; 512]).expect("RAM");
        assert_eq!(driver.request(OUT, 2, 512), (OK, 1));
        assert_eq!(platter.0.lock().unwrap().durable[2 * 512], 0xAB);
    });
}

#[test]
fn identity_and_unknown_requests() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(8), 0);
        assert_eq!(driver.request(GET_ID, 0, 20), (OK, 21));
        assert_eq!(driver.bytes(Gpa(DATA), 20), *b"gemello-disk0\0\0\0\0\0\0\0");
        assert_eq!(driver.request(GET_ID, 0, 4), (OK, 5));
        for kind in [2, 3, 12, 14, 16, 0x8000_0000, u32::MAX] {
            assert_eq!(driver.request(kind, 0, 512), (UNSUPP, 0), "type {kind}");
        }
    });
}

/// struct virtio_blk_discard_write_zeroes.
fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut driver = running(on, &platter, F_FLUSH);
        let mut ask = |kind: u32, list: &[Vec<u8>]| {
            let list = list.concat();
            driver.ram.write(Gpa(DATA), &list).expect("RAM");
            driver.send(kind, 0, list.len() as u32)
        };
        let two = [range(1, 2, 0), range(63, 1, 0)];
        assert_eq!(ask(DISCARD, &two), (OK, 1));
        assert_eq!(ask(ZEROES, &[range(8, 1, 0), range(10, 1, 1)]), (OK, 1));
        let found = platter.0.lock().unwrap().bytes.clone();
        let sector = |number: usize| found[number * 512..][..512].to_vec();
        assert!([1, 2, 63].into_iter().all(|number| sector(number) == [DISCARDED; 512]));
        assert!([8, 10].into_iter().all(|number| sector(number) == [0; 512]));
        let fresh = Platter::new(64).0.lock().unwrap().bytes.clone();
        assert!([0, 3, 9, 11].into_iter().all(|n| sector(n) == fresh[n * 512..][..512]));
        // None of several is done if one makes no sense.
        for (kind, bad, status) in [
            (DISCARD, range(64, 1, 0), IOERR),
            (DISCARD, range(u64::MAX, 1, 0), IOERR),
            (DISCARD, range(0, 0, 0), IOERR),
            (ZEROES, range(0, u32::MAX, 0), IOERR),
            (DISCARD, range(0, 1, 1), UNSUPP),
            (ZEROES, range(0, 1, 2), UNSUPP),
            (ZEROES, vec![0; 15], IOERR),
        ] {
            assert_eq!(ask(kind, &[range(20, 1, 0), bad]).0, status);
        }
        assert_eq!(ask(DISCARD, &vec![range(20, 1, 0); 17]).0, IOERR);
        assert_eq!(ask(DISCARD, &[]).0, IOERR);
        assert!(platter.0.lock().unwrap().bytes == found);
    });
}

/// Two requests in flight: one waits for the host, the other queue's is answered.
#[test]
fn a_disk_has_as_many_queues_as_are_of_use() {
    let platter = Platter::new(64);
    let recipe = Recipe { queues: 3, ..recipe(ReadWrite) };
    let block = Block::new(Box::new(platter), recipe, Service::Thread).expect("threads");
    assert_eq!(block.queues(), [256; 3]);
    let mut count = [0; 2];
    block.read_config(34, &mut count);
    assert_eq!(count, [3, 0], "num_queues");
}

#[test]
fn a_rate_holds_requests_back_and_a_pause_does_not_wait_for_it() {
    let platter = Platter::new(64);
    let limit = Limit { iops: None, bps: NonZeroU64::new(1) };
    let recipe = Recipe { limit, ..recipe(ReadWrite) };
    let block = Block::new(Box::new(platter), recipe, Service::Thread).expect("a thread");
    let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
    let mut driver = driver_of(On::Pci, ram, Box::new(block));
    driver.initialize(F_FLUSH);
    assert_eq!(driver.request(IN, 0, 512), (OK, 513), "the first is let go");
    let begun = Instant::now();
    driver.header(IN, 1);
    driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    driver.offer(0);
    driver.notify();
    driver.device.pause();
    assert_eq!(driver.status(), UNTOUCHED, "the second waits for minutes");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    on_each(|on| {
        let platter = Platter::new(8);
        let mut driver = device(on, &platter, ReadOnly);
        driver.initialize(F_FLUSH | F_RO);
        driver.ram.write(Gpa(DATA), &[0xAB; 512]).expect("RAM");
        assert_eq!(driver.request(OUT, 2, 512).0, IOERR);
        assert_eq!(driver.request(IN, 2, 512).0, OK);
        assert_ne!(platter.0.lock().unwrap().bytes[2 * 512], 0xAB);
        assert_ne!(driver.bytes(Gpa(DATA), 1), [0xAB]);
    });
}

#[test]
fn the_hosts_errors_are_told() {
    on_each(|on| {
        let platter = Platter::new(8);
        let mut driver = running(on, &platter, F_FLUSH);
        platter.0.lock().unwrap().failing = true;
        assert_eq!(driver.request(IN, 0, 512), (IOERR, 0));
        assert_eq!(driver.request(OUT, 0, 512).0, IOERR);
        platter.0.lock().unwrap().failing = false;
        assert_eq!(driver.request(IN, 0, 512).0, OK);
    });
}

#[test]
fn the_line_is_up_until_the_interrupt_is_acknowledged() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(8), 0);
        assert!(!driver.interrupted());
        driver.request(IN, 0, 512);
        driver.settle();
        assert!(driver.interrupted());
        assert_eq!(driver.load(0x60), 1);
        driver.store(0x64, 2);
        assert!(driver.interrupted(), "the other bit");
        driver.store(0x64, 1);
        assert!(!driver.interrupted());
        assert_eq!(driver.load(0x60), 0);
    });
}

#[test]
fn a_driver_that_polls_gets_no_interrupt() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(8), 0);
        driver.ram.write(Gpa(AVAILABLE), &1_u16.to_le_bytes()).expect("RAM");
        driver.request(IN, 0, 512);
        driver.settle();
        assert!(!driver.interrupted(), "VIRTQ_AVAIL_F_NO_INTERRUPT");
        let mut driver = running(on, &Platter::new(8), EVENT_IDX);
        let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
        driver.ram.write(Gpa(used_event), &2_u16.to_le_bytes()).expect("RAM");
        for expected in [false, false, true] {
            driver.request(IN, 0, 512);
            driver.settle();
            assert_eq!(driver.interrupted(), expected, "used_event is 2");
        }
        // A turn that was short of time rests in the next one.
        let avail_event = Gpa(USED + 4 + 8 * u64::from(SIZE));
        until("avail_event is 3", || driver.u16_at(avail_event) == 3);
    });
}

#[test]
fn engines_are_told_what_the_device_wrote() {
    on_each(|on| {
        let mut driver = running(on, &Platter::new(8), 0);
        let mut processor = driver.ram.reader(Box::new(|| ()));
        let pages = [DATA, STATUS, USED].map(|gpa| Gpa(gpa).page());
        pages.iter().for_each(|&gpa| assert_eq!(processor.hold_code(gpa), None, "nobody else"));
        driver.request(IN, 1, 1024);
        driver.settle();
        let mut written = Vec::new();
        processor.catch_up(|change| match change {
            Change::Wrote { gpa, len } => written.push((gpa, len)),
            other => panic!("{other:?}"),
        });
        processor.release_code(pages);
        assert!(
            written.contains(&(Gpa(DATA), 1024)) && written.contains(&(Gpa(STATUS), 1)),
            "{written:x?}"
        );
        assert!(written.iter().any(|&(gpa, len)| gpa == Gpa(USED) && len >= 12), "{written:x?}");
    });
}

/// A reset returns only after the request in progress, and nothing is written after it (2.4.1).
#[test]
fn a_reset_waits_for_the_request_in_progress() {
    on_each(|on| {
        let platter = Platter::new(8);
        let gate = Arc::new(AtomicBool::new(true));
        platter.0.lock().unwrap().gate = Some(Arc::clone(&gate));
        let mut driver = running(on, &platter, 0);
        driver.header(IN, 0);
        driver.chain(DESCRIPTORS, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        driver.offer(0);
        driver.notify();
        thread::sleep(Duration::from_millis(20)); // so that the request has probably begun
        let (told, end) = mpsc::channel();
        thread::scope(|scope| {
            let driver = &driver;
            scope.spawn(move || {
                driver.store(0x70, 0);
                told.send(driver.status()).expect("somebody listens");
            });
            let early = end.recv_timeout(Duration::from_millis(50));
            gate.store(false, Ordering::SeqCst);
            let status = early.or_else(|_| end.recv()).expect("the reset ends");
            thread::sleep(Duration::from_millis(20));
            assert_eq!(driver.status(), status, "written after the reset");
        });
        assert_eq!(driver.load(0x70), 0);
        assert!(!driver.interrupted());
        driver.initialize(0);
        assert_eq!(driver.request(IN, 0, 512).0, OK);
    });
}

#[test]
fn many_requests_at_once_are_all_answered() {
    on_each(|on| {
        let platter = Platter::new(64);
        let mut driver = running(on, &platter, EVENT_IDX);
        for round in 0..200_u64 {
            for slot in 0..4_u16 {
                let (header, data) = (HEADER + 16 * u64::from(slot), DATA + 512 * u64::from(slot));
                let sector = (round + u64::from(slot)) % 64;
                let mut bytes = [0; 16];
                bytes[8..].copy_from_slice(&sector.to_le_bytes());
                driver.ram.write(Gpa(header), &bytes).expect("RAM");
                let (first, status) = (3 * slot, STATUS + u64::from(slot));
                driver.describe(DESCRIPTORS, first, (header, 16, NEXT, first + 1));
                driver.describe(DESCRIPTORS, first + 1, (data, 512, NEXT | WRITE, first + 2));
                driver.describe(DESCRIPTORS, first + 2, (status, 1, WRITE, 0));
                driver.offer(first);
                driver.notify();
            }
            for _ in 0..4 {
                assert_eq!(driver.wait(), Some(513));
            }
            let got: Vec<_> =
                (0..4).map(|slot| driver.bytes(Gpa(DATA + 512 * slot), 1)[0]).collect();
            let content = &platter.0.lock().unwrap().bytes;
            let expected: Vec<_> =
                (0..4).map(|slot| content[(round + slot) as usize % 64 * 512]).collect();
            assert_eq!(got, expected);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any requests in any order, against a disk that is an array.
    #[test]
    fn requests_do_what_an_array_does(
        on in on_any(),
        requests in prop::collection::vec((0..6_u32, 0..20_u64, 0..6_u32, any::<u8>()), 1..20)
    ) {
        let platter = Platter::new(16);
        let mut driver = running(on, &platter, F_FLUSH);
        let mut model = platter.0.lock().unwrap().bytes.clone();
        for (kind, sector, sectors, fill) in requests {
            let (at, len) = (sector as usize * 512, sectors as usize * 512);
            let fits = len > 0 && at + len <= model.len();
            driver.ram.write(Gpa(DATA), &vec![fill; len]).expect("RAM");
            match kind {
                IN => {
                    let refused = (IOERR, u32::from(len == 0));
                    let expected = if fits { (OK, len as u32 + 1) } else { refused };
                    prop_assert_eq!(driver.request(IN, sector, len as u32), expected);
                    let data = if fits { model[at..at + len].to_vec() } else { vec![fill; len] };
                    prop_assert_eq!(driver.bytes(Gpa(DATA), len), data);
                }
                OUT => {
                    let expected = if fits { OK } else { IOERR };
                    prop_assert_eq!(driver.request(OUT, sector, len as u32).0, expected);
                    if fits {
                        model[at..at + len].fill(fill);
                    }
                }
                FLUSH => {
                    prop_assert_eq!(driver.request(FLUSH, sector, len as u32).0, OK);
                    prop_assert_eq!(&platter.0.lock().unwrap().durable, &model);
                }
                _ => prop_assert_eq!(driver.request(kind, sector, len as u32).0, UNSUPP),
            }
            prop_assert_eq!(&platter.0.lock().unwrap().bytes, &model);
        }
    }
}
