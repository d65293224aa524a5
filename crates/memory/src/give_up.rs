//! Pages that the guest does not need: given back to the host, and zeros when they are touched
//! again.
//!
//! The mapping stays, so a host address in such a page stays good: what a processor or a device
//! finds there is a new page. What was decoded from it is told stale, as after any write.
#![allow(unsafe_code)] // Reason: madvise on guest pages, whose contents go.

use crate::pager::runs;
use crate::ram::PAGE;
use crate::{GuestRam, PINNED};
use rustix::mm::{Advice, madvise};
use std::io;
use std::ops::Range;
use x86::addr::Gpa;

impl GuestRam {
    /// Gives the whole pages of each range, a guest-physical address and its bytes, back to the
    /// host. Those that are pinned stay as they are, and what is no RAM is nothing. How many bytes
    /// went.
    ///
    /// Not to be called by a processor's thread, nor with a lock held that one may want.
    ///
    /// # Errors
    /// The host refuses; a part may have gone.
    pub fn give_up(&self, ranges: &[(Gpa, u64)]) -> io::Result<u64> {
        let mut pages: Vec<usize> = Vec::new();
        for &(gpa, len) in ranges {
            let Some(first) = gpa.0.checked_next_multiple_of(PAGE) else { continue };
            let end = gpa.saturating_add(len).0 & !(PAGE - 1);
            if first < end {
                pages.extend(self.pages(Gpa(first), end - first));
            }
        }
        pages.retain(|&page| self.attributes().get(page) & PINNED == 0);
        pages.sort_unstable();
        pages.dedup();
        let gone = match self.shared.pager.get() {
            Some(pager) => pager.give_up(self, &pages)?,
            None => self.release(&pages)?,
        };
        let mut bytes = 0;
        for run in &gone {
            let len = run.len() as u64 * PAGE;
            bytes += len;
            self.page_address(run.start).inspect(|&gpa| self.wrote(gpa, len));
        }
        Ok(bytes)
    }

    /// Takes ascending `pages` out of memory, and what backs them.
    fn release(&self, pages: &[usize]) -> io::Result<Vec<Range<usize>>> {
        let runs = runs(self, pages);
        for run in &runs {
            let len = run.len() as u64 * PAGE;
            let host = self.page_address(run.start).and_then(|gpa| self.host_address(gpa, len));
            let host = host.ok_or(io::ErrorKind::InvalidInput)?.cast();
            let forget = |advice| {
                // SAFETY: `host_address` found the range in one live mapping of this object's,
                // which nothing in Rust refers to. Its contents become zeros, or what a private
                // file holds: as if a device had written that.
                unsafe { madvise(host, len as usize, advice) }
            };
            // A hole in a shared file; there is none in anonymous or private memory.
            let holed = self.descriptor().map(|_| forget(Advice::LinuxRemove));
            if holed.is_none_or(|done| done.is_err()) {
                forget(Advice::LinuxDontNeed)?;
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, Change};

    const MIB: u64 = 1 << 20;

    fn of(backing: Backing) -> GuestRam {
        let ram = GuestRam::create(backing, &[(Gpa(0), MIB), (Gpa(2 * MIB), MIB)]).expect("RAM");
        ram.write(Gpa(0), &[7; MIB as usize]).expect("RAM");
        ram.write(Gpa(2 * MIB), &[7; MIB as usize]).expect("RAM");
        ram
    }

    fn byte(ram: &GuestRam, gpa: u64) -> u8 {
        let mut byte = [0];
        ram.read(Gpa(gpa), &mut byte).expect("RAM");
        byte[0]
    }

    #[test]
    fn whole_pages_go_and_come_back_as_zeros() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = of(backing);
            let before = ram.resident().expect("the host tells");
            let given = [(Gpa(0x1001), 0x3000), (Gpa(MIB - 0x2000), 2 * MIB), (Gpa(0x2000), 1)];
            // Pages 2 and 3; two at the first region's end, and all of the second but its last two.
            assert_eq!(ram.give_up(&given).expect("the host does"), 0x4000 + MIB - 0x2000);
            assert_eq!(ram.resident(), Some(before - (0x4000 + MIB - 0x2000)));
            for (gpa, expected) in
                [(0x1FFF, 7), (0x2000, 0), (0x3FFF, 0), (0x4000, 7), (MIB - 1, 0), (2 * MIB, 0)]
            {
                assert_eq!(byte(&ram, gpa), expected, "{gpa:#x}");
            }
            ram.write(Gpa(0x2000), &[9]).expect("RAM");
            assert_eq!(byte(&ram, 0x2000), 9);
        }
    }

    #[test]
    fn no_range_does_harm() {
        let ram = of(Backing::Anonymous);
        for range in [
            (Gpa(MIB), MIB),
            (Gpa(u64::MAX), u64::MAX),
            (Gpa(u64::MAX - 0xFFF), 0x1000),
            (Gpa(0x1000), 0xFFF),
            (Gpa(1 << 63), u64::MAX),
            (Gpa(0), 0),
        ] {
            assert_eq!(ram.give_up(&[range]).expect("nothing is asked of the host"), 0);
        }
        assert_eq!(ram.give_up(&[(Gpa(0), u64::MAX)]).expect("all of it"), 2 * MIB);
    }

    #[test]
    fn what_a_device_holds_stays_and_code_is_told_stale() {
        let ram = of(Backing::Anonymous);
        let pin = ram.hold(Gpa(0x3000), 16).expect("RAM");
        let mut processor = ram.reader(Box::new(|| ()));
        processor.hold_code(Gpa(0x5000));
        assert_eq!(ram.give_up(&[(Gpa(0x2000), 0x4000)]).expect("done"), 0x3000);
        assert_eq!((byte(&ram, 0x3000), byte(&ram, 0x5000)), (7, 0));
        let mut told = Vec::new();
        processor.catch_up(|change| told.push(change));
        assert_eq!(told, [Change::Wrote { gpa: Gpa(0x4000), len: 0x2000 }]);
        processor.release_code([Gpa(0x5000)]);
        drop(pin);
        assert_eq!(ram.give_up(&[(Gpa(0x3000), 0x1000)]).expect("done"), 0x1000);
    }
}
