//! Privileges that nothing needs once files are open. Linux keeps them for each thread.

use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Takes from this thread, and from those that it starts from now on, every capability
/// (capabilities(7)) and the right to gain privileges by running a program
/// (`PR_SET_NO_NEW_PRIVS`). There is no way back. The user and groups stay as they are: files are
/// then opened as any process of that user would, root included.
///
/// The bounding set is emptied only by a thread that has `CAP_SETPCAP`; for the others it means
/// nothing any more.
///
/// # Errors
/// The host refuses.
pub fn give_up_privileges() -> Result<()> {
    set_no_new_privs(true)?;
    if capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    match clear_ambient_capability_set() {
        Err(Errno::INVAL) | Ok(()) => {} // there is none before Linux 4.3
        Err(error) => return Err(error),
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn empty_bounding_set() -> Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break, // this host knows no more
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What this thread could do.
    fn mine() -> Vec<String> {
        let wanted = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
        let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
        let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_thread_and_its_children_keep_nothing_and_others_all() {
        let before = mine();
        let bounded = capabilities(None).expect("sets").effective.contains(CapabilitySet::SETPCAP);
        let work = move || {
            give_up_privileges().expect("given up");
            let child = std::thread::spawn(mine).join().expect("a thread");
            (mine(), child)
        };
        let (thread, child) = std::thread::spawn(work).join().expect("a thread");
        for line in thread.iter().chain(&child) {
            let (name, value) = line.split_once(":\t").expect("a value");
            match name {
                "NoNewPrivs" => assert_eq!(value, "1"),
                "CapBnd" if !bounded => {}
                _ => assert_eq!(value, "0000000000000000", "{name}"),
            }
        }
        assert_eq!(mine(), before);
    }
}
