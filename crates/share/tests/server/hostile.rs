//! A hostile guest, while a program of the host's swaps folders, files and links under its hands:
//! nothing beside the folder is opened or changed, as the host's kernel tells (inotify(7)).

use crate::client::{Folder, Guest, ROOT, Set, u64_at, words};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use share::Options;
use std::fs::{self, File};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_support::{Rng, setting};

/// Names of the guest's requests, bad ones included.
const NAMES: [&str; 14] = [
    "d",
    "e",
    "x",
    "away",
    "new",
    "up",
    "out",
    "magic",
    "..",
    ".",
    "../away/x",
    "d/../../away/x",
    "/gemello-nowhere/x",
    "",
];
/// What links lead to.
const TARGETS: [&str; 6] = ["../away", "../../away/x", "..", "/proc/self/root", "/", "d/x"];
const SECRET: &[u8] = b"nobody in the guest may see this";
/// Guests at work at once: requests of several queues.
const THREADS: u64 = 2;

/// What stands beside the folder, and who watches it.
struct Outside {
    watch: OwnedFd,
    files: Vec<PathBuf>,
}

impl Outside {
    /// Watches `files`, and the folders that they are in.
    fn watched(folders: &[&Path], files: Vec<PathBuf>) -> Self {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("a watch");
        let events = WatchFlags::OPEN
            | WatchFlags::ACCESS
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE;
        for path in folders.iter().copied().chain(files.iter().map(PathBuf::as_path)) {
            inotify::add_watch(&watch, path, events).expect("watched");
        }
        Self { watch, files }
    }

    /// That nothing has happened there but in the folder `shared` itself.
    fn check(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.file_name() == Some(c"shared") => {}
                Ok(event) => panic!("{event:?}"),
                Err(Errno::AGAIN) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// That the files are as they were; that opens them, so it is the last word.
    fn is_untouched(&self) {
        for path in &self.files {
            let metadata = fs::metadata(path).expect("there");
            assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (1, 0o640), "{path:?}");
            assert_eq!(fs::read(path).expect("there"), SECRET, "{path:?}");
        }
    }
}

/// Swaps `d` in the folder: a directory, a link out. It goes by no name that the guest may swap.
fn swaps(shared: &Path, over: &AtomicBool) {
    let [d, mine, link] = ["d", "mine", "link"].map(|name| shared.join(name));
    let clear = || {
        let _ = fs::remove_file(&d);
        let _ = fs::remove_dir_all(&d);
    };
    while !over.load(Ordering::Relaxed) {
        let _ = fs::create_dir(&mine);
        let inside = File::options().write(true).create_new(true).open(mine.join("x"));
        let _ = inside.and_then(|mut file| file.write_all(b"inside"));
        clear();
        let _ = fs::rename(&mine, &d);
        std::thread::yield_now();
        let _ = fs::rename(&d, shared.join("e"));
        clear();
        let _ = symlink("../away", &d);
        std::thread::yield_now();
        // A link over a link, in one step.
        let _ = symlink("../away", &link);
        let _ = fs::rename(&link, &d);
        std::thread::yield_now();
    }
}

