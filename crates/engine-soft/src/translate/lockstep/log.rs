//! The reference's accesses to memory: enough to undo its stores, to replay a part of them, and to
//! know what must not happen.
//!
//! The MMU keeps the log while the reference runs (every access then takes its slow path);
//! [`super::Lockstep`] owns it otherwise.

use crate::observer::{Mapping, Recorder, TlbObserver};
use crate::tlb::PAGE_MASK;
use memory::GuestRam;
use x86::addr::Gpa;
use x86::bus::AccessKind;

/// No instruction that is compared writes more at one place.
const REACH: usize = 64;

/// Memory that one instruction may have written.
pub(super) struct Write {
    gpa: u64,
    len: usize,
    old: [u8; REACH],
    new: [u8; REACH],
}

impl Write {
    /// Whether it put `byte` at `gpa`.
    fn left(&self, gpa: u64, byte: u8) -> bool {
        let at = gpa.wrapping_sub(self.gpa) as usize;
        at < self.len && self.new[at] == byte
    }
}

/// A page as it was before the first store to it.
struct Page {
    gpa: u64,
    before: Box<[u8; PAGE_MASK as usize + 1]>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Log {
    writes: Vec<Write>,
    pages: Vec<Page>,
    /// Pages of earlier recordings, whose memory is used again.
    spare: Vec<Page>,
    /// Linear addresses of data accesses.
    touched: Vec<u64>,
    /// Linear pages that the TLB took from the page tables after a store.
    filled: Vec<u64>,
    forbidden: bool,
}

impl Log {
    /// Begins a recording.
    pub(super) fn clear(&mut self) {
        self.writes.clear();
        self.spare.append(&mut self.pages);
        self.touched.clear();
        self.filled.clear();
        self.forbidden = false;
    }

    /// An access of `kind` reached `gpa` in RAM, and goes no further than its page.
    fn reached(&mut self, ram: &GuestRam, la: u64, gpa: u64, kind: AccessKind) {
        self.touched.push(la);
        if kind != AccessKind::Write {
            return;
        }
        self.keep(ram, gpa & !PAGE_MASK);
        let len = REACH.min((PAGE_MASK + 1 - (gpa & PAGE_MASK)) as usize);
        let mut write = Write { gpa, len, old: [0; REACH], new: [0; REACH] };
        if ram.read(Gpa(gpa), &mut write.old[..len]).is_ok() {
            self.writes.push(write);
        }
    }

    fn keep(&mut self, ram: &GuestRam, gpa: u64) {
        if self.pages.iter().any(|page| page.gpa == gpa) {
            return;
        }
        let mut page = self.spare.pop().unwrap_or_else(|| Page { gpa, before: Box::new([0; _]) });
        page.gpa = gpa;
        if ram.read(Gpa(gpa), &mut page.before[..]).is_ok() {
            self.pages.push(page);
        }
    }

    /// The TLB took `page` from the page tables.
    fn filled(&mut self, page: u64) {
        if !self.writes.is_empty() {
            self.filled.push(page);
        }
    }

    /// The walk for `la` may have marked its entries accessed or dirty. That stays, whatever is
    /// undone: the TLB relies on it.
    fn marked(&mut self, ram: &GuestRam, cr3: u64, la: u64) {
        const MARKS: u8 = 0x60;
        if self.pages.is_empty() {
            return;
        }
        for gpa in tables(ram, cr3, la) {
            let mut low = [0];
            if ram.read(Gpa(gpa), &mut low).is_err() {
                continue;
            }
            let marks = low[0] & MARKS;
            for page in self.pages.iter_mut().filter(|page| page.gpa == gpa & !PAGE_MASK) {
                page.before[(gpa & PAGE_MASK) as usize] |= marks;
            }
            for write in &mut self.writes {
                let at = gpa.wrapping_sub(write.gpa) as usize;
                if at < write.len {
                    write.old[at] |= marks;
                    write.new[at] |= marks;
                }
            }
        }
    }

    pub(super) const fn is_forbidden(&self) -> bool {
        self.forbidden
    }

    /// How many writes there are.
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// An instruction is complete: notes what stands at the places it wrote, `from` the number of
    /// writes before it.
    pub(super) fn complete(&mut self, ram: &GuestRam, from: usize) {
        for write in &mut self.writes[from..] {
            let _ = ram.read(Gpa(write.gpa), &mut write.new[..write.len]);
        }
    }

