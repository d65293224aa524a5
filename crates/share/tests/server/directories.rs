//! Directories that a guest's kernel reads without opening them: it keeps what it has read as long
//! as a directory's time of change is the same.

use crate::client::{Folder, Guest, ROOT, u32_at, u64_at, words};
use rustix::io::Errno;
use share::{Cache, Options, Share};
use std::collections::BTreeSet;
use std::fs;

const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const FSYNCDIR: u32 = 30;

fn filled(folder: &Folder, directory: &str, files: usize) -> BTreeSet<String> {
    fs::create_dir_all(folder.at(directory)).expect("made");
    let names: BTreeSet<_> = (0..files).map(|n| format!("a-name-of-some-length-{n:05}")).collect();
    for name in &names {
        fs::write(folder.at(directory).join(name), b"").expect("written");
    }
    names
}

/// Those that are no dots, each once.
fn all(found: &[(String, u64, u64)]) -> BTreeSet<String> {
    let names = found.iter().map(|(name, _, _)| name.clone());
    let names: BTreeSet<_> = names.filter(|name| !name.starts_with('.')).collect();
    assert_eq!(names.len() + 2, found.len(), "each once");
    names
}

#[test]
fn who_opens_no_directories_is_told_once_and_where_that_is_as_good() {
    let opens = |cache, abilities| {
        let folder = Folder::new();
        let guest = Guest::new(&folder.0, Options { cache, ..Options::default() });
        guest.init_with(abilities);
        let opened = guest.ask(OPENDIR, ROOT, words().u64(0));
        let handle = opened.map(|answer| u64_at(&answer, 0));
        if let Ok(handle) = handle {
            assert_eq!(guest.names((ROOT, handle), 4096, READDIR).len(), 2);
        }
        handle.is_ok()
    };
    assert!(opens(Cache::Auto, 0) && opens(Cache::Always, 0) && opens(Cache::None, u32::MAX));
    assert!(!opens(Cache::Auto, u32::MAX) && !opens(Cache::Always, u32::MAX));
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    guest.ask(FSYNCDIR, ROOT, words().u64(0).u32(0).u32(0)).expect("flushed");
    assert_eq!(guest.ask(READDIR, 99, words().u64(0).u64(0).u64(4096)), Err(Errno::STALE));
}

#[test]
fn names_that_go_while_a_directory_is_read_hide_no_others() {
    let folder = Folder::new();
    let expected = filled(&folder, "d", 2000);
    let guest = Guest::new(&folder.0, Options::default());
    let d = guest.lookup(ROOT, "d").expect("d").0;
    let (mut found, mut removed) = (Vec::new(), 0);
    while guest.more_names((d, 0), 4096, READDIR, &mut found) {
        for (name, _, _) in found[removed..].iter().filter(|(name, ..)| !name.starts_with('.')) {
            guest.unlink(d, name).expect("there");
        }
        removed = found.len();
    }
    assert_eq!(all(&found), expected);
    assert_eq!(fs::read_dir(folder.at("d")).expect("there").count(), 0);
}

#[test]
fn many_are_read_at_once_and_some_after_a_restore() {
    let folder = Folder::new();
    let count = 40;
    let expected: Vec<_> = (0..count).map(|d| filled(&folder, &format!("{d}"), 100 + d)).collect();
    let mut guest = Guest::new(&folder.0, Options::default());
    let nodes: Vec<_> =
        (0..count).map(|d| guest.lookup(ROOT, &d.to_string()).expect("there").0).collect();
    let mut found = vec![Vec::new(); count];
    let mut goes_on = true;
    while goes_on {
        goes_on = false;
        for (found, node) in found.iter_mut().zip(&nodes) {
            goes_on |= guest.more_names((*node, 0), 1024, READDIR, found);
        }
        let state = guest.share.save();
        let share = Share::open(&folder.0, Options::default()).expect("shared");
        share.restore(&state);
        guest = Guest { share: share.into() };
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(&all(found), expected);
    }
    assert_eq!(guest.ask(OPENDIR, ROOT, words().u64(0)), Err(Errno::NOSYS), "as before");
}

/// What the guest keeps was read when the directory had this time of change: another change has
/// another.
#[test]
fn a_change_after_a_directory_was_read_shows_in_its_time() {
    let folder = Folder::new();
    let guest = Guest::new(&folder.0, Options::default());
    let modified = || {
        let answer = guest.ask(3, ROOT, words().u64(0).u64(0)).expect("told");
        (u64_at(&answer, 16 + 32), u32_at(&answer, 16 + 52))
    };
    for number in 0..100 {
        fs::write(folder.at(&format!("{number}")), b"").expect("written");
        let before = modified();
        assert_eq!(guest.names((ROOT, 0), 8192, READDIR).len(), 2 + 2 * number + 1);
        fs::write(folder.at(&format!("{number}-more")), b"").expect("written");
        assert_ne!(modified(), before, "{number}: the guest would go by what it has read");
    }
}
