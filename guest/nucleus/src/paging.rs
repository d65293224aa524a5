//! Four-level page tables (SDM vol. 3, 4.5): the walk, the entries' bits, and the nucleus's own
//! half.
//!
//! CR3 holds the physical address of the table at the top. Each level's entry points to the table
//! below, the last to the frame; an access needs the right at every level. Nine bits of the address
//! choose the entry at each level:
//!
//! ```text
//!  47     39 38     30 29     21 20     12 11        0
//! |  PML4   |  PDPT   |   PD    |   PT    |  offset   |
//! ```

use crate::frames::Frames;
use crate::physical::{self, DIRECT_MAP, Frame, PAGE};

pub const PRESENT: u64 = 1;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
pub const CACHE_DISABLED: u64 = 1 << 4;
pub const ACCESSED: u64 = 1 << 5;
pub const DIRTY: u64 = 1 << 6;
pub const LARGE: u64 = 1 << 7;
pub const GLOBAL: u64 = 1 << 8;
pub const NO_EXECUTE: u64 = 1 << 63;
/// Ours, in a present entry: writable by right, but shared until someone writes.
pub const COPY_ON_WRITE: u64 = 1 << 9;
/// Ours, in an entry that is not present: the page is on the swap disk, in the slot that the
/// address bits number.
pub const SWAPPED: u64 = 1 << 10;

const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// User addresses lie below; the last page stays free so that no return address can leave the
/// canonical half.
pub const USER_END: u64 = 0x7FFF_FFFF_F000;
/// The nucleus's image is mapped here plus its physical address.
pub const KERNEL: u64 = 0xFFFF_FFFF_8000_0000;

/// Names of the levels, from the top.
pub const LEVELS: [&str; 4] = ["PML4", "PDPT", "PD", "PT"];

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    fn at(table: u64, address: u64, level: usize) -> Self {
        Self(table + (address >> (39 - 9 * level) & 511) * 8)
    }

    pub fn get(self) -> u64 {
        physical::get64(self.0)
    }

    pub fn set(self, value: u64) {
        physical::set64(self.0, value);
    }
}

/// The frame (or table) that an entry points to.
pub fn target(entry: u64) -> Frame {
    Frame(entry & ADDRESS)
}

/// The walk: the entries met from the top down, as far as it goes.
pub fn walk(root: Frame, address: u64) -> impl Iterator<Item = (usize, u64)> {
    let mut table = Some(root.0);
    (0..4).map_while(move |level| {
        let entry = Entry::at(table?, address, level).get();
        let goes_on = entry & PRESENT != 0 && entry & LARGE == 0;
        table = goes_on.then(|| target(entry).0);
        Some((level, entry))
    })
}

/// The place of the last-level entry for a page, if there are tables down to it.
pub fn find(root: Frame, address: u64) -> Option<Entry> {
    let mut table = root.0;
    for level in 0..3 {
        let entry = Entry::at(table, address, level).get();
        if entry & PRESENT == 0 || entry & LARGE != 0 {
            return None;
        }
        table = target(entry).0;
    }
    Some(Entry::at(table, address, 3))
}

/// The same, with tables added where they are missing; `rights` go into the new tables' entries.
pub fn find_or_add(
    root: Frame,
    address: u64,
    rights: u64,
    mut take: impl FnMut() -> Option<Frame>,
) -> Option<Entry> {
    let mut table = root.0;
    for level in 0..3 {
        let place = Entry::at(table, address, level);
        if place.get() & PRESENT == 0 {
            let new = take()?;
            new.zero();
            place.set(new.0 | PRESENT | rights);
        }
        table = target(place.get()).0;
    }
    Some(Entry::at(table, address, 3))
}

/// The first last-level entry in use for a page in `from..to`; empty tables are stepped over whole.
pub fn next_used(root: Frame, from: u64, to: u64) -> Option<(u64, Entry)> {
    let mut address = from;
    'next: while address < to {
        let mut table = root.0;
        for level in 0..3 {
            let entry = Entry::at(table, address, level).get();
            if entry & PRESENT == 0 {
                let span = 1 << (39 - 9 * level);
                address = (address & !(span - 1)) + span;
                continue 'next;
            }
            table = target(entry).0;
        }
        let place = Entry::at(table, address, 3);
        if place.get() != 0 {
            return Some((address, place));
        }
        address += PAGE;
    }
    None
}

