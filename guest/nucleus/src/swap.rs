//! Secondary memory: pages that are not used move to a disk and come back by page fault.
//!
//! Which page goes is decided by the *clock*: a hand sweeps over the pages of all processes. A page
//! whose accessed bit is set has been used since the hand last came by: the bit is cleared and the
//! page spared. The first page whose bit is still clear goes.

use crate::cpu;
use crate::kernel::Kernel;
use crate::paging::{self, ACCESSED, Entry, PRESENT, SWAPPED, USER_END};
use crate::physical::{Frame, PAGE};
use crate::process::{Pid, Source, State};
use crate::virtio_blk::Disk;
use alloc::vec::Vec;

/// Sectors of a disk (virtio 1.2, 5.2) in a page.
const SECTORS: u64 = PAGE / 512;
/// The hand gives up after so many rounds without finding a page: nothing can be moved.
const ROUNDS: u32 = 3;

#[derive(Default)]
pub struct Swap {
    /// Whether pages may be moved out.
    pub enabled: bool,
    disk: Option<Disk>,
    /// Owners of each slot: after `fork`, there may be several.
    slots: Vec<u8>,
    /// Where the search for a free slot begins.
    next: usize,
    hand: (Pid, u64),
    pub moved_out: u64,
    pub moved_in: u64,
    /// Times that the hand cleared an accessed bit.
    pub spared: u64,
}

/// The slot that an entry of a page on disk names.
pub fn slot(entry: u64) -> usize {
    (paging::target(entry).0 / PAGE) as usize
}

impl Swap {
    /// Uses all of `disk`; slot numbers stay below 2^18 (1 GiB).
    pub fn attach(&mut self, disk: Disk) {
        let slots = (disk.sectors() / SECTORS).min(1 << 18);
        self.slots = alloc::vec![0; slots as usize];
        self.disk = Some(disk);
        self.enabled = true;
    }

    pub fn total(&self) -> usize {
        self.slots.len()
    }

    pub fn used(&self) -> usize {
        self.slots.iter().filter(|&&owners| owners > 0).count()
    }

    pub fn share(&mut self, slot: usize) {
        self.slots[slot] += 1;
    }

    pub fn release(&mut self, slot: usize) {
        self.slots[slot] -= 1;
    }

    pub fn read(&mut self, slot: usize, frame: Frame) -> bool {
        self.moved_in += 1;
        self.disk.as_mut().is_some_and(|disk| disk.read(slot as u64 * SECTORS, frame))
    }

    /// Writes a page to a free slot.
    fn write(&mut self, frame: Frame) -> Option<usize> {
        if !self.enabled {
            return None;
        }
        let count = self.slots.len();
        let slot =
            (self.next..self.next + count).map(|i| i % count).find(|&i| self.slots[i] == 0)?;
        if !self.disk.as_mut()?.write(slot as u64 * SECTORS, frame) {
            return None;
        }
        self.next = (slot + 1) % count;
        self.slots[slot] = 1;
        self.moved_out += 1;
        Some(slot)
    }
}

impl Kernel {
    /// Makes at least one frame free, if that is possible.
    pub fn evict(&mut self) -> bool {
        if self.forget_text() {
            return true;
        }
        let (before, mut rounds) = (self.frames.free(), 0);
        while rounds < ROUNDS {
            let Some((pid, page, place)) = self.under_hand() else {
                self.swap.hand = (0, 0);
                rounds += 1;
                continue;
            };
            self.swap.hand = (pid, page + PAGE);
            let entry = place.get();
            if entry & PRESENT == 0 {
                continue;
            } else if entry & ACCESSED != 0 {
                place.set(entry & !ACCESSED);
                cpu::invlpg(page);
                self.swap.spared += 1;
            } else {
                self.move_out(pid, page, place);
                if self.frames.free() > before {
                    return true;
                }
            }
        }
        false
    }

    /// The next page the hand meets in this round.
    fn under_hand(&self) -> Option<(Pid, u64, Entry)> {
        let (first, from) = self.swap.hand;
        self.processes
            .range(first..)
            .filter(|(_, process)| !matches!(process.state, State::Ended(_)))
            .find_map(|(&pid, process)| {
                let from = if pid == first { from } else { 0 };
                let (page, place) = paging::next_used(process.root, from, USER_END)?;
                Some((pid, page, place))
            })
    }

    fn move_out(&mut self, pid: Pid, page: u64, place: Entry) {
        let region = self.processes.get(&pid).and_then(|p| p.region(page)).copied();
        let frame = paging::target(place.get());
        let image = region.is_some_and(|r| !r.write && matches!(r.source, Source::Image { .. }));
        if image {
            place.set(0); // it can be read from the image again
        } else if let Some(slot) = self.swap.write(frame) {
            place.set((slot as u64 * PAGE) | SWAPPED);
        } else {
            return;
        }
        cpu::invlpg(page);
        self.frames.release(frame);
        if image {
            self.forget_text();
        }
    }

    /// Frees a page of a program's text that nobody has mapped any more.
    fn forget_text(&mut self) -> bool {
        let unused = self.text.iter().find(|(_, frame)| self.frames.owners(**frame) == 1);
        let Some((&key, &frame)) = unused else { return false };
        self.text.remove(&key);
        self.frames.release(frame);
        true
    }
}
