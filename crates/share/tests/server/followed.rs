//! A guest that hears of what the host changes: it goes for long by what it is told, and never by
//! what is so no longer.

use crate::client::{Attr, Folder, Guest, ROOT, attr, u32_at, u64_at, words};
use rustix::io::Errno;
use share::{Cache, Follower, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use test_support::Rng;

/// How long the usual is, and what is followed, in seconds.
const USUAL: u64 = 1;
const LONG: u64 = 3600;
/// After this a further change has another time.
const SETTLED: Duration = Duration::from_millis(30);

fn guest(folder: &Folder) -> Guest {
    Guest::new(&folder.0, Options::default())
}

fn follow(guest: &Guest) -> Follower {
    let mut follower = Follower::new(Arc::clone(&guest.share)).expect("a local folder");
    follower.changes();
    follower
}

/// What LOOKUP tells: the number, 0 if nothing is there, the attributes, and for how many seconds
/// name and attributes are good.
fn lookup(guest: &Guest, parent: u64, name: &str) -> Result<(u64, Attr, [u64; 2]), Errno> {
    let answer = guest.ask(1, parent, words().text(name))?;
    Ok((u64_at(&answer, 0), attr(&answer[40..]), [u64_at(&answer, 16), u64_at(&answer, 24)]))
}

/// What GETATTR tells, and for how many seconds that is good.
fn getattr(guest: &Guest, node: u64) -> Result<(Attr, u64), Errno> {
    let answer = guest.ask(3, node, words().u64(0).u64(0))?;
    Ok((attr(&answer[16..]), u64_at(&answer, 0)))
}

/// The flags of OPENDIR's answer.
fn opendir(guest: &Guest, node: u64) -> u32 {
    let answer = guest.ask(27, node, words().u64(0)).expect("a directory");
    guest.release(u64_at(&answer, 0)).expect("open");
    u32_at(&answer, 8)
}

/// The changes, as text.
fn changes(follower: &mut Follower) -> BTreeSet<String> {
    let changes = follower.changes().into_iter();
    changes.map(|path| String::from_utf8(path).expect("text")).collect()
}

fn set<const N: usize>(paths: [&str; N]) -> BTreeSet<String> {
    paths.into_iter().map(str::to_owned).collect()
}

#[test]
fn what_is_followed_lasts_and_nothing_else() {
    let folder = Folder::new();
    fs::create_dir(folder.at("d")).expect("made");
    fs::write(folder.at("d/a"), "a").expect("written");
    fs::write(folder.at("d/b"), "b").expect("written");
    fs::hard_link(folder.at("d/b"), folder.at("d/c")).expect("linked");
    let guest = guest(&folder);
    let (d, _, lasts) = lookup(&guest, ROOT, "d").expect("d");
    assert_eq!(lasts, [USUAL; 2]);
    let follower = follow(&guest);
    // What is in a directory that nobody has looked into yet may change unheard.
    assert_eq!(lookup(&guest, ROOT, "d").expect("d").2, [LONG, USUAL]);
    assert_eq!(lookup(&guest, d, "a").expect("a").2, [LONG; 2]);
    assert_eq!(lookup(&guest, ROOT, "d").expect("d").2, [LONG; 2]);
    assert_eq!(getattr(&guest, d).expect("d").1, LONG);
    // It may change by another name.
    assert_eq!(lookup(&guest, d, "b").expect("b").2, [LONG, USUAL]);
    assert_eq!(guest.share.stats().watched, 2);
    guest.forget(d, u64::MAX);
    drop(follower);
    assert_eq!(guest.share.stats().watched, 0);
    assert_eq!(lookup(&guest, d, "a").expect("a").2, [USUAL; 2]);
    assert_eq!(getattr(&guest, d).expect("d").1, USUAL);
}

#[test]
fn only_the_usual_cache_is_followed() {
    for (cache, seconds) in [(Cache::None, 0), (Cache::Always, 365 * 86_400)] {
        let folder = Folder::new();
        fs::write(folder.at("a"), "a").expect("written");
        let guest = Guest::new(&folder.0, Options { cache, ..Options::default() });
        let _follower = follow(&guest);
        assert_eq!(lookup(&guest, ROOT, "a").expect("a").2, [seconds; 2]);
    }
}

#[test]
fn every_change_of_the_hosts_is_told_by_its_path() {
    let folder = Folder::new();
    fs::create_dir_all(folder.at("d/e")).expect("made");
    for name in ["d/e/a", "d/e/b", "d/c", "x"] {
        fs::write(folder.at(name), "1").expect("written");
    }
    thread::sleep(SETTLED);
    let guest = guest(&folder);
    let mut follower = follow(&guest);
    let look = || {
        thread::sleep(SETTLED);
        let d = lookup(&guest, ROOT, "d").expect("d").0;
        let e = lookup(&guest, d, "e").expect("e").0;
        for (parent, name) in [(e, "a"), (e, "b"), (d, "c"), (ROOT, "x")] {
            let _ = lookup(&guest, parent, name);
        }
        for node in [ROOT, d, e] {
            let _ = getattr(&guest, node);
        }
    };
    look();
    assert_eq!(changes(&mut follower), set([]));
    fs::write(folder.at("d/e/a"), "22").expect("written");
    assert_eq!(changes(&mut follower), set(["d/e/a"]));
    look();
    fs::set_permissions(folder.at("x"), Permissions::from_mode(0o600)).expect("set");
    assert_eq!(changes(&mut follower), set(["x"]));
    look();
    fs::remove_file(folder.at("d/c")).expect("removed");
    assert_eq!(changes(&mut follower), set(["d", "d/c"]));
    look();
    fs::rename(folder.at("d/e/a"), folder.at("d/e/b")).expect("renamed");
    assert_eq!(changes(&mut follower), set(["d/e", "d/e/a", "d/e/b"]));
    look();
    fs::write(folder.at("new"), "").expect("written");
    assert_eq!(changes(&mut follower), set([""]), "the guest knows no such name");
    look();
    fs::set_permissions(folder.at("d"), Permissions::from_mode(0o700)).expect("set");
    assert_eq!(changes(&mut follower), set(["d"]));
    look();
    fs::rename(folder.at("d"), folder.at("f")).expect("renamed");
    let told = changes(&mut follower);
    assert!(told.is_superset(&set(["", "d", "f"])), "{told:?}");
}

#[test]
fn the_guest_is_not_told_of_what_it_does_itself() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let mut follower = follow(&guest);
    let d = guest.mkdir(ROOT, "d").expect("made");
    assert_eq!(lookup(&guest, d, "none").expect("it is watched").0, 0);
    thread::sleep(SETTLED);
    getattr(&guest, d).expect("there");
    for round in 0..3 {
        let (_, handle) = guest.create(d, "a", 0o644).expect("new");
        guest.write(handle, 0, b"text").expect("written");
        guest.release(handle).expect("open");
        guest.rename((d, "a"), (d, "b"), 0).expect("renamed");
        if round == 1 {
            guest.unlink(d, "b").expect("gone");
        }
        let told = changes(&mut follower);
        assert!(told.is_subset(&set(["d/b"])), "a rename changes what it moves: {told:?}");
    }
    // A name that the guest has removed before, and the host now.
    guest.create(d, "c", 0o644).expect("new");
    guest.unlink(d, "c").expect("gone");
    fs::write(folder.at("d/c"), "").expect("written");
    lookup(&guest, d, "c").expect("c");
    fs::remove_file(folder.at("d/c")).expect("removed");
    assert!(changes(&mut follower).contains("d/c"));
}

