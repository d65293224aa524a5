//! Saved and restored, with the folder as it was, and otherwise.

use crate::client::{Folder, Guest, ROOT};
use rustix::io::Errno;
use share::{Follower, Options, Share};
use std::fs;
use std::sync::Arc;

/// The guest goes on with another process's share of the folder.
fn restored(guest: &Guest, folder: &Folder) -> Guest {
    let state = guest.share.save();
    let share = Share::open(&folder.0, Options::default()).expect("shared");
    share.restore(&state);
    assert_eq!(share.save(), state, "nothing is lost");
    Guest { share: share.into() }
}

#[test]
fn what_a_guest_knows_and_has_open_goes_on() {
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    guest.init_with(0); // one that opens directories
    let d = guest.mkdir(ROOT, "d").expect("new");
    let (a, handle) = guest.create(d, "a\u{e9}", 0o600).expect("new");
    guest.write(handle, 0, b"before").expect("written");
    let listing = guest.opendir(d).expect("open");
    let guest = restored(&guest, &folder);
    assert_eq!(guest.read(handle, 0, 100).expect("read"), b"before");
    guest.write(handle, 6, b" and after").expect("written");
    assert_eq!(guest.names((d, listing), 4096, 28).len(), 3);
    assert_eq!(guest.lookup(d, "a\u{e9}").expect("there").0, a);
    assert_eq!(guest.getattr(a).expect("there").size, 16);
    let (new, other) = guest.create(d, "b", 0o600).expect("new");
    assert!(new > a && other > listing, "numbers are not used again");
    guest.release(handle).expect("open");
}

#[test]
fn a_name_that_was_not_there_is_told_after_a_restore() {
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    let mut follower = Follower::new(Arc::clone(&guest.share)).expect("a local folder");
    follower.changes();
    let d = guest.mkdir(ROOT, "d").expect("new");
    for (parent, name) in [(ROOT, "none"), (d, "n\u{e9}")] {
        assert_eq!(guest.lookup(parent, name), Err(Errno::NOENT));
    }
    drop(follower);
    let guest = restored(&guest, &folder);
    let mut follower = Follower::new(Arc::clone(&guest.share)).expect("a local folder");
    let told = follower.changes();
    for name in ["none", "d/n\u{e9}"] {
        assert!(told.contains(name.as_bytes()), "{told:?}");
    }
}

#[test]
fn what_is_not_there_any_more_is_told() {
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    let (gone, one) = guest.create(ROOT, "gone", 0o600).expect("new");
    let (other, two) = guest.create(ROOT, "other", 0o600).expect("new");
    let (_, three) = guest.create(ROOT, "unnamed", 0o600).expect("new");
    guest.unlink(ROOT, "unnamed").expect("gone");
    let state = guest.share.save();
    fs::remove_file(folder.at("gone")).expect("gone");
    fs::write(folder.at("new"), b"another").expect("written");
    fs::rename(folder.at("new"), folder.at("other")).expect("replaced");
    drop(guest);
    let share = Share::open(&folder.0, Options::default()).expect("shared");
    share.restore(&state);
    let guest = Guest { share: share.into() };
    for handle in [one, two, three] {
        assert_eq!(guest.read(handle, 0, 1), Err(Errno::IO));
        guest.release(handle).expect("known");
    }
    for node in [gone, other] {
        assert_eq!(guest.getattr(node), Err(Errno::STALE));
    }
    assert_eq!(guest.lookup(ROOT, "other").expect("the new one").1.size, 7);
}

#[test]
fn a_reset_forgets_all() {
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    let (a, handle) = guest.create(ROOT, "a", 0o600).expect("new");
    guest.share.reset();
    guest.init();
    assert_eq!(guest.read(handle, 0, 1), Err(Errno::BADF));
    assert_eq!(guest.getattr(a), Err(Errno::STALE));
    guest.lookup(ROOT, "a").expect("there");
}
