//! Memory larger than its budget keeps what processors and devices write to it.

use memory::{Backing, Error, GuestRam, Pager, PagerStats, Reader, swap_file};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use x86::addr::Gpa;
use x86::bus::PhysicalMemory as _;

const PAGE: u64 = 0x1000;
const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
const BUDGET: u64 = 8 * MIB;

/// Memory in two regions with a pager, whose thread runs.
struct Paged {
    ram: GuestRam,
    pager: Option<Pager>,
    thread: Option<JoinHandle<()>>,
    losses: Arc<Mutex<Vec<String>>>,
}

impl Paged {
    fn new() -> Self {
        Self::on(swap_file(Path::new(env!("CARGO_TARGET_TMPDIR")), SIZE).expect("a swap file"))
    }

    fn on(file: File) -> Self {
        let backing = Backing::File { file, offset: 0, private: false };
        let half = SIZE / 2;
        let ram = GuestRam::create(backing, &[(Gpa(0), half), (Gpa(1 << 32), half)]).expect("RAM");
        let losses = Arc::new(Mutex::new(Vec::new()));
        let told = losses.clone();
        let on_loss = Box::new(move |why: &str| told.lock().expect("losses").push(why.into()));
        let (pager, reclaimer) = Pager::new(&ram, BUDGET, on_loss).expect("a pager");
        let thread = Some(thread::spawn(|| reclaimer.run()));
        Self { ram, pager: Some(pager), thread, losses }
    }

    fn stats(&self) -> PagerStats {
        self.pager.as_ref().expect("a pager").stats()
    }

