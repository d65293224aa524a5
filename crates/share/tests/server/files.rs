//! Contents, attributes, owners, extended attributes.

use crate::client::{Folder, Guest, ROOT, Set, u32_at, u64_at, words};
use rustix::io::Errno;
use share::{Cache, Options, Owner};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

/// `FOPEN_KEEP_CACHE`.
const KEEP_CACHE: u32 = 1 << 1;
/// `FATTR_*`.
const MODE: u32 = 1 << 0;
const UID: u32 = 1 << 1;
const GID: u32 = 1 << 2;
const SIZE: u32 = 1 << 3;
const MTIME: u32 = 1 << 5;
const FH: u32 = 1 << 6;

fn guest(folder: &Folder) -> Guest {
    Guest::new(&folder.0, Options::default())
}

#[test]
fn what_is_written_is_read_by_both_sides() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (node, handle) = guest.create(ROOT, "a", 0o640).expect("new");
    assert_eq!(guest.write(handle, 0, b"hello").expect("written"), 5);
    assert_eq!(guest.write(handle, 5, b" there").expect("written"), 6);
    assert_eq!(fs::read(folder.at("a")).expect("there"), b"hello there");
    assert_eq!(guest.read(handle, 6, 100).expect("read"), b"there");
    assert_eq!(guest.read(handle, 11, 100).expect("read"), b"");
    let appended = guest.write_with(handle, 0, b"!", libc::O_APPEND);
    assert_eq!(appended.expect("written"), 1);
    assert_eq!(fs::read(folder.at("a")).expect("there"), b"hello there!");
    let attr = guest.getattr(node).expect("there");
    assert_eq!((attr.size, attr.mode & 0o7777), (12, 0o640));
    fs::write(folder.at("b"), b"the host's").expect("written");
    let (node, _) = guest.lookup(ROOT, "b").expect("there");
    let (handle, _) = guest.open(node, libc::O_RDONLY).expect("open");
    assert_eq!(guest.read(handle, 4, 4).expect("read"), b"host");
    assert_eq!(guest.write(handle, 0, b"x"), Err(Errno::BADF));
    guest.release(handle).expect("open");
    assert_eq!(guest.read(handle, 0, 1), Err(Errno::BADF));
    assert_eq!(guest.release(handle), Err(Errno::BADF));
}

/// The guest's own umask has been applied to what it asks for.
#[test]
fn permissions_are_the_guests_and_no_program_of_its_gets_rights_on_the_host() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let mode = |name: &str| fs::metadata(folder.at(name)).expect("there").mode() & 0o7777;
    guest.create(ROOT, "open", 0o666).expect("new");
    assert_eq!(mode("open"), 0o666);
    guest.create(ROOT, "set", 0o6755).expect("new");
    assert_eq!(mode("set"), 0o755);
    let (node, _) = guest.lookup(ROOT, "set").expect("there");
    guest.setattr(node, MODE, Set { mode: 0o6711, ..Set::default() }).expect("set");
    assert_eq!(mode("set"), 0o711);
    let directory = guest.mkdir(ROOT, "d").expect("new");
    guest.setattr(directory, MODE, Set { mode: 0o3777, ..Set::default() }).expect("set");
    assert_eq!(mode("d"), 0o3777);
    guest.mknod(ROOT, "pipe", libc::S_IFIFO | 0o622).expect("new");
    assert_eq!(mode("pipe"), 0o622);
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        assert_eq!(guest.mknod(ROOT, "device", kind | 0o666), Err(Errno::PERM));
    }
    let (pipe, _) = guest.lookup(ROOT, "pipe").expect("there");
    assert_eq!(guest.open(pipe, libc::O_RDONLY), Err(Errno::ACCESS));
    assert_eq!(guest.open(directory, libc::O_RDONLY), Err(Errno::ISDIR));
}

#[test]
fn sizes_and_times_are_set_by_name_and_by_handle() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (node, handle) = guest.create(ROOT, "a", 0o400).expect("new");
    guest.write(handle, 0, b"0123456789").expect("written");
    let set = Set { handle, size: 4, ..Set::default() };
    assert_eq!(guest.setattr(node, SIZE | FH, set).expect("set").size, 4);
    let set = Set { mode: 0o600, mtime: 1_000_000, ..Set::default() };
    guest.setattr(node, MODE | MTIME, set).expect("set");
    let host = fs::metadata(folder.at("a")).expect("there");
    assert_eq!((host.len(), host.mtime(), host.mode() & 0o777), (4, 1_000_000, 0o600));
    let set = Set { size: 7, ..Set::default() };
    assert_eq!(guest.setattr(node, SIZE, set).expect("set").size, 7);
    let directory = guest.mkdir(ROOT, "d").expect("new");
    let set = Set { size: 7, ..Set::default() };
    assert_eq!(guest.setattr(directory, SIZE, set), Err(Errno::ISDIR));
}

