//! What those who share a machine's memory may rely on.

use memory::{Backing, Change, Error, GuestRam, REMEMBERED, Reader};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use x86::addr::Gpa;
use x86::bus::PhysicalMemory as _;

const PAGE: u64 = 0x1000;

fn ram() -> GuestRam {
    GuestRam::new(&[(Gpa(0), 16 * PAGE), (Gpa(1 << 32), 16 * PAGE)]).expect("memory")
}

fn silent(ram: &GuestRam) -> Reader {
    ram.reader(Box::new(|| ()))
}

fn changes(reader: &mut Reader) -> Vec<Change> {
    let mut list = Vec::new();
    reader.catch_up(|change| list.push(change));
    list
}

/// Changes a word of guest memory as a processor does that has its address: whatever the page's
/// attributes say. What it was.
fn change(ram: &GuestRam, gpa: Gpa, new: impl Fn(u64) -> u64) -> u64 {
    loop {
        let old = ram.read_u64(gpa);
        if ram.compare_exchange_u64(gpa, old, new(old)) {
            return old;
        }
    }
}

#[test]
fn every_reader_sees_every_change_of_others_once_and_in_order() {
    let ram = ram();
    let (mut a, mut b) = (silent(&ram), silent(&ram));
    assert_eq!(a.hold_code(Gpa(0x2345)), Some(1));
    assert_eq!(changes(&mut b), [Change::Code { page: Gpa(0x2000) }]);
    ram.wrote(Gpa(0x2ff8), 16);
    ram.wrote(Gpa(0x5000), 8);
    b.wrote(Gpa(0x2100), 4);
    let device = Change::Wrote { gpa: Gpa(0x2ff8), len: 16 };
    assert_eq!(changes(&mut a), [device, Change::Wrote { gpa: Gpa(0x2100), len: 4 }]);
    assert_eq!(changes(&mut b), [device], "its own is no news");
    assert!(!a.is_behind() && !b.is_behind() && changes(&mut a).is_empty());
    assert_eq!(ram.device_writes(), 2, "one of them concerned nobody");
    a.release_code([Gpa(0x2000)]);
    ram.wrote(Gpa(0x2000), 8);
    assert!(!a.is_behind(), "nobody holds code there any more");
}

#[test]
fn a_second_holder_waits_for_what_the_first_has_posted() {
    let ram = ram();
    let (mut a, mut b) = (silent(&ram), silent(&ram));
    assert_eq!(a.hold_code(Gpa(0x1000)), Some(1));
    assert_eq!(b.hold_code(Gpa(0x1000)), Some(1), "not posted again");
    assert_eq!(changes(&mut a), []);
}

#[test]
fn a_reader_that_slept_too_long_is_told_to_drop_everything() {
    let ram = ram();
    let (mut late, mut just) = (silent(&ram), silent(&ram));
    just.hold_code(Gpa(0));
    changes(&mut just);
    (0..REMEMBERED as u64).for_each(|n| ram.wrote(Gpa(n % PAGE), 1));
    assert_eq!(changes(&mut just).len(), REMEMBERED);
    assert_eq!(changes(&mut late), [Change::Everything]);
    assert_eq!((changes(&mut late), late.is_behind()), (vec![], false), "at the present now");
}

#[test]
fn revocation_waits_for_those_that_run_and_for_no_other() {
    let ram = ram();
    let told = Arc::new(AtomicBool::new(false));
    let bell = told.clone();
    let mut runs = ram.reader(Box::new(move || bell.store(true, Ordering::SeqCst)));
    let _parked = silent(&ram);
    ram.revoke(Gpa(0x1000), PAGE).expect("nobody runs");
    assert!(ram.is_absent(Gpa(0x1fff)) && !ram.is_absent(Gpa(0x2000)));
    assert!(!told.load(Ordering::SeqCst), "who does not run is left alone");
    runs.activate();
    assert!(runs.is_behind(), "it catches up before it begins");
    assert_eq!(changes(&mut runs), [Change::Revoke { gpa: Gpa(0x1000), len: PAGE }]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ram.revoke(Gpa(0x3000), 1).expect("not pinned");
            done.store(true, Ordering::SeqCst);
        });
        while !runs.is_behind() {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20));
        assert!(!done.load(Ordering::SeqCst), "nobody has taken note");
        changes(&mut runs);
    });
    assert!(told.load(Ordering::SeqCst));
    ram.restore(Gpa(0x1000), 3 * PAGE).expect("RAM");
    assert!(!ram.has_absent());
}

