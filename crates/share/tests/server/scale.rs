//! More files than descriptors.

use crate::client::{Folder, Guest, ROOT};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use share::Options;
use std::fs;

const READDIRPLUS: u32 = 44;

/// In a process of its own: the limit is the process's.
#[test]
fn a_tree_needs_no_more_descriptors_than_there_are() {
    if std::env::var_os("SHARE_LIMITED").is_none() {
        let own = std::env::current_exe().expect("this test");
        let mut again = std::process::Command::new(own);
        again.args(["--exact", "scale::a_tree_needs_no_more_descriptors_than_there_are"]);
        let output = again.env("SHARE_LIMITED", "1").output().expect("started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let folder = Folder::new();
    let (directories, files) = (60, 50);
    for d in 0..directories {
        fs::create_dir_all(folder.at(&format!("{d}/sub"))).expect("made");
        for f in 0..files {
            fs::write(folder.at(&format!("{d}/sub/{f}")), d.to_string()).expect("written");
        }
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).expect("lowered");
    let guest = Guest::new(&folder.0, Options::default());
    let mut known = Vec::new();
    for d in 0..directories {
        let (top, _) = guest.lookup(ROOT, &d.to_string()).expect("there");
        let (sub, _) = guest.lookup(top, "sub").expect("there");
        let handle = guest.opendir(sub).expect("open");
        let found = guest.names((sub, handle), 8192, READDIRPLUS);
        guest.closedir(handle);
        known.extend(found.into_iter().filter(|(_, node)| *node != 0).map(|(_, node)| (d, node)));
    }
    assert_eq!(known.len(), directories * files);
    // In an order in which no file is near the one before.
    for n in 0..known.len() {
        let (d, node) = known[n * 997 % known.len()];
        let (handle, _) = guest.open(node, libc::O_RDONLY).expect("found again");
        assert_eq!(guest.read(handle, 0, 9).expect("read"), d.to_string().as_bytes());
        guest.release(handle).expect("open");
    }
    let stats = guest.share.stats();
    assert!(stats.known > 3000 && stats.kept < 64, "{stats:?}");
    let mut open = Vec::new();
    let refused = known.iter().find_map(|(_, node)| match guest.open(*node, libc::O_RDONLY) {
        Ok((handle, _)) => {
            open.push(handle);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(refused, Some(Errno::NFILE), "a guest has not all of the process's descriptors");
    assert!(fs::File::open("/dev/null").is_ok());
    guest.release(open.remove(0)).expect("open");
    guest.open(known[0].1, libc::O_RDONLY).expect("one is free again");
}
