//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as a large machine needs, and as few as a program that closes all of them copes with.
const ENOUGH: u64 = 16384;

/// Raises the limit that the user has set by default towards the one that is firm. Each connection
/// of a guest's and each file that it has open in a shared folder is a descriptor here.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < wanted) {
        // Where the host refuses, all is as before.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}