#[test]
fn owners_are_shown_as_asked_and_nothing_changes_hands() {
    let folder = Folder::new();
    fs::write(folder.at("mine"), b"").expect("written");
    let host = fs::metadata(folder.at("mine")).expect("there");
    for (owner, uid, gid) in [
        (Owner::User(0), 0, 0),
        (Owner::User(1000), 1000, 1000),
        (Owner::Keep, host.uid(), host.gid()),
    ] {
        let guest = Guest::new(&folder.0, Options { owner, ..Options::default() });
        let (node, attr) = guest.lookup(ROOT, "mine").expect("there");
        assert_eq!((attr.uid, attr.gid), (uid, gid), "{owner:?}");
        let same = Set { uid, gid, ..Set::default() };
        guest.setattr(node, UID | GID, same).expect("as it appears");
        if owner != Owner::Keep {
            for valid in [UID, GID] {
                let other = Set { uid: 77, gid: 77, ..Set::default() };
                assert_eq!(guest.setattr(node, valid, other), Err(Errno::PERM));
            }
        }
        let after = fs::metadata(folder.at("mine")).expect("there");
        assert_eq!((after.uid(), after.gid()), (host.uid(), host.gid()));
    }
    let others = Guest::new("/proc".as_ref(), Options::default());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.at("mine"), Some(4321), Some(4321)).expect("root may");
        let attr = guest(&folder).lookup(ROOT, "mine").expect("there").1;
        assert_eq!((attr.uid, attr.gid), (65534, 65534));
    } else {
        let attr = others.lookup(ROOT, "version").expect("there").1;
        assert_eq!((attr.uid, attr.gid), (65534, 65534));
    }
}

/// What the host has changed is read anew; what it has not is not.
#[test]
fn a_file_that_changed_is_not_taken_from_the_guests_cache() {
    let folder = Folder::new();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let age = |name: &str, by: u64| {
        let file = fs::File::options().write(true).open(folder.at(name)).expect("there");
        file.set_modified(old + Duration::from_secs(by)).expect("set");
    };
    fs::write(folder.at("a"), b"one").expect("written");
    age("a", 0);
    let guest = guest(&folder);
    let (node, _) = guest.lookup(ROOT, "a").expect("there");
    let keeps = |node: u64| guest.open(node, libc::O_RDONLY).expect("open").1 & KEEP_CACHE != 0;
    assert!(keeps(node));
    fs::write(folder.at("a"), b"two").expect("written");
    age("a", 1);
    assert!(!keeps(node), "another time");
    guest.getattr(node).expect("there");
    assert!(keeps(node), "the guest has been told");
    fs::write(folder.at("a"), b"two").expect("written");
    guest.getattr(node).expect("there");
    assert!(!keeps(node), "another change may have the same time");
    let always = Guest::new(&folder.0, Options { cache: Cache::Always, ..Options::default() });
    let (node, _) = always.lookup(ROOT, "a").expect("there");
    assert!(always.open(node, libc::O_RDONLY).expect("open").1 & KEEP_CACHE != 0);
}

#[test]
fn a_read_only_share_changes_nothing() {
    let folder = Folder::new();
    fs::write(folder.at("a"), b"content").expect("written");
    fs::create_dir(folder.at("d")).expect("made");
    let guest = Guest::new(&folder.0, Options { read_only: true, ..Options::default() });
    let (node, _) = guest.lookup(ROOT, "a").expect("there");
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(guest.open(node, flags), Err(Errno::ROFS));
    }
    let (handle, _) = guest.open(node, libc::O_RDONLY).expect("open");
    let refused = [
        guest.write(handle, 0, b"x").map(drop),
        guest.create(ROOT, "new", 0o600).map(drop),
        guest.mkdir(ROOT, "new").map(drop),
        guest.mknod(ROOT, "new", libc::S_IFREG | 0o600).map(drop),
        guest.symlink(ROOT, "new", "a").map(drop),
        guest.link(node, ROOT, "new").map(drop),
        guest.unlink(ROOT, "a"),
        guest.rmdir(ROOT, "d"),
        guest.rename((ROOT, "a"), (ROOT, "b"), 0),
        guest.setattr(node, MODE, Set { mode: 0o777, ..Set::default() }).map(drop),
        guest.setattr(node, SIZE, Set::default()).map(drop),
        guest.ask(12, ROOT, words().u64(ROOT).text("a").text("b")).map(drop),
        guest.ask(21, node, words().u32(1).u32(0).text("user.a").bytes(b"x")).map(drop),
        guest.ask(24, node, words().text("user.a")).map(drop),
        guest.ask(43, 0, words().u64(handle).u64(0).u64(9).u64(0)).map(drop),
        guest.ask(51, ROOT, words().u32(2).u32(0o600).u64(0).text("x")).map(drop),
        guest.ask(47, 0, words().bytes(&[0; 56])).map(drop),
    ];
    assert!(refused.iter().all(|result| *result == Err(Errno::ROFS)), "{refused:?}");
    assert_eq!(guest.read(handle, 0, 100).expect("read"), b"content");
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 2);
}

