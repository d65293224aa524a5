//! Names that come, change and go; what is known and open beyond them; directories.

use crate::client::{Folder, Guest, ROOT, attr, u64_at, words};
use rustix::io::Errno;
use share::Options;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

const READDIR: u32 = 28;
const READDIRPLUS: u32 = 44;

fn guest(folder: &Folder) -> Guest {
    Guest::new(&folder.0, Options::default())
}

#[test]
fn an_open_file_survives_its_name() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (node, handle) = guest.create(ROOT, "a", 0o600).expect("new");
    guest.write(handle, 0, b"kept").expect("written");
    guest.unlink(ROOT, "a").expect("gone");
    assert_eq!(guest.getattr(node).expect("it is open").links, 0);
    assert_eq!(guest.read(handle, 0, 9).expect("read"), b"kept");
    let (second, _) = guest.open(node, libc::O_RDWR).expect("by its number");
    guest.write(second, 4, b"!").expect("written");
    assert_eq!(guest.read(handle, 0, 9).expect("read"), b"kept!");
    guest.release(handle).expect("open");
    guest.release(second).expect("open");
    guest.forget(node, 1);
    assert_eq!(guest.getattr(node), Err(Errno::STALE));
}

/// What was not open is known as long as the guest knows it.
#[test]
fn a_file_without_a_name_is_known_until_it_is_forgotten() {
    let folder = Folder::new();
    fs::write(folder.at("a"), b"").expect("written");
    fs::create_dir(folder.at("d")).expect("made");
    let guest = guest(&folder);
    let (a, d) = (guest.lookup(ROOT, "a").expect("a").0, guest.lookup(ROOT, "d").expect("d").0);
    guest.unlink(ROOT, "a").expect("gone");
    guest.rmdir(ROOT, "d").expect("gone");
    assert_eq!(guest.getattr(a).expect("known").links, 0);
    guest.getattr(d).expect("known");
    assert_eq!(guest.create(d, "x", 0o600).map(drop), Err(Errno::NOENT));
    assert_eq!(guest.lookup(ROOT, "a").map(drop), Err(Errno::NOENT));
    guest.forget(a, u64::MAX);
    assert_eq!(guest.getattr(a), Err(Errno::STALE));
}

#[test]
fn links_are_one_file_and_renames_keep_it() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let (a, _) = guest.create(ROOT, "a", 0o600).expect("new");
    let d = guest.mkdir(ROOT, "d").expect("new");
    assert_eq!(guest.link(a, d, "b"), Ok(a));
    assert_eq!(guest.getattr(a).expect("there").links, 2);
    guest.unlink(ROOT, "a").expect("gone");
    assert_eq!(guest.lookup(d, "b").expect("there").0, a);
    guest.rename((d, "b"), (ROOT, "c"), 0).expect("moved");
    assert_eq!(guest.lookup(ROOT, "c").expect("there").0, a);
    guest.create(ROOT, "e", 0o600).expect("new");
    assert_eq!(guest.rename((ROOT, "c"), (ROOT, "e"), 1), Err(Errno::EXIST));
    let e = guest.lookup(ROOT, "e").expect("there").0;
    guest.rename((ROOT, "c"), (ROOT, "e"), 2).expect("exchanged");
    assert_eq!(guest.lookup(ROOT, "e").expect("there").0, a);
    assert_eq!(guest.lookup(ROOT, "c").expect("there").0, e);
    assert_eq!(guest.rename((ROOT, "c"), (ROOT, "e"), 4), Err(Errno::INVAL));
    guest.rename((ROOT, "c"), (ROOT, "e"), 0).expect("replaced");
    assert_eq!(guest.lookup(ROOT, "e").expect("there").0, e);
    assert_eq!(guest.getattr(a).expect("known").links, 0);
    let link = guest.symlink(ROOT, "l", "/etc/passwd").expect("new");
    assert_eq!(guest.ask(5, link, words()).expect("its target"), b"/etc/passwd");
    assert_eq!(guest.link(link, ROOT, "l2"), Ok(link), "the link itself");
    assert!(fs::symlink_metadata(folder.at("l2")).expect("there").is_symlink());
}