#[test]
fn what_has_changed_before_somebody_follows_is_told() {
    let folder = Folder::new();
    fs::write(folder.at("a"), "a").expect("written");
    fs::write(folder.at("b"), "b").expect("written");
    thread::sleep(SETTLED);
    let guest = guest(&folder);
    let follower = follow(&guest);
    for name in ["a", "b"] {
        lookup(&guest, ROOT, name).expect("there");
    }
    drop(follower);
    fs::write(folder.at("a"), "changed").expect("written");
    let mut follower = Follower::new(Arc::clone(&guest.share)).expect("again");
    assert_eq!(changes(&mut follower), set(["a"]));
}

#[test]
fn a_name_that_is_not_there_is_told_when_it_is() {
    let folder = Folder::new();
    fs::create_dir(folder.at("d")).expect("made");
    fs::write(folder.at("x"), "x").expect("written");
    let guest = guest(&folder);
    assert_eq!(lookup(&guest, ROOT, "none").map(drop), Err(Errno::NOENT), "nobody would tell");
    let follower = follow(&guest);
    let look = |follower: &mut Follower| {
        let d = lookup(&guest, ROOT, "d").expect("d").0;
        for (parent, name) in [(ROOT, "none"), (d, "a"), (d, "b"), (d, "c"), (d, "e")] {
            let (node, _, lasts) = lookup(&guest, parent, name).expect("followed");
            assert_eq!((node, lasts), (0, [LONG, 0]), "{name}");
        }
        changes(follower);
    };
    let mut follower = follower;
    look(&mut follower);
    fs::write(folder.at("d/a"), "").expect("written");
    fs::rename(folder.at("x"), folder.at("d/b")).expect("renamed");
    fs::hard_link(folder.at("d/b"), folder.at("d/c")).expect("linked");
    fs::write(folder.at("d/unasked"), "").expect("written");
    let told = changes(&mut follower);
    assert!(told.is_superset(&set(["d/a", "d/b", "d/c"])), "{told:?}");
    assert!(told.is_disjoint(&set(["d/unasked", "d/e", "none"])), "{told:?}");
    // What the guest makes itself, it knows.
    let d = lookup(&guest, ROOT, "d").expect("d").0;
    let e = guest.mkdir(d, "e").expect("made");
    thread::sleep(SETTLED);
    getattr(&guest, e).expect("there");
    assert!(!changes(&mut follower).contains("d/e"));
    fs::remove_dir(folder.at("d/e")).expect("removed");
    for name in ["a", "b", "c"] {
        assert!(lookup(&guest, d, name).expect("there").0 > 0);
        fs::remove_file(folder.at("d").join(name)).expect("removed");
    }
    changes(&mut follower);
    look(&mut follower);
    drop(follower);
    fs::write(folder.at("none"), "").expect("written");
    let mut follower = Follower::new(Arc::clone(&guest.share)).expect("again");
    let told = changes(&mut follower);
    assert!(told.contains("none"), "{told:?}");
    assert!(told.contains("d/a"), "nobody has watched: {told:?}");
}

