//! How much of guest memory is in the host's: what the host's page tables say
//! (Documentation/admin-guide/mm/pagemap.rst).

use crate::ram::{GuestRam, PAGE};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of an entry; there is one for each page.
const ENTRY: usize = 8;
/// Bit of an entry: the page is present.
const PRESENT: u64 = 1 << 63;

impl GuestRam {
    /// Bytes of the guest's memory that this process has in the host's now; `None` where the host
    /// does not tell.
    pub fn resident(&self) -> Option<u64> {
        let table = File::open("/proc/self/pagemap").ok()?;
        let mut present = 0;
        for region in self.regions() {
            let (host, len) = region.host_range();
            present += in_range(&table, host as u64 / PAGE, len as u64 / PAGE).ok()?;
        }
        Some(present * PAGE)
    }
}

/// How many of `pages` from number `first` on are present.
fn in_range(table: &File, first: u64, pages: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let (mut at, last, mut present) = (first, first + pages, 0);
    while at < last {
        let pages = (buffer.len() / ENTRY).min((last - at) as usize);
        let Some(entries) = buffer.get_mut(..pages * ENTRY) else { break };
        table.read_exact_at(entries, at * ENTRY as u64)?;
        let is_present = |entry: &&[u8; ENTRY]| u64::from_ne_bytes(**entry) & PRESENT != 0;
        present += entries.as_chunks().0.iter().filter(is_present).count() as u64;
        at += pages as u64;
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86::addr::Gpa;

    #[test]
    fn what_was_written_is_resident() {
        let ram = GuestRam::new(&[(Gpa(0), 64 << 20), (Gpa(1 << 32), 8 << 20)]).expect("RAM");
        assert_eq!(ram.resident(), Some(0));
        ram.write(Gpa(1 << 32), &[1; 5 << 20]).expect("RAM");
        ram.write(Gpa(0), &[1]).expect("RAM");
        let resident = ram.resident().expect("the host tells");
        // The host gives huge pages where it likes.
        assert!((5 << 20..=72 << 20).contains(&resident), "{resident}");
        assert!(resident > 5 << 20, "{resident}");
    }
}