#[test]
fn a_directory_that_the_host_moves_stays_good() {
    let folder = Folder::new();
    fs::create_dir_all(folder.at("a/b")).expect("made");
    fs::write(folder.at("a/b/c"), b"content").expect("written");
    let guest = guest(&folder);
    let a = guest.lookup(ROOT, "a").expect("a").0;
    let b = guest.lookup(a, "b").expect("b").0;
    guest.getattr(b).expect("there");
    fs::rename(folder.at("a/b"), folder.at("moved")).expect("moved");
    fs::create_dir(folder.at("a/b")).expect("made");
    let c = guest.lookup(b, "c").expect("what is in it").0;
    let (handle, _) = guest.open(c, libc::O_RDONLY).expect("open");
    assert_eq!(guest.read(handle, 0, 9).expect("read"), b"content");
    assert_eq!(guest.lookup(ROOT, "moved").expect("there").0, b);
    assert_ne!(guest.lookup(a, "b").expect("there").0, b);
}

/// A new file with the number of an old one is another.
#[test]
fn another_file_of_the_same_name_is_another_file() {
    let folder = Folder::new();
    fs::write(folder.at("a"), b"one").expect("written");
    let guest = guest(&folder);
    let a = guest.lookup(ROOT, "a").expect("a").0;
    fs::write(folder.at("b"), b"two").expect("written");
    fs::rename(folder.at("b"), folder.at("a")).expect("replaced");
    assert_eq!(guest.getattr(a), Err(Errno::STALE), "nothing else is taken for it");
    assert_eq!(guest.open(a, libc::O_RDONLY).map(drop), Err(Errno::STALE));
    let new = guest.lookup(ROOT, "a").expect("a").0;
    assert_ne!(new, a);
    assert_eq!(guest.getattr(new).expect("there").size, 3);
}

#[test]
fn a_file_without_a_name_gets_one() {
    let folder = Folder::new();
    let guest = guest(&folder);
    let flags = (libc::O_RDWR | libc::O_TMPFILE) as u32;
    let arguments = words().u32(flags).u32(0o604).u64(0).text("tmp");
    let answer = match guest.ask(51, ROOT, arguments) {
        Err(Errno::OPNOTSUPP) => return, // the host's file system has none
        answer => answer.expect("new"),
    };
    let (node, handle) = (u64_at(&answer, 0), u64_at(&answer, 128));
    assert_eq!((attr(&answer[40..]).links, attr(&answer[40..]).mode & 0o777), (0, 0o604));
    guest.write(handle, 0, b"ready").expect("written");
    assert_eq!(guest.link(node, ROOT, "named"), Ok(node));
    assert_eq!(fs::read(folder.at("named")).expect("there"), b"ready");
}

#[test]
fn directories_are_read_in_pieces_and_tell_of_their_files() {
    let folder = Folder::new();
    let expected: BTreeSet<String> = (0..500).map(|n| format!("file-{n:04}")).collect();
    for name in &expected {
        fs::write(folder.at(name), b"").expect("written");
    }
    let guest = guest(&folder);
    let handle = guest.opendir(ROOT).expect("open");
    for (opcode, size) in [(READDIR, 4096), (READDIR, 64), (READDIRPLUS, 4096), (READDIRPLUS, 300)]
    {
        let found = guest.names((ROOT, handle), size, opcode);
        let names: BTreeSet<_> = found.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names.len(), found.len(), "each once");
        let (dots, names): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|name| name.starts_with('.'));
        assert_eq!((dots.len(), &names), (2, &expected));
        for (name, node) in found {
            assert_eq!(node != 0, opcode == READDIRPLUS && !name.starts_with('.'), "{name}");
            if node != 0 {
                let number = fs::metadata(folder.at(&name)).expect("there").ino();
                assert_eq!(guest.getattr(node).expect("known").ino, number);
            }
        }
    }
    guest.closedir(handle);
}