#[test]
fn who_promises_that_nothing_changes_means_absence_too() {
    let folder = Folder::new();
    let guest = |cache| Guest::new(&folder.0, Options { cache, ..Options::default() });
    let (node, _, lasts) = lookup(&guest(Cache::Always), ROOT, "none").expect("told");
    assert_eq!((node, lasts[0]), (0, 365 * 86_400));
    assert_eq!(lookup(&guest(Cache::None), ROOT, "none").map(drop), Err(Errno::NOENT));
}

#[test]
fn a_directory_is_cached_as_long_as_it_is_the_same() {
    const KEEP: u32 = 1 << 1;
    const CACHE: u32 = 1 << 3;
    let folder = Folder::new();
    fs::create_dir(folder.at("d")).expect("made");
    let guest = guest(&folder);
    guest.init_with(0); // one that opens directories
    let d = guest.lookup(ROOT, "d").expect("d").0;
    assert_eq!(opendir(&guest, d), 0);
    let _follower = follow(&guest);
    getattr(&guest, d).expect("there");
    assert_eq!(opendir(&guest, d), CACHE, "it is new: another change may have the same time");
    thread::sleep(Duration::from_millis(2100));
    getattr(&guest, d).expect("there");
    assert_eq!(opendir(&guest, d), CACHE | KEEP);
    fs::write(folder.at("d/a"), "").expect("written");
    assert_eq!(opendir(&guest, d), CACHE);
}

/// What a guest's kernel would believe, for as long as it was told that it may.
#[derive(Default)]
struct Believed {
    names: BTreeMap<String, u64>,
    absent: BTreeSet<String>,
    attributes: BTreeMap<u64, Attr>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}/{name}") }
}

impl Believed {
    /// Walks to `path` as a kernel does; the last name is looked up in any case if it is `anew`.
    fn walk(&mut self, guest: &Guest, path: &str, anew: bool) -> Option<u64> {
        let (mut node, mut at) = (ROOT, String::new());
        let count = path.split('/').count();
        for (number, name) in path.split('/').enumerate().filter(|(_, name)| !name.is_empty()) {
            at = below(&at, name);
            if let Some(known) = self.names.get(&at).filter(|_| !anew || number + 1 < count) {
                node = *known;
                continue;
            }
            if self.absent.contains(&at) && !(anew && number + 1 == count) {
                return None;
            }
            self.absent.remove(&at);
            let found = lookup(guest, node, name);
            let same = found.as_ref().is_ok_and(|it| self.names.get(&at) == Some(&it.0));
            if !same {
                self.drop_name(&at);
            }
            let (id, attributes, [entry, own]) = found.ok()?;
            if id == 0 {
                assert_eq!(entry, LONG, "else it is an error");
                self.absent.insert(at);
                return None;
            }
            self.take(id, attributes, own);
            if entry == LONG {
                self.names.insert(at.clone(), id);
            }
            node = id;
        }
        if path.is_empty() {
            self.ask(guest, ROOT);
        }
        Some(node)
    }

    fn take(&mut self, node: u64, attributes: Attr, lasts: u64) {
        self.attributes.remove(&node);
        if lasts == LONG {
            self.attributes.insert(node, attributes);
        }
    }