/// A guest's next request. What it is told of files it uses in later ones.
fn request(guest: &Guest, random: &mut Rng, known: &mut Vec<u64>, open: &mut Vec<u64>) {
    let [one, other] = [(); 2].map(|()| random.pick(known));
    let (node, other) = (random.pick(&[ROOT, ROOT, one]), random.pick(&[ROOT, other]));
    let (name, target) = (random.pick(&NAMES), random.pick(&NAMES));
    let handle = if open.is_empty() || random.below(4) == 0 { 0 } else { random.pick(open) };
    let found = |told: Result<u64, Errno>, list: &mut Vec<u64>| list.extend(told);
    match random.below(22) {
        0..=4 => found(guest.lookup(node, name).map(|(node, _)| node), known),
        5 | 6 => {
            let flags = random.pick(&[0, 1, 2, libc::O_TRUNC | 1]);
            found(guest.open(node, flags).map(|(handle, _)| handle), open);
        }
        7 => found(guest.opendir(node), open),
        8 => {
            let content = guest.read(handle, 0, 4096).unwrap_or_default();
            assert!(!content.starts_with(SECRET), "it is out");
        }
        9 => drop(guest.write(handle, random.below(4096), b"the guest was here")),
        10 => drop(guest.create(node, name, 0o666).map(|(node, handle)| {
            known.push(node);
            open.push(handle);
        })),
        11 => found(guest.mkdir(node, name), known),
        12 => found(guest.symlink(node, name, random.pick(&TARGETS)), known),
        13 => found(guest.link(other, node, name), known),
        14 | 15 => drop(guest.rename((node, name), (other, target), random.pick(&[0, 0, 1, 2]))),
        16 => drop(guest.unlink(node, name)),
        17 => drop(guest.rmdir(node, name)),
        18 => {
            let valid = 1 << random.below(6);
            let set = Set { handle, size: 7, mtime: 1, mode: 0o777, uid: 0, gid: 0 };
            let _ = guest.setattr(node, valid, set);
        }
        19 => drop(guest.mknod(node, name, random.pick(&[libc::S_IFREG, libc::S_IFIFO]) | 0o666)),
        // FALLOCATE, SETXATTR, READDIRPLUS, READLINK
        20 => drop(guest.ask(43, node, words().u64(handle).u64(0).u64(9999).u32(0).u32(0))),
        _ => {
            let value = words().u32(1).u32(0).text("user.a").bytes(b"b");
            drop(guest.ask(21, node, value));
            let entries = words().u64(handle).u64(0).u64(8192).u64(0).u64(0);
            let told = guest.ask(44, node, entries).unwrap_or_default();
            known.extend((told.len() >= 8).then(|| u64_at(&told, 0)).filter(|node| *node != 0));
            drop(guest.ask(5, node, words()));
        }
    }
    if known.len() > 40 {
        guest.forget(known.swap_remove(1 + random.below(39) as usize), 1);
    }
    if open.len() > 20 {
        let _ = guest.release(open.swap_remove(random.below(20) as usize));
    }
}

/// `FUZZ_SECONDS=60` for a minute.
#[test]
fn a_hostile_guest_stays_inside() {
    let length = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(2));
    let outer = Folder::new();
    let (shared, away) = (outer.at("shared"), outer.at("away"));
    fs::create_dir(&shared).and_then(|()| fs::create_dir(&away)).expect("made");
    symlink("..", shared.join("up")).expect("made");
    symlink(&outer.0, shared.join("out")).expect("made");
    symlink("/proc/self/root", shared.join("magic")).expect("made");
    let files = vec![outer.at("x"), away.join("x")];
    for path in &files {
        fs::write(path, SECRET).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("set");
    }
    let guest = Guest::new(&shared, Options::default());
    let outside = Outside::watched(&[&outer.0, &away], files);
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| swaps(&shared, &over));
        let began = Instant::now();
        for number in 0..THREADS {
            let (guest, count, over) = (&guest, &count, &over);
            scope.spawn(move || {
                let mut random = Rng::new(setting("FUZZ_FROM").unwrap_or(1) + number);
                let (mut known, mut open) = (vec![ROOT], Vec::new());
                let mut mine = 0;
                while began.elapsed() < length || mine < 1000 {
                    request(guest, &mut random, &mut known, &mut open);
                    mine += 1;
                }
                count.fetch_add(mine, Ordering::Relaxed);
                over.store(true, Ordering::Relaxed);
            });
        }
        // What happens at the folder itself fills the kernel's list of events.
        while !over.load(Ordering::Relaxed) {
            outside.check();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    outside.check();
    outside.is_untouched();
    let stats = guest.share.stats();
    println!("{} requests, {stats:?}", count.into_inner());
    assert!(stats.written > 0 && stats.read > 0, "{stats:?}: no file was ever used");
}
