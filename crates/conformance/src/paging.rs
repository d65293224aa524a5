//! Builds page tables in guest memory (SDM vol. 3, chapter 4), in each of the three formats.

use crate::layout::{RAM, TABLES, USER_CODE};
use memory::GuestRam;
use x86::addr::Gpa;

/// Entry bits.
pub(crate) mod pte {
    pub(crate) const P: u64 = 1 << 0;
    pub(crate) const RW: u64 = 1 << 1;
    pub(crate) const US: u64 = 1 << 2;
    pub(crate) const A: u64 = 1 << 5;
    pub(crate) const D: u64 = 1 << 6;
    pub(crate) const PS: u64 = 1 << 7;
    pub(crate) const G: u64 = 1 << 8;
    /// Reserved while MAXPHYADDR is 51 or less.
    pub(crate) const RESERVED: u64 = 1 << 51;
    pub(crate) const NX: u64 = 1 << 63;
    /// Present and writable, for supervisors.
    pub(crate) const KERNEL: u64 = P | RW;
    /// Present and writable, for all.
    pub(crate) const USER: u64 = P | RW | US;
}

/// Which format CR0, CR4 and EFER select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Two levels of 32-bit entries.
    Legacy,
    /// Three levels of 64-bit entries.
    Pae,
    /// Four levels.
    Long,
}

/// A tree of page tables, the root at [`TABLES`].
#[derive(Debug)]
pub(crate) struct Tables {
    format: Format,
    root: u64,
    next: u64,
    ram: GuestRam,
}

const PAGE: u64 = 0x1000;
/// A user region of 64 KiB inside the identity map.
const USER_END: u64 = USER_CODE + 0x1_0000;

impl Tables {
    /// Maps RAM one to one, the user region for users, all else for supervisors.
    pub(crate) fn identity(ram: &GuestRam, format: Format) -> Self {
        Self::identity_at(ram, format, TABLES)
    }

    /// The same with its root at `root`; 256 KiB from there are used.
    pub(crate) fn identity_at(ram: &GuestRam, format: Format, root: u64) -> Self {
        let mut tables = Self { format, root, next: root + PAGE, ram: ram.clone() };
        for gpa in (0..0x20_0000).step_by(PAGE as usize) {
            let user = (USER_CODE..USER_END).contains(&gpa);
            tables.map(gpa, gpa, if user { pte::USER } else { pte::KERNEL });
        }
        let large = if format == Format::Legacy { 0x40_0000 } else { 0x20_0000 };
        if format == Format::Legacy {
            for gpa in (0x20_0000..0x40_0000).step_by(PAGE as usize) {
                tables.map(gpa, gpa, pte::KERNEL);
            }
        }
        for gpa in (large..RAM).step_by(large as usize) {
            tables.map_large(gpa, gpa, pte::KERNEL);
        }
        tables
    }

    /// What CR3 points to.
    pub(crate) const fn root(&self) -> u64 {
        self.root
    }

    /// Maps the 4 KiB page at `la` to `gpa`.
    pub(crate) fn map(&mut self, la: u64, gpa: u64, flags: u64) {
        let at = self.entry(la, 1);
        self.set(at, gpa | flags);
    }

    /// Maps the large page (2 MiB, or 4 MiB in the legacy format) at `la` to `gpa`.
    pub(crate) fn map_large(&mut self, la: u64, gpa: u64, flags: u64) {
        let at = self.entry(la, 2);
        self.set(at, gpa | flags | pte::PS);
    }

    /// Writes the entry at `gpa`.
    pub(crate) fn set(&self, gpa: u64, value: u64) {
        let bytes = value.to_le_bytes();
        let size = if self.format == Format::Legacy { 4 } else { 8 };
        self.ram.write(Gpa(gpa), &bytes[..size]).expect("page tables lie in RAM");
    }

    /// Where the entry for `la` at `level` (1: page table) lies; tables on the way are made.
    pub(crate) fn entry(&mut self, la: u64, level: u32) -> u64 {
        let (top, bits, size) = match self.format {
            Format::Legacy => (2, 10, 4),
            Format::Pae => (3, 9, 8),
            Format::Long => (4, 9, 8),
        };
        let mut table = self.root;
        for at_level in (level..=top).rev() {
            let index = la >> (12 + bits * (at_level - 1)) & ((1 << bits) - 1);
            let at = table + index * size;
            if at_level == level {
                return at;
            }
            table = self.descend(at, self.format == Format::Pae && at_level == 3);
        }
        table
    }

    /// The table that the entry at `at` points to, made if there is none.
    fn descend(&mut self, at: u64, is_pdpte: bool) -> u64 {
        let mut bytes = [0; 8];
        let size = if self.format == Format::Legacy { 4 } else { 8 };
        self.ram.read(Gpa(at), &mut bytes[..size]).expect("page tables lie in RAM");
        let entry = u64::from_le_bytes(bytes);
        // A large page gives way to an empty table.
        if entry & (pte::P | pte::PS) == pte::P {
            return entry & !0xfff;
        }
        let table = self.next;
        self.next += PAGE;
        self.set(at, table | if is_pdpte { pte::P } else { pte::USER });
        table
    }
}
