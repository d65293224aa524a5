//! Guest page tables as the page walk reads them, where some of their pages may be absent.

use memory::GuestRam;
use std::cell::Cell;
use x86::addr::Gpa;
use x86::bus::PhysicalMemory;

/// Page tables of which some may be absent.
pub(crate) struct Tables<'a> {
    pub(crate) ram: &'a GuestRam,
    /// What was looked for and is. The walk's result then means nothing.
    pub(crate) absent: Cell<Option<Gpa>>,
}

impl Tables<'_> {
    fn present(&self, gpa: Gpa) -> bool {
        let absent = self.ram.is_absent(gpa);
        if absent {
            self.absent.set(Some(gpa));
        }
        !absent
    }
}

impl PhysicalMemory for Tables<'_> {
    fn read_u32(&self, gpa: Gpa) -> u32 {
        if self.present(gpa) { self.ram.read_u32(gpa) } else { 0 }
    }

    fn read_u64(&self, gpa: Gpa) -> u64 {
        if self.present(gpa) { self.ram.read_u64(gpa) } else { 0 }
    }

    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> bool {
        !self.present(gpa) || self.ram.compare_exchange_u32(gpa, old, new)
    }

    fn compare_exchange_u64(&self, gpa: Gpa, old: u64, new: u64) -> bool {
        !self.present(gpa) || self.ram.compare_exchange_u64(gpa, old, new)
    }
}