#[test]
fn what_is_pinned_stays_and_what_is_absent_cannot_be_pinned() {
    let ram = ram();
    let (first, second) =
        (ram.pin(Gpa(0x1ff0), 32).expect("RAM"), ram.pin(Gpa(0x2000), 8).expect("RAM"));
    assert!(matches!(ram.revoke(Gpa(0), 4 * PAGE), Err(Error::Pinned { gpa: Gpa(0x1000) })));
    drop(first);
    assert!(matches!(ram.revoke(Gpa(0), 4 * PAGE), Err(Error::Pinned { gpa: Gpa(0x2000) })));
    assert!(!ram.has_absent(), "nothing was taken");
    drop(second);
    ram.revoke(Gpa(0), 4 * PAGE).expect("nothing is pinned");
    assert!(matches!(ram.pin(Gpa(0x3ff8), 16), Err(Error::Absent { gpa: Gpa(0x3000) })));
    assert!(matches!(ram.pin(Gpa(15 * PAGE), 2 * PAGE), Err(Error::OutsideRam { .. })));
    assert!(matches!(ram.revoke(Gpa(u64::MAX - 8), 64), Err(Error::OutsideRam { .. })));
}

#[test]
fn dirty_pages_are_told_once() {
    let ram = ram();
    ram.wrote(Gpa(0x1000), 8);
    ram.track_dirty();
    assert_eq!(ram.take_dirty(), []);
    ram.wrote(Gpa(0x1ffc), 8);
    ram.touch(&ram.page(Gpa(1 << 32)).expect("RAM"));
    assert_eq!(ram.take_dirty(), [Gpa(0x1000)..Gpa(0x3000), Gpa(1 << 32)..Gpa((1 << 32) + PAGE)]);
    assert_eq!(ram.take_dirty(), []);
    ram.wrote(Gpa(0x2000), 1);
    assert_eq!(ram.take_dirty().first(), Some(&(Gpa(0x2000)..Gpa(0x3000))), "tracked anew");
    ram.stop_tracking();
    ram.wrote(Gpa(0x2000), 1);
    assert_eq!(ram.take_dirty(), []);
}