#[test]
fn attributes_of_users_are_kept_and_others_are_not_there() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (node, _) = guest.create(ROOT, "a", 0o600).expect("new");
    let set = |name: &str| {
        let arguments = words().u32(5).u32(0).text(name).bytes(b"value");
        guest.ask(21, node, arguments).map(drop)
    };
    if set("user.one") == Err(Errno::OPNOTSUPP) {
        return; // nor has the host's file system any
    }
    set("user.two").expect("set");
    for name in ["trusted.one", "security.capability", "system.posix_acl_access", "one", ""] {
        assert_eq!(set(name), Err(Errno::OPNOTSUPP), "{name}");
    }
    let get = |name: &str, room: u32| guest.ask(22, node, words().u32(room).u32(0).text(name));
    assert_eq!(u32_at(&get("user.one", 0).expect("there"), 0), 5);
    assert_eq!(get("user.one", 100).expect("there"), b"value");
    assert_eq!(get("user.one", 4), Err(Errno::RANGE));
    assert_eq!(get("user.three", 100), Err(Errno::NODATA));
    let mut list = guest.ask(23, node, words().u32(4096).u32(0)).expect("a list");
    list.sort_unstable();
    let mut expected = b"user.one\0user.two\0".to_vec();
    expected.sort_unstable();
    assert_eq!(list, expected);
    guest.ask(24, node, words().text("user.two")).expect("gone");
    assert_eq!(get("user.two", 100), Err(Errno::NODATA));
}

#[test]
fn space_is_made_found_and_copied() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (_, handle) = guest.create(ROOT, "a", 0o600).expect("new");
    guest.write(handle, 1 << 20, b"data").expect("written");
    let seek = |offset: u64, whence: u32| {
        let answer = guest.ask(46, 0, words().u64(handle).u64(offset).u32(whence).u32(0));
        answer.map(|answer| u64_at(&answer, 0))
    };
    let data = seek(0, 3).expect("data");
    assert!(data == 0 || data == 1 << 20, "{data}");
    assert_eq!(seek(1 << 20, 4), Ok((1 << 20) + 4));
    assert_eq!(seek(2 << 20, 3), Err(Errno::NXIO));
    assert_eq!(seek(0, 0), Err(Errno::INVAL));
    let (to, other) = guest.create(ROOT, "b", 0o600).expect("new");
    let copy = words().u64(handle).u64(1 << 20).u64(to).u64(other).u64(2).u64(100).u64(0);
    assert_eq!(u32_at(&guest.ask(47, 0, copy).expect("copied"), 0), 4);
    assert_eq!(guest.read(other, 0, 100).expect("read"), b"\0\0data");
    let space = |mode: i32| guest.ask(43, 0, words().u64(other).u64(0).u64(99).u64(mode as u64));
    if space(0) != Err(Errno::OPNOTSUPP) {
        assert_eq!(fs::metadata(folder.at("b")).expect("there").len(), 99);
    }
    assert_eq!(space(libc::FALLOC_FL_COLLAPSE_RANGE), Err(Errno::OPNOTSUPP));
    assert_eq!(space(1 << 20), Err(Errno::OPNOTSUPP));
    for opcode in [20, 30] {
        guest.ask(opcode, 0, words().u64(handle).u64(1)).expect("safe");
        guest.ask(opcode, 0, words().u64(handle).u64(0)).expect("safe");
    }
    guest.ask(50, ROOT, words().u64(0)).expect("safe");
    let statfs = guest.ask(17, ROOT, words()).expect("told");
    assert!(statfs.len() == 80 && u64_at(&statfs, 0) > 0);
}

#[test]
fn what_a_guest_must_say_first_is_asked_for() {
    let folder = Folder::new();
    let guest = guest(&folder);
    guest.ask(38, ROOT, words()).expect("DESTROY");
    assert_eq!(guest.lookup(ROOT, "a").map(drop), Err(Errno::IO));
    guest.init();
    assert_eq!(guest.lookup(ROOT, "a").map(drop), Err(Errno::NOENT));
    for (major, minor) in [(6, 38), (7, 8)] {
        let arguments = words().u32(major).u32(minor).u64(0).bytes(&[0; 48]);
        assert_eq!(guest.ask(26, 0, arguments), Err(Errno::PROTO));
    }
    let newer = guest.ask(26, 0, words().u32(8).u32(0).u64(0).bytes(&[0; 48])).expect("told");
    assert_eq!(u32_at(&newer, 0), 7);
    assert_eq!(guest.ask(9999, ROOT, words()), Err(Errno::NOSYS));
}
