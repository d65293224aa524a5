//! Nothing leads out of the folder: no name, no link, no race, no request that makes no sense.

use crate::client::{Folder, Guest, ROOT, Set, message, words};
use rustix::io::Errno;
use share::Options;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A folder beside a secret.
fn beside_a_secret() -> (Folder, std::path::PathBuf) {
    let outer = Folder::new();
    fs::write(outer.at("secret"), b"secret").expect("written");
    fs::create_dir(outer.at("shared")).expect("made");
    let shared = outer.at("shared");
    (outer, shared)
}

#[test]
fn only_one_component_is_a_name() {
    let (_outer, shared) = beside_a_secret();
    let guest = Guest::new(&shared, Options::default());
    let d = guest.mkdir(ROOT, "d").expect("new");
    let (a, _) = guest.create(ROOT, "a", 0o600).expect("new");
    for name in ["..", ".", "../secret", "/etc/passwd", "d/..", "d/../../secret", "/", "//", "a/"] {
        let all = [
            guest.lookup(ROOT, name).map(drop),
            guest.lookup(d, name).map(drop),
            guest.create(d, name, 0o600).map(drop),
            guest.mkdir(d, name).map(drop),
            guest.mknod(d, name, libc::S_IFREG | 0o600).map(drop),
            guest.symlink(d, name, "x").map(drop),
            guest.link(a, d, name).map(drop),
            guest.unlink(d, name),
            guest.rmdir(d, name),
            guest.rename((d, name), (ROOT, "x"), 0),
            guest.rename((ROOT, "a"), (d, name), 0),
        ];
        assert!(all.iter().all(|found| *found == Err(Errno::INVAL)), "{name}: {all:?}");
    }
    assert_eq!(guest.lookup(ROOT, "").map(drop), Err(Errno::NOENT));
    assert_eq!(guest.lookup(ROOT, &"x".repeat(256)).map(drop), Err(Errno::NAMETOOLONG));
}

#[test]
fn links_are_not_followed() {
    let (outer, shared) = beside_a_secret();
    symlink(outer.at("secret"), shared.join("file")).expect("made");
    symlink(&outer.0, shared.join("folder")).expect("made");
    symlink("/proc/self/root", shared.join("magic")).expect("made");
    let guest = Guest::new(&shared, Options::default());
    for name in ["file", "folder", "magic"] {
        let (node, attr) = guest.lookup(ROOT, name).expect("there");
        assert_eq!(attr.mode & libc::S_IFMT, libc::S_IFLNK, "{name}");
        assert_eq!(guest.open(node, libc::O_RDONLY).map(drop), Err(Errno::ACCESS), "{name}");
        let entries = words().u64(0).u64(0).u64(4096).u64(0).u64(0);
        assert_eq!(guest.ask(28, node, entries), Err(Errno::NOTDIR), "{name}");
        for inside in ["secret", "shared", "etc"] {
            assert_eq!(guest.lookup(node, inside).map(drop), Err(Errno::NOTDIR), "{name}");
            assert_eq!(guest.create(node, inside, 0o600).map(drop), Err(Errno::NOTDIR), "{name}");
        }
        let size = Set { size: 0, ..Set::default() };
        assert_eq!(guest.setattr(node, 1 << 3, size).map(drop), Err(Errno::ACCESS), "{name}");
        assert_eq!(guest.create(ROOT, name, 0o600).map(drop), Err(Errno::EXIST), "{name}");
        // Without O_EXCL: somebody was faster, with a link.
        let arguments = words().u32(libc::O_RDWR as u32).u32(0o600).u64(0).text(name);
        assert_eq!(guest.ask(35, ROOT, arguments), Err(Errno::EXIST), "{name}");
        let _ = guest.setattr(node, 1, Set { mode: 0o777, ..Set::default() });
        guest.setattr(node, 1 << 5, Set { mtime: 1, ..Set::default() }).expect("the link's own");
    }
    let secret = fs::metadata(outer.at("secret")).expect("there");
    assert!(secret.modified().expect("a time").elapsed().expect("past") < Duration::from_secs(999));
    assert_eq!(fs::read(outer.at("secret")).expect("there"), b"secret");
}

/// The host's side exchanges folders and links under the guest's hands.
#[test]
fn no_race_leads_out() {
    let (outer, shared) = beside_a_secret();
    fs::create_dir(outer.at("away")).expect("made");
    fs::write(outer.at("away/x"), b"secret").expect("written");
    let guest = Guest::new(&shared, Options::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                fs::create_dir(shared.join("d")).expect("made");
                fs::write(shared.join("d/x"), b"inside").expect("written");
                std::thread::yield_now();
                fs::remove_dir_all(shared.join("d")).expect("gone");
                symlink(outer.at("away"), shared.join("d")).expect("made");
                std::thread::yield_now();
                fs::remove_file(shared.join("d")).expect("gone");
            }
        });
        let began = Instant::now();
        let mut read = 0;
        while began.elapsed() < Duration::from_millis(700) || read == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the guest never sees the file");
            let Ok((d, _)) = guest.lookup(ROOT, "d") else { continue };
            let x = guest.lookup(d, "x");
            let content = x.and_then(|(x, _)| {
                let handle = guest.open(x, libc::O_RDONLY)?.0;
                let content = guest.read(handle, 0, 100);
                guest.release(handle)?;
                guest.forget(x, 1);
                content
            });
            guest.forget(d, 1);
            if let Ok(content) = content {
                assert_ne!(content, b"secret");
                read += usize::from(content == b"inside");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Bytes that are no requests, and requests about what is not there.
#[test]
fn no_request_does_harm() {
    let (outer, shared) = beside_a_secret();
    for n in 0..4 {
        fs::create_dir(shared.join(format!("d{n}"))).expect("made");
        fs::write(shared.join(format!("d{n}/f")), b"content").expect("written");
    }
    let guest = Guest::new(&shared, Options::default());
    let mut random = Random(7);
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut count = 0_u64;
    while Instant::now() < deadline {
        count += 1;
        let message = message(random.request(), random.below(9000) as usize);
        let room = message.answer.borrow().len();
        assert!(guest.share.serve(&message) <= room);
        if guest.lookup(ROOT, "d0") == Err(Errno::IO) {
            guest.init();
        }
    }
    assert!(count > 1000);
    assert_eq!(fs::read(outer.at("secret")).expect("there"), b"secret");
    assert_eq!(fs::read_dir(&outer.0).expect("a folder").count(), 2);
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A request that is nearly one.
    fn request(&mut self) -> Vec<u8> {
        const NAMES: [&str; 9] = ["d0", "d1", "f", "g", "..", ".", "../secret", "", "x/y"];
        let (opcode, node) = (self.below(53) as u32, self.below(12));
        let mut arguments = words();
        for _ in 0..self.below(8) {
            arguments = match self.below(5) {
                0 => arguments.u64(self.below(9)),
                1 => arguments.u64(self.next()),
                2 => arguments.u32(1 << self.below(32)),
                3 => arguments.text(NAMES[self.below(NAMES.len() as u64) as usize]),
                _ => arguments.u64(0).u64(0),
            };
        }
        let header = words().u32(0).u32(opcode).u64(1).u64(node).u64(0).u64(0);
        let mut request = [header.0, arguments.0].concat();
        if self.below(8) == 0 {
            request.truncate(self.below(60) as usize);
        }
        request
    }
}