    /// Makes memory what it was. Only bytes that were changed are written: devices may own their
    /// neighbours.
    pub(super) fn undo(&self, ram: &GuestRam) {
        for write in self.writes.iter().rev() {
            let changed = |at: &usize| write.old[*at] != write.new[*at];
            let Some(first) = (0..write.len).find(changed) else { continue };
            let last = (0..write.len).rfind(changed).unwrap_or(first);
            let _ = ram.write(Gpa(write.gpa + first as u64), &write.old[first..=last]);
        }
    }

    /// Some data access, the `n`th of many.
    pub(super) fn touched(&self, n: usize) -> Option<u64> {
        self.touched.get(n % self.touched.len().max(1)).copied()
    }

    /// Whether page tables were both written and consulted: what the TLB took from them is not so
    /// yet.
    pub(super) fn tables_changed(&self, ram: &GuestRam, cr3: u64) -> bool {
        self.filled.iter().any(|&la| tables(ram, cr3, la).any(|gpa| self.wrote(gpa)))
    }

    fn wrote(&self, gpa: u64) -> bool {
        self.writes.iter().any(|w| w.gpa < gpa + 8 && gpa < w.gpa + w.len as u64)
    }

    /// Changes a byte of the last page written, as a defect of the translator would.
    pub(super) fn spoil(&self, ram: &GuestRam) {
        if let Some(page) = self.pages.last() {
            let mut byte = [0];
            let _ = ram.read(Gpa(page.gpa + 3), &mut byte);
            let _ = ram.write(Gpa(page.gpa + 3), &[byte[0] ^ 1]);
        }
    }

    /// Compares memory with what it is after the first `done` writes. Those up to `begun` may have
    /// happened or not: they are of the instruction that comes next, which will make them again.
    pub(super) fn differences(&self, ram: &GuestRam, done: usize, begun: usize) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut now = [0; PAGE_MASK as usize + 1];
        for page in &self.pages {
            if ram.read(Gpa(page.gpa), &mut now).is_err() {
                continue;
            }
            let mut expected = *page.before;
            for write in self.writes[..done].iter().filter(|w| w.gpa & !PAGE_MASK == page.gpa) {
                let at = (write.gpa & PAGE_MASK) as usize;
                expected[at..at + write.len].copy_from_slice(&write.new[..write.len]);
            }
            if now == expected {
                continue;
            }
            let again = |at: usize, byte: u8| {
                self.writes[done..begun].iter().any(|w| w.left(page.gpa + at as u64, byte))
            };
            for at in (0..now.len()).filter(|&at| now[at] != expected[at] && !again(at, now[at])) {
                found.push(Difference {
                    gpa: page.gpa + at as u64,
                    before: page.before[at],
                    reference: expected[at],
                    translated: now[at],
                });
            }
        }
        found
    }
}

/// What the TLB lost needs no undoing: it may be filled again.
impl TlbObserver for Option<Box<Log>> {
    fn filled(&mut self, mapping: Mapping, _: u64) {
        if let Some(log) = self {
            log.filled(mapping.page);
        }
    }
}

impl Recorder for Option<Box<Log>> {
    fn is_recording(&self) -> bool {
        self.is_some()
    }

    fn marked(&mut self, ram: &GuestRam, cr3: u64, la: u64) {
        if let Some(log) = self {
            log.marked(ram, cr3, la);
        }
    }

    fn reached(&mut self, ram: &GuestRam, la: u64, gpa: u64, kind: AccessKind) {
        if let Some(log) = self {
            log.reached(ram, la, gpa, kind);
        }
    }

    /// The instruction under way does what cannot be undone.
    fn forbids(&mut self) -> bool {
        self.as_mut().is_some_and(|log| {
            log.forbidden = true;
            true
        })
    }
}

/// A byte of memory that differs.
pub(super) struct Difference {
    pub(super) gpa: u64,
    pub(super) before: u8,
    pub(super) reference: u8,
    pub(super) translated: u8,
}

/// The page-table entries that translate `la` in 64-bit mode (SDM vol. 3, 4.5), as far as they are
/// there.
fn tables(ram: &GuestRam, cr3: u64, la: u64) -> impl Iterator<Item = u64> {
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let mut table = Some(cr3 & FRAME);
    [39, 30, 21, 12].into_iter().map_while(move |shift| {
        let gpa = table? + 8 * (la >> shift & 511);
        let mut entry = [0; 8];
        let present = ram.read(Gpa(gpa), &mut entry).is_ok() && entry[0] & 1 != 0;
        table = present.then(|| u64::from_le_bytes(entry) & FRAME);
        Some(gpa)
    })
}
