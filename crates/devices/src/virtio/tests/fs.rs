//! A shared folder behind its transport, with the test as the guest: it is stopped, saved, restored
//! and reset with requests under way.

use super::driver::*;
use crate::virtio::Service;
use crate::virtio::fs::Fs;
use memory::GuestRam;
use share::{Options, Share};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use x86::addr::Gpa;

/// The queue of requests that may wait.
const QUEUE: u32 = 1;
/// Requests at once: each has two descriptors.
const DEPTH: u64 = SIZE as u64 / 2;
/// Bytes of a write, which has a place of its own in the file.
const BYTES: usize = 4096;
/// Where a request and its answer are in guest memory.
const REQUEST: u64 = 0x2000;
const ROOM: u32 = 256;
/// Requests by their numbers in FUSE.
const LOOKUP: u32 = 1;
const OPEN: u32 = 14;
const WRITES: u32 = 16;
const INIT: u32 = 26;

/// A folder with an empty file, which goes again.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gemello-fs-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        fs::write(path.join("f"), []).expect("a file");
        Self(path)
    }

    /// A device that shares it, in this guest's memory.
    fn shared(&self, on: On, ram: GuestRam) -> Driver {
        let share = Share::open(&self.0, Options::default()).expect("a folder");
        let device = Fs::new("tag", Arc::new(share), 1, Service::Thread).expect("threads");
        driver_of(on, ram, Box::new(device))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Puts request `number` of those under way into the ring.
fn ask(driver: &mut Driver, number: u64, opcode: u32, node: u64, arguments: &[u8]) {
    let (gpa, head) = (DATA + REQUEST * number, 2 * number as u16);
    let len = 40 + arguments.len() as u32;
    let mut request = [len.to_ne_bytes(), opcode.to_ne_bytes()].concat();
    request.extend([number.to_ne_bytes(), node.to_ne_bytes(), [0; 8], [0; 8]].concat());
    request.extend(arguments);
    driver.ram.write(Gpa(gpa), &request).expect("RAM");
    let answer = gpa + REQUEST - u64::from(ROOM);
    driver.describe(DESCRIPTORS, head, (gpa, len, NEXT, head + 1));
    driver.describe(DESCRIPTORS, head + 1, (answer, ROOM, WRITE, 0));
    driver.offer(head);
}

/// The answer to request `number`: its error, and what follows.
fn answer(driver: &Driver, number: u64) -> (i32, Vec<u8>) {
    let at = DATA + REQUEST * (number + 1) - u64::from(ROOM);
    let mut bytes = driver.bytes(Gpa(at), ROOM as usize);
    let body = bytes.split_off(16);
    (i32::from_ne_bytes(std::array::from_fn(|i| bytes[4 + i])), body)
}

/// The word at the beginning of what a single request is answered with.
fn asked(driver: &mut Driver, opcode: u32, node: u64, arguments: &[u8]) -> u64 {
    ask(driver, 0, opcode, node, arguments);
    driver.notify_queue(QUEUE);
    driver.wait().expect("no reset");
    let (error, body) = answer(driver, 0);
    assert_eq!(error, 0, "request {opcode}");
    u64::from_ne_bytes(std::array::from_fn(|i| body[i]))
}

/// A driver that begins anew: its handle of the file.
fn mount(driver: &mut Driver) -> u64 {
    assert_eq!(driver.initialize_queue(QUEUE, EVENT_IDX), 0xf);
    let words = [7_u32, 38, 1 << 17, 0].map(u32::to_ne_bytes).concat();
    asked(driver, INIT, 0, &[words, vec![0; 48]].concat());
    let node = asked(driver, LOOKUP, 1, b"f\0");
    asked(driver, OPEN, node, &[2_u32.to_ne_bytes(), [0; 4]].concat())
}

/// Writes `byte` to each place of the file, all at once.
fn write_all(driver: &mut Driver, handle: u64, byte: u8) {
    for number in 0..DEPTH {
        let offset = number * BYTES as u64;
        let words = [handle, offset, BYTES as u64, 0, 2].map(u64::to_ne_bytes).concat();
        ask(driver, number, WRITES, 0, &[words, vec![byte; BYTES]].concat());
    }
    driver.notify_queue(QUEUE);
}

#[test]
fn it_stops_under_load_and_each_request_is_answered_once() {
    on_each(|on| {
        let folder = Folder::new();
        let ram = GuestRam::new(&[(Gpa(0), RAM)]).expect("memory");
        let mut driver = folder.shared(on, ram.clone());
        let mut handle = mount(&mut driver);
        for turn in 1..40_u8 {
            write_all(&mut driver, handle, turn);
            if turn % 4 == 3 {
                // A reset: who began it waits for the request in progress, and for no other.
                driver.store(0x70, 0);
                handle = mount(&mut driver);
                write_all(&mut driver, handle, turn);
            } else {
                driver.device.pause();
                let state = driver.device.save();
                if turn % 4 == 1 {
                    // Another process, which has nothing open yet.
                    let mut other = folder.shared(on, ram.clone());
                    other.device.pause();
                    other.device.restore(&state).expect("its own state");
                    other.take_place_of(&driver);
                    driver = other;
                } else {
                    driver.device.restore(&state).expect("its own state");
                }
                driver.device.resume();
            }
            for _ in 0..DEPTH {
                driver.wait().expect("no reset");
            }
            for number in 0..DEPTH {
                let (error, body) = answer(&driver, number);
                assert_eq!((error, &body[..4]), (0, &(BYTES as u32).to_ne_bytes()[..]), "{turn}");
            }
            assert!(!driver.has_answer(), "an answer too many");
            let content = fs::read(folder.0.join("f")).expect("a file");
            assert!(
                content == [turn; BYTES * DEPTH as usize],
                "{turn}: what was answered is there"
            );
        }
    });
}