    /// Bytes of the memory that the host holds now.
    fn resident(&self) -> u64 {
        let fd = self.ram.descriptor().expect("a file").as_raw_fd();
        let inode =
            |path: String| fs::metadata(path).map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        let inode = inode(format!("/proc/self/fd/{fd}")).expect("its inode").to_string();
        let smaps = fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut own = false;
        let mut sum = 0;
        for line in smaps.lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.len() > 4 && fields[0].contains('-') {
                own = fields[4] == inode;
            } else if own && fields[0] == "Rss:" {
                sum += fields[1].parse::<u64>().expect("kB") << 10;
            }
        }
        sum
    }

    /// Ends the pager's thread, which may still be telling; the losses it told.
    fn end(mut self) -> Vec<String> {
        self.stop();
        std::mem::take(&mut *self.losses.lock().expect("losses"))
    }

    fn stop(&mut self) {
        drop(self.pager.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The address of page `n`.
fn page(n: u64) -> Gpa {
    let half = SIZE / 2 / PAGE;
    if n < half { Gpa(n * PAGE) } else { Gpa((1 << 32) + (n - half) * PAGE) }
}

/// A processor that keeps to the protocol.
struct Processor {
    ram: GuestRam,
    reader: Reader,
}

impl Processor {
    fn new(ram: &GuestRam) -> Self {
        let reader = ram.reader(Box::new(|| ()));
        reader.activate();
        Self { ram: ram.clone(), reader }
    }

    /// Changes the word at `gpa`; what it was. `None`: memory is lost.
    fn change(&mut self, gpa: Gpa, new: impl Fn(u64) -> u64) -> Option<u64> {
        loop {
            self.reader.catch_up(|_| ());
            if self.ram.is_absent(gpa) {
                self.reader.await_page(gpa, |_| ());
                self.ram.lost().is_none().then_some(())?;
                continue;
            }
            let old = self.ram.read_u64(gpa);
            if self.ram.compare_exchange_u64(gpa, old, new(old)) {
                return Some(old);
            }
        }
    }
}

impl Processor {
    /// Waits until the gate is open. Nobody waits for this processor meanwhile.
    fn pass<'a>(&mut self, gate: &'a RwLock<()>) -> RwLockReadGuard<'a, ()> {
        loop {
            match gate.try_read() {
                Ok(pass) => return pass,
                Err(_) => self.reader.catch_up(|_| ()),
            }
            thread::yield_now();
        }
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.reader.deactivate();
    }
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn what_was_written_comes_back_and_the_budget_holds() {
    let paged = Paged::new();
    let pages = SIZE / PAGE;
    let end = Instant::now() + Duration::from_secs(4);
    // Nobody touches memory while it is looked at: what is resident is read region by region.
    let gate = &RwLock::new(());
    let most = thread::scope(|scope| {
        // Each has a word of its own in every page, and counts in it.
        for own in 0..2 {
            let ram = &paged.ram;
            scope.spawn(move || {
                let mut processor = Processor::new(ram);
                let mut counts = vec![0_u64; pages as usize];
                let mut seed = own + 1;
                for n in (0..pages).chain((0..).map(move |_| random(&mut seed) % pages)) {
                    let gpa = page(n).wrapping_add(8 * own);
                    let _pass = processor.pass(gate);
                    let was = processor.change(gpa, |old| old + 1).expect("memory");
                    assert_eq!(was, counts[n as usize], "page {n}");
                    counts[n as usize] += 1;
                    if Instant::now() > end {
                        break;
                    }
                }
            });
        }
        // A device, which does not ask.
        let ram = &paged.ram;
        scope.spawn(move || {
            let mut counts = vec![0_u64; pages as usize];
            let mut seed = 9;
            while Instant::now() < end {
                let n = random(&mut seed) % pages;
                let gpa = page(n).wrapping_add(64);
                let pass = gate.read().expect("the gate");
                let mut was = [0; 8];
                ram.read(gpa, &mut was).expect("RAM");
                assert_eq!(u64::from_le_bytes(was), counts[n as usize], "page {n}");
                counts[n as usize] += 1;
                ram.write(gpa, &counts[n as usize].to_le_bytes()).expect("RAM");
                ram.wrote(gpa, 8);
                drop(pass);
                ram.settle();
            }
        });
        let mut most = 0;
        while Instant::now() < end {
            let closed = gate.write().expect("the gate");
            most = most.max(paged.resident());
            drop(closed);
            thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let stats = paged.stats();
    assert!(stats.page_ins > 1000 && stats.page_outs > 1000, "{stats:?}");
    assert!(most > BUDGET / 2 && most <= BUDGET + BUDGET / 50, "{most} bytes, {stats:?}");
}

/// Where the host's disk keeps places for the whole file: what is zero gives none back.
#[test]
fn memory_keeps_its_place_on_the_disk() {
    use std::os::unix::fs::MetadataExt as _;
    let paged = Paged::new();
    let fd = paged.ram.descriptor().expect("a file").as_raw_fd();
    let place = || fs::metadata(format!("/proc/self/fd/{fd}")).expect("there").blocks() * 512;
    assert!(place() >= SIZE, "{}", place());
    let mut processor = Processor::new(&paged.ram);
    for n in 0..SIZE / PAGE {
        assert_eq!(processor.change(page(n), |_| n % 3), Some(0));
        assert_eq!(processor.change(page(n), |_| 0), Some(n % 3));
    }
    assert!(paged.stats().zero > SIZE / 2, "{:?}", paged.stats());
    assert!(place() >= SIZE, "{}", place());
}

#[test]
fn zeros_cost_nothing_and_come_back_as_zeros() {
    let paged = Paged::new();
    let mut processor = Processor::new(&paged.ram);
    let pages = SIZE / PAGE;
    for n in 0..pages {
        assert_eq!(processor.change(page(n), |_| 7), Some(0));
        assert_eq!(processor.change(page(n), |_| 0), Some(7));
    }
    let stats = paged.stats();
    assert!(stats.zero > (SIZE - BUDGET) / 10 * 9 && stats.swapped < SIZE / 20, "{stats:?}");
    for n in 0..pages {
        assert_eq!(processor.change(page(n), |_| 1), Some(0));
    }
}

#[test]
fn a_file_that_is_cut_off_is_told_and_nothing_read_from_it_gets_out() {
    let paged = Paged::new();
    let mut processor = Processor::new(&paged.ram);
    let pages = SIZE / PAGE;
    (0..pages).for_each(|n| assert_eq!(processor.change(page(n), |_| n + 1), Some(0)));
    let fd = paged.ram.descriptor().expect("a file").as_raw_fd();
    let file =
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")).expect("the file");
    file.set_len(0).expect("truncate");
    let lost = (0..pages).any(|n| processor.change(page(n), |old| old).is_none());
    assert!(lost, "somewhere");
    let mut bytes = [0; 8];
    let read = paged.ram.read(page(0), &mut bytes);
    assert!(matches!(read, Err(Error::Lost { .. })), "{read:?}");
    drop(processor); // the pager waits for each that may still use a page
    let told = paged.end();
    assert_eq!(told.len(), 1, "told once");
    assert!(told[0].contains("swap file: Input/output error"), "{told:?}");
}

/// /dev/zero can be mapped as the file can, and refuses what takes pages out.
#[test]
fn a_file_that_takes_nothing_is_told_and_other_machines_go_on() {
    let zero = OpenOptions::new().read(true).write(true).open("/dev/zero").expect("the device");
    let (failing, sound) = (Paged::on(zero), Paged::new());
    let mut processors = [Processor::new(&failing.ram), Processor::new(&sound.ram)];
    let mut write = |own: usize, n: u64| processors[own].change(page(n), |_| n + 1);
    let until = (0..SIZE / PAGE).find(|&n| {
        assert_eq!(write(1, n), Some(0), "the other's");
        write(0, n).is_none()
    });
    assert!(until.is_some_and(|n| n * PAGE > BUDGET / 2), "{until:?}");
    let read = failing.ram.read(page(0), &mut [0; 8]);
    assert!(matches!(read, Err(Error::Lost { .. })), "{read:?}");
    for n in (until.unwrap_or(0) + 1)..SIZE / PAGE {
        assert_eq!(write(1, n), Some(0));
    }
    assert_eq!(write(1, 5), Some(6));
    drop(processors); // the pagers wait for each that may still use a page
    let losses = [failing.end(), sound.end()];
    assert!(losses[0].len() == 1 && losses[1].is_empty(), "{losses:?}");
    assert!(losses[0][0].contains("could not be written to the swap file"), "{losses:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = swap_file(Path::new("/dev/shm"), SIZE).expect_err("in memory");
    assert!(refused.to_string().contains("it is in memory"), "{refused}");
    let refused = swap_file(Path::new("/nonexistent"), SIZE).expect_err("no folder");
    assert!(refused.to_string().contains("/nonexistent"), "{refused}");
    let on_disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let refused = swap_file(on_disk, 1 << 60).expect_err("no room").to_string();
    assert!(refused.contains("1099511627776 MiB") && refused.contains("are free"), "{refused}");
    let ram = GuestRam::new(&[(Gpa(0), SIZE)]).expect("RAM");
    assert!(Pager::new(&ram, BUDGET, Box::new(|_| ())).is_err(), "anonymous memory");
}

/// What a guest gives up leaves memory and the swap file, and is zeros when it is needed again.
#[test]
fn what_is_given_up_is_nowhere() {
    let paged = Paged::new();
    let mut processor = Processor::new(&paged.ram);
    for n in 0..SIZE / PAGE {
        processor.change(page(n), |_| n + 1).expect("not lost");
    }
    let half = SIZE / 2;
    // Twice what may be resident: pages that are there, and pages that are in the file.
    let given: Vec<_> = [(Gpa(0), half), (Gpa(1 << 32), half / 2)].into();
    let pin = paged.ram.hold(Gpa(0x5000), 8).expect("RAM");
    let mut gone = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    // A page that is leaving just now stays, and may be given up again.
    while gone < half + half / 2 - PAGE {
        assert!(Instant::now() < deadline, "{gone} bytes have gone");
        processor.reader.catch_up(|_| ());
        gone = paged.ram.give_up(&given).expect("the host does");
    }
    let stats = paged.stats();
    assert_eq!(stats.zero, half + half / 2 - PAGE);
    assert_eq!(stats.zero + stats.swapped + stats.resident, SIZE);
    for n in 0..SIZE / PAGE {
        let expected = if page(n) != Gpa(0x5000) && n < 9216 { 0 } else { n + 1 };
        let found = processor.change(page(n), |_| 2 * n).expect("not lost");
        assert_eq!(found, expected, "page {n}");
    }
    for n in 0..SIZE / PAGE {
        assert_eq!(processor.change(page(n), |old| old), Some(2 * n), "page {n}");
    }
    drop((pin, processor));
    assert!(paged.end().is_empty());
}