/// Three processors write through addresses that they keep, as hits in a TLB do, while the page is
/// taken again and again.
#[test]
fn no_store_lands_after_a_page_was_taken() {
    const PROCESSORS: u64 = 3;
    let ram = ram();
    let (stores, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..PROCESSORS {
            scope.spawn(|| {
                let mut reader = silent(&ram);
                let mut kept = false;
                let mut mine = 0;
                while !stop.load(Ordering::Relaxed) {
                    reader.activate();
                    for _ in 0..50 {
                        if reader.is_behind() {
                            reader.catch_up(|_| kept = false);
                        }
                        if !kept {
                            if ram.is_absent(Gpa(0x1000)) {
                                reader.await_page(Gpa(0x1000), |_| ());
                                continue;
                            }
                            kept = true;
                        }
                        change(&ram, Gpa(0x1000), |n| n + 1);
                        mine += 1;
                    }
                    reader.deactivate();
                }
                stores.fetch_add(mine, Ordering::SeqCst);
            });
        }
        let end = Instant::now() + Duration::from_millis(300);
        let mut rounds = 0;
        while Instant::now() < end || rounds < 20 {
            ram.revoke(Gpa(0x1000), PAGE).expect("not pinned");
            let elsewhere = change(&ram, Gpa(0x1000), |_| u64::MAX / 2);
            thread::yield_now();
            let after = change(&ram, Gpa(0x1000), |_| elsewhere);
            assert_eq!(after, u64::MAX / 2, "somebody stored");
            ram.restore(Gpa(0x1000), PAGE).expect("RAM");
            rounds += 1;
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(ram.read_u64(Gpa(0x1000)), stores.load(Ordering::SeqCst));
}

/// Processors that run all wait for each other, over and over: each catches up while it waits.
#[test]
fn those_that_wait_for_each_other_come_through() {
    const ROUNDS: u64 = 2000;
    let ram = ram();
    thread::scope(|scope| {
        for n in 0..4 {
            let ram = &ram;
            scope.spawn(move || {
                let mut reader = silent(ram);
                reader.activate();
                for _ in 0..ROUNDS {
                    if let Some(epoch) = reader.hold_code(Gpa(n * PAGE)) {
                        reader.wait(epoch, |_| ());
                    }
                    reader.release_code([Gpa(n * PAGE)]);
                }
                reader.deactivate();
            });
        }
    });
}

#[test]
fn a_memfd_can_be_mapped_by_others() {
    let ranges = [(Gpa(0), 4 * PAGE), (Gpa(1 << 32), 4 * PAGE)];
    let ram = GuestRam::create(Backing::Memfd, &ranges).expect("memfd_create");
    ram.write(Gpa((1 << 32) + 8), b"hello").expect("RAM");
    let fd = ram.descriptor().expect("it has one").try_clone_to_owned().expect("a descriptor");
    let other = Backing::File { file: File::from(fd), offset: 4 * PAGE, private: false };
    let other = GuestRam::create(other, &[(Gpa(0), 4 * PAGE)]).expect("a mapping");
    let mut text = [0; 5];
    other.read(Gpa(8), &mut text).expect("RAM");
    assert_eq!(&text, b"hello");
    other.write(Gpa(8), b"there").expect("RAM");
    ram.read(Gpa((1 << 32) + 8), &mut text).expect("RAM");
    assert_eq!(&text, b"there");
    let sealed =
        File::from(ram.descriptor().expect("it has one").try_clone_to_owned().expect("one"));
    assert!(sealed.set_len(0).is_err(), "who maps it cannot take it away");
    assert!(self::ram().descriptor().is_none(), "anonymous memory has none");
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile();
    file.write_all(bytes).expect("room");
    file
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("gemello-memory-{:?}", thread::current().id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.expect("a temporary file");
    std::fs::remove_file(path).expect("it was made");
    file
}

#[test]
fn a_private_copy_of_a_file_leaves_it_as_it_is() {
    let mut original = file(&[7; 3 * PAGE as usize]);
    for private in [true, false] {
        let file = original.try_clone().expect("a descriptor");
        let backing = Backing::File { file, offset: PAGE, private };
        let ram =
            GuestRam::create(backing, &[(Gpa(0), PAGE), (Gpa(1 << 20), PAGE)]).expect("a mapping");
        let mut byte = [0];
        ram.read(Gpa(1 << 20), &mut byte).expect("RAM");
        assert_eq!(byte, [7]);
        ram.write(Gpa(1 << 20), &[9]).expect("RAM");
        let mut all = Vec::new();
        original.rewind().expect("a file");
        original.read_to_end(&mut all).expect("a file");
        assert_eq!(all[2 * PAGE as usize], if private { 7 } else { 9 });
    }
}

#[test]
fn a_file_that_is_too_short_is_refused_with_what_to_do() {
    let backing = Backing::File { file: file(&[0; 100]), offset: 0, private: false };
    let error = GuestRam::create(backing, &[(Gpa(0), PAGE)]).expect_err("too short").to_string();
    assert!(
        error.contains("4096 bytes from offset 0") && error.contains("it has 100 bytes"),
        "{error}"
    );
}
