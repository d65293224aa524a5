//! Disks in real files: transfers straight to and from guest memory, several under way, by the
//! host's page cache and past it, with a thread and without.

use super::driver::*;
use super::{IOERR, OK};
use crate::virtio::Service;
use crate::virtio::blk::Block;
use disk_image::{HostCache, Image, ImageError};
use memory::GuestRam;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use test_support::Rng;
use x86::addr::{Gpa, PortWidth};

/// Sectors of the disk.
const SECTORS: u64 = 4096;
/// Requests at once: each has three descriptors.
const DEPTH: u64 = SIZE as u64 / 3;
/// Bytes of guest memory that a request may use.
const PLACE: u64 = 0x1_0000;
/// CONFIG_WCE, and where the configuration says whether the cache is on.
const F_CONFIG_WCE: u64 = 1 << 11;
const WRITEBACK: u32 = 32;

/// A file that goes away again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gemello-straight-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).and_then(|file| file.set_len(SECTORS * 512)).expect("a file");
        Self(path)
    }

    /// A disk in it; `None`: this file system knows no way past the cache.
    fn disk(&self, cache: HostCache, service: Service) -> Option<Driver> {
        let image = Image { cache, ..Image::at(&self.0) };
        let storage = match image.open(ReadWrite) {
            Err(ImageError::Direct { .. }) => return None,
            opened => opened.expect("opened"),
        };
        let block = Block::new(storage, recipe(ReadWrite), service).expect("a thread");
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
        let mut driver = driver_of(On::Pci, ram, Box::new(block));
        driver.initialize(F_FLUSH);
        Some(driver)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A request of a round: where its data is in guest memory and on the disk.
#[derive(Clone, Copy, Debug)]
struct Request {
    kind: u32,
    gpa: u64,
    sector: u64,
    bytes: u64,
}

/// Requests that do not touch each other, each in a part of the disk and of memory of its own.
fn round(random: &mut Rng) -> Vec<Request> {
    let share = SECTORS / DEPTH;
    let request = |number: u64| {
        let bytes = random.pick(&[512, 1024, 4096, 0x8000]);
        // Past the cache, some hosts want memory aligned, and the disk's places.
        let gpa = DATA + PLACE * number + random.pick(&[0, 0, 512, 6]);
        let sector = share * number + random.below(share - bytes / 512);
        let kind = random.pick(&[IN, IN, IN, IN, OUT, OUT, OUT, FLUSH]);
        Request { kind, gpa, sector, bytes }
    };
    (0..DEPTH).map(request).collect()
}

/// Puts all of `requests` into the ring, and notifies once.
fn submit(driver: &mut Driver, requests: &[Request]) {
    for (number, request) in (0..).zip(requests) {
        let &Request { kind, gpa, sector, bytes } = request;
        let header = HEADER + 16 * number;
        let fields = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        driver.ram.write(Gpa(header), &fields).expect("RAM");
        driver.ram.write(Gpa(STATUS + number), &[UNTOUCHED]).expect("RAM");
        let head = 3 * number as u16;
        let status = (STATUS + number, 1, WRITE, 0);
        let first = (header, 16, NEXT, if kind == FLUSH { head + 2 } else { head + 1 });
        let way = if kind == IN { WRITE } else { 0 };
        driver.describe(DESCRIPTORS, head, first);
        driver.describe(DESCRIPTORS, head + 1, (gpa, bytes as u32, NEXT | way, head + 2));
        driver.describe(DESCRIPTORS, head + 2, status);
        driver.offer(head);
    }
    driver.notify();
}

/// Rounds of requests in any order of answers: memory and the file are as a model says.
fn play(cache: HostCache, service: Service) {
    let scratch = Scratch::new();
    let Some(mut driver) = scratch.disk(cache, service) else { return };
    let mut random = Rng::new(7);
    let mut model = vec![0_u8; (SECTORS * 512) as usize];
    for _ in 0..40 {
        let requests = round(&mut random);
        let mut expected = Vec::new();
        for request in &requests {
            let at = (request.sector * 512) as usize;
            let content = &mut model[at..at + request.bytes as usize];
            if request.kind == OUT {
                content.fill_with(|| random.next() as u8);
                driver.ram.write(Gpa(request.gpa), content).expect("RAM");
            } else {
                driver.ram.write(Gpa(request.gpa), &vec![0x5A; content.len()]).expect("RAM");
            }
            expected.push(content.to_vec());
        }
        submit(&mut driver, &requests);
        for _ in &requests {
            driver.wait().expect("no reset");
        }
        for (number, (request, expected)) in requests.iter().zip(&expected).enumerate() {
            assert_eq!(driver.bytes(Gpa(STATUS + number as u64), 1), [OK], "{request:?}");
            if request.kind == IN {
                let found = driver.bytes(Gpa(request.gpa), expected.len());
                assert!(found == *expected, "{cache:?} {service:?} {request:?}");
            }
        }
    }
    driver.settle();
    assert!(fs::read(&scratch.0).expect("a file") == model, "{cache:?} {service:?}");
}

#[test]
fn transfers_under_way_together_do_what_one_after_the_other_does() {
    for service in [Service::Thread, Service::AtOnce] {
        play(HostCache::Used, service);
        play(HostCache::Bypassed, service);
    }
}

/// Pause, save and reset find the device with requests under way; each is answered once, or is
/// given again.
#[test]
fn a_device_stops_under_load() {
    for cache in [HostCache::Used, HostCache::Bypassed] {
        let scratch = Scratch::new();
        let Some(mut driver) = scratch.disk(cache, Service::Thread) else { continue };
        let mut random = Rng::new(3);
        for turn in 0..30 {
            let requests = round(&mut random);
            submit(&mut driver, &requests);
            if turn % 3 == 2 {
                driver.store(0x70, 0);
                driver.initialize(F_FLUSH);
                continue;
            }
            driver.device.pause();
            let state = driver.device.save();
            driver.device.restore(&state).expect("its own state");
            driver.device.resume();
            for _ in &requests {
                driver.wait().expect("no reset");
            }
            assert!(!driver.has_answer(), "an answer too many");
        }
    }
}

#[test]
fn a_file_that_was_cut_short_or_may_not_grow_gives_errors() {
    for cache in [HostCache::Used, HostCache::Bypassed] {
        let scratch = Scratch::new();
        let Some(mut driver) = scratch.disk(cache, Service::Thread) else { continue };
        assert_eq!(driver.request(IN, SECTORS - 8, 4096), (OK, 4097));
        File::options().write(true).open(&scratch.0).and_then(|f| f.set_len(4096)).expect("cut");
        assert_eq!(driver.request(IN, SECTORS - 8, 4096), (IOERR, 0), "{cache:?}");
        assert_eq!(driver.request(IN, 4, 4096), (IOERR, 0), "{cache:?}: a part is there");
        assert_eq!(driver.request(IN, 0, 4096), (OK, 4097), "{cache:?}");
    }
}

/// 5.2.5.2: the driver turns the cache off, and on again; a reset brings back what was.
#[test]
fn the_driver_chooses_the_cache() {
    let platter = Platter::new(8);
    let is_durable = |driver: &mut Driver, byte: u8| {
        driver.ram.write(Gpa(DATA), &[byte; 512]).expect("RAM");
        assert_eq!(driver.request(OUT, 2, 512), (OK, 1));
        platter.0.lock().unwrap().durable[2 * 512] == byte
    };
    let mut driver = device(On::Pci, &platter, ReadWrite);
    driver.initialize(F_FLUSH | F_CONFIG_WCE);
    assert_eq!(driver.load_config(WRITEBACK, PortWidth::B1), 1);
    assert!(!is_durable(&mut driver, 1));
    driver.store_config(WRITEBACK, PortWidth::B1, 0);
    assert!(is_durable(&mut driver, 2));
    let state = driver.device.save();
    let mut other = device(On::Pci, &platter, ReadWrite);
    other.ram = driver.ram.clone();
    other.device.restore(&state).expect("its state");
    assert_eq!(other.load_config(WRITEBACK, PortWidth::B1), 0, "it is saved");
    driver.store_config(WRITEBACK, PortWidth::B1, 1);
    assert!(!is_durable(&mut driver, 3));
    driver.store_config(WRITEBACK, PortWidth::B1, 0);
    driver.initialize(F_FLUSH | F_CONFIG_WCE);
    assert_eq!(driver.load_config(WRITEBACK, PortWidth::B1), 1, "the reset");
}
