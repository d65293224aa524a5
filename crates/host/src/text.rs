//! The program's own code and constants in memory.
#![allow(unsafe_code)] // Reason: madvise(2).

use rustix::mm::{Advice, madvise};
use std::collections::HashSet;
use std::fs;

/// Lets the host take back the pages of the program's and its libraries' code and constants: what
/// only starting up needed does not come again. What is still needed does, from the page cache, at
/// its next use.
pub fn forget_code() {
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in of_programs(&maps) {
        // SAFETY: the range is a private mapping of a file that nobody may write to, and the kernel
        // has just said that no page of it is another than the file's. So whoever uses one next
        // gets the same from there.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// A mapping of /proc/PID/smaps (proc_pid_smaps(5)).
struct Mapping<'a> {
    range: (usize, usize),
    permissions: &'a str,
    file: &'a str,
    /// KiB of pages that are not the file's any more, in memory or swapped out: relocated ones, for
    /// instance.
    changed: usize,
}

impl<'a> Mapping<'a> {
    /// Of its lines in `text`, which begin with that of its range.
    fn of(text: &'a str) -> Option<Self> {
        let (first, rest) = text.split_once('\n')?;
        let mut words = first.split_ascii_whitespace();
        let (range, permissions) = (words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        let range = address(start).zip(address(end)).filter(|(start, end)| start < end)?;
        let file = first.get(first.find('/')?..)?;
        let field = |name| {
            let value = rest.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_ascii_whitespace().next()?.parse::<usize>().ok()
        };
        let changed = field("Anonymous:")?.checked_add(field("Swap:")?)?;
        Some(Self { range, permissions, file, changed })
    }

    fn is_code(&self) -> bool {
        self.permissions == "r-xp"
    }
}

/// The ranges of `maps` that hold code and constants as they are in their files.
fn of_programs(maps: &str) -> Vec<(usize, usize)> {
    // A field's name begins with a capital.
    let begins = |line: &str| line.starts_with(|c: char| !c.is_ascii_uppercase());
    let mut places: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in maps.split_inclusive('\n') {
        if begins(line) {
            places.push(at);
        }
        at += line.len();
    }
    places.push(maps.len());
    let texts = places.windows(2).map(|pair| &maps[pair[0]..pair[1]]);
    let mappings: Vec<_> = texts.filter_map(Mapping::of).collect();
    let programs: HashSet<&str> = mappings.iter().filter(|m| m.is_code()).map(|m| m.file).collect();
    let kept = |m: &&Mapping<'_>| m.is_code() || m.permissions == "r--p";
    let own = |m: &&Mapping<'_>| m.changed == 0 && programs.contains(m.file);
    mappings.iter().filter(kept).filter(own).map(|m| m.range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-2000 r--p 00000000 fe:00 12     /a b/gemello
Rss:                  48 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
2000-3000 r-xp 00000100 fe:00 12     /a b/gemello
Anonymous:             0 kB
Swap:                  0 kB
3000-4000 r--p 00000200 fe:00 12     /a b/gemello
Anonymous:             4 kB
Swap:                  0 kB
4000-5000 rw-p 00000300 fe:00 12     /a b/gemello
Anonymous:             0 kB
Swap:                  0 kB
5000-6000 r--p 00000000 fe:00 13     /data
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r-xs 00000000 fe:00 14     /memfd:code (deleted)
Anonymous:             0 kB
Swap:                  0 kB
7000-8000 r-xp 00000000 00:00 0      [vdso]
Anonymous:             0 kB
Swap:                  0 kB
8000-9000 r-xp 00000000 fe:00 15     /lib/libc.so.6
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 r-xp 00000000 fe:00 16     /lib/patched.so
Anonymous:             4 kB
Swap:                  0 kB
c000-d000 r--p 00000000 fe:00 16     /lib/patched.so
Anonymous:             0 kB
Swap:                  4 kB
";

    #[test]
    fn only_code_and_constants_that_are_in_their_files_are_meant() {
        let expected = [(0x1000, 0x2000), (0x2000, 0x3000), (0x8000, 0x9000)];
        assert_eq!(of_programs(MAPS), expected);
        assert_eq!(of_programs(""), []);
    }

    #[test]
    fn a_program_goes_on_without_them() {
        let maps = fs::read_to_string("/proc/self/smaps").expect("Linux");
        assert!(of_programs(&maps).len() >= 2, "code and constants of this test: {maps}");
        forget_code();
        assert_eq!(format!("{:?}", of_programs(MAPS).first()), "Some((4096, 8192))");
    }
}
