//! The program's own code in memory.
#![allow(unsafe_code)] // Reason: madvise(2).

use rustix::mm::{Advice, madvise};
use std::fs;

/// Lets the host take back the pages of the program's code: what only starting up needed does not
/// come again. What is still needed does, from the page cache, at its next use.
pub fn forget_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    let Some(name) = fs::read_link("/proc/self/exe")
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
    else {
        return;
    };
    for (start, end) in maps.lines().filter_map(|line| code_of(line, &name)) {
        // SAFETY: the range is a mapping of this program's code, as the kernel has just said. It is
        // private, read-only and from a file, so its pages hold nothing that is not in the file,
        // and whoever runs them next gets them from there.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// The range of the mapping that `line` of /proc/self/maps describes, if it is code of the file
/// `name` (proc_pid_maps(5)).
fn code_of(line: &str, name: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    if permissions != "r-xp" || line.get(line.find('/')?..)? != name {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    address(start).zip(address(end)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_meant() {
        let line = |permissions| format!("55d0-66e0 {permissions} 0100 fe:00 12     /a b/gemello");
        assert_eq!(code_of(&line("r-xp"), "/a b/gemello"), Some((0x55d0, 0x66e0)));
        assert_eq!(code_of(&line("r--p"), "/a b/gemello"), None);
        assert_eq!(code_of(&line("r-xs"), "/a b/gemello"), None);
        assert_eq!(code_of(&line("r-xp"), "/b/gemello"), None);
        assert_eq!(code_of("55d0-66e0 r-xp 0 00:00 0", ""), None);
        forget_code(); // and this goes on
    }
}