/// Frees the tables (not the pages) of a user half, and the root.
pub fn free_tables(root: Frame, frames: &mut Frames) {
    fn free(table: u64, level: usize, entries: u64, frames: &mut Frames) {
        if level < 3 {
            for i in 0..entries {
                let entry = physical::get64(table + i * 8);
                if entry & PRESENT != 0 {
                    free(target(entry).0, level + 1, 512, frames);
                }
            }
        }
        frames.release(Frame(table));
    }
    free(root.0, 0, 256, frames);
}

unsafe extern "C" {
    static image_start: u8;
    static rodata_start: u8;
    static data_start: u8;
    static image_end: u8;
    static kernel_stack_guard: u8;
}

/// Physical address after the nucleus's image.
pub fn image_end_physical() -> u64 {
    (&raw const image_end) as u64 - KERNEL
}

/// Virtual address of the page below the nucleus's stack.
pub fn stack_guard() -> u64 {
    (&raw const kernel_stack_guard) as u64
}

/// The nucleus's half: its image page by page with the rights each part needs, and the direct map.
///
/// All of it global and for level 0 only; every process's table has the same two entries for it.
pub fn kernel_root(frames: &mut Frames, ram_top: u64) -> Frame {
    let mut take = || {
        let frame = frames.take().expect("memory for the nucleus's page tables");
        frame.zero();
        frame
    };
    let root = take();
    let text = (&raw const image_start) as u64..(&raw const rodata_start) as u64;
    let writable = (&raw const data_start) as u64..(&raw const image_end) as u64;
    for page in (text.start..writable.end).step_by(PAGE as usize) {
        let rights = match page {
            _ if page == stack_guard() => continue,
            _ if text.contains(&page) => 0,
            _ if writable.contains(&page) => WRITABLE | NO_EXECUTE,
            _ => NO_EXECUTE,
        };
        let entry = find_or_add(root, page, WRITABLE, || Some(take())).expect("just taken");
        entry.set((page - KERNEL) | rights | PRESENT | GLOBAL);
    }
    let read_only = text.start - KERNEL..writable.start - KERNEL;
    direct_map(root, &read_only, ram_top, take);
    root
}

/// All memory and the devices below 4 GiB, never executable; by 2 MiB pages, but the text's
/// neighbourhood by 4 KiB pages, so that the text cannot be written here either.
fn direct_map(
    root: Frame,
    read_only: &core::ops::Range<u64>,
    ram_top: u64,
    mut take: impl FnMut() -> Frame,
) {
    const BIG: u64 = 2 << 20;
    let common = PRESENT | GLOBAL | NO_EXECUTE;
    for big in (0..ram_top.max(4 << 30)).step_by(BIG as usize) {
        let device = big >= ram_top || (0xC000_0000..1 << 32).contains(&big);
        let cache = if device { WRITE_THROUGH | CACHE_DISABLED } else { 0 };
        let mut table = root.0;
        for level in 0..2 {
            let place = Entry::at(table, DIRECT_MAP + big, level);
            if place.get() == 0 {
                place.set(take().0 | PRESENT | WRITABLE);
            }
            table = target(place.get()).0;
        }
        let place = Entry::at(table, DIRECT_MAP + big, 2);
        if big < read_only.end && read_only.start < big + BIG {
            let small = take();
            place.set(small.0 | PRESENT | WRITABLE);
            for page in (big..big + BIG).step_by(PAGE as usize) {
                let rights = if read_only.contains(&page) { 0 } else { WRITABLE };
                Entry::at(small.0, page, 3).set(page | common | rights);
            }
        } else {
            place.set(big | common | cache | LARGE | WRITABLE);
        }
    }
}

/// A new table for a process: an empty user half, the nucleus's half shared.
pub fn user_root(kernel_root: Frame, root: Frame) {
    root.zero();
    for i in 256..512 {
        physical::set64(root.0 + i * 8, physical::get64(kernel_root.0 + i * 8));
    }
}