    fn ask(&mut self, guest: &Guest, node: u64) {
        if let Ok((attributes, lasts)) = getattr(guest, node) {
            self.take(node, attributes, lasts);
        }
    }

    /// With all that is below it.
    fn drop_name(&mut self, path: &str) {
        let inside = format!("{path}/");
        self.names.retain(|name, _| name != path && !name.starts_with(&inside));
        self.absent.retain(|name| name != path && !name.starts_with(&inside));
    }

    /// All of it is so.
    fn check(&self, root: &Path, doing: &str) {
        for (path, node) in self.names.iter().chain([(&String::new(), &ROOT)]) {
            let there = fs::symlink_metadata(root.join(path));
            let there = there.unwrap_or_else(|_| panic!("{path} is gone: {doing}"));
            if let Some(it) = self.attributes.get(node) {
                let now = (there.ino(), there.mode(), there.nlink() as u32);
                assert_eq!((it.ino, it.mode, it.links), now, "{path}: {doing}");
                assert_eq!(it.size, there.size(), "{path}: {doing}");
            }
        }
        for path in &self.absent {
            assert!(fs::symlink_metadata(root.join(path)).is_err(), "{path} is there: {doing}");
        }
    }
}

/// What the host does.
fn host_step(rng: &mut Rng, root: &Path, random: impl Fn(&mut Rng) -> String) -> String {
    let (one, other) = (random(rng), random(rng));
    let (path, to) = (root.join(&one), root.join(&other));
    let kind = rng.below(7);
    let _ = match kind {
        0 => fs::create_dir(path),
        1 | 2 => fs::write(path, vec![b'x'; rng.below(50) as usize]),
        3 => fs::remove_file(path),
        4 => fs::rename(path, to),
        5 => fs::set_permissions(path, Permissions::from_mode(0o700 + rng.below(8) as u32)),
        _ => fs::remove_dir_all(path),
    };
    format!("host {kind} {one} {other}")
}

/// What the guest does, and what its kernel then knows that it does not know.
fn guest_step(rng: &mut Rng, guest: &Guest, believed: &mut Believed, path: &str) -> String {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(directory) = believed.walk(guest, parent, false) else { return "nothing".into() };
    let kind = rng.below(4);
    match kind {
        0 => {
            if let Ok((node, handle)) = guest.create(directory, name, 0o644) {
                believed.absent.remove(path);
                believed.attributes.remove(&node);
                let _ = guest.release(handle);
            }
        }
        1 => {
            if let Some(node) = believed.walk(guest, path, false)
                && let Ok((handle, _)) = guest.open(node, libc::O_RDWR)
            {
                let _ = guest.write(handle, rng.below(90), b"text");
                believed.attributes.remove(&node);
                let _ = guest.release(handle);
            }
        }
        2 => {
            let node = believed.names.get(path).copied();
            if guest.unlink(directory, name).is_ok() {
                believed.drop_name(path);
                if let Some(node) = node {
                    believed.attributes.remove(&node);
                }
            }
        }
        _ => {
            let target = NAMES[rng.below(4) as usize];
            if guest.rename((directory, name), (directory, target), 0).is_ok() {
                for it in [name, target] {
                    believed.drop_name(&below(parent, it));
                }
            }
        }
    }
    believed.attributes.remove(&directory);
    format!("guest {kind} {path}")
}

/// Host and guest at work at once: once it has looked anew at what it is told of, the guest
/// believes nothing that is not so.
#[test]
fn a_guest_that_looks_anew_believes_nothing_wrong() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let folder = Folder::new();
        let guest = guest(&folder);
        let mut follower = follow(&guest);
        let mut believed = Believed::default();
        let random = |rng: &mut Rng| {
            let depth = 1 + rng.below(3);
            let names: Vec<_> = (0..depth).map(|_| NAMES[rng.below(4) as usize]).collect();
            names.join("/")
        };
        let mut done = Vec::new();
        for _ in 0..250 {
            let path = random(&mut rng);
            done.push(match rng.below(3) {
                0 => {
                    if let Some(node) = believed.walk(&guest, &path, false) {
                        believed.ask(&guest, node);
                    }
                    format!("look at {path}")
                }
                1 => host_step(&mut rng, &folder.0, random),
                _ => guest_step(&mut rng, &guest, &mut believed, &path),
            });
            for path in changes(&mut follower) {
                believed.walk(&guest, &path, true);
            }
            believed.check(&folder.0, &format!("seed {seed}: {done:#?}"));
        }
        assert!(guest.share.stats().watched > 0);
    }
}
