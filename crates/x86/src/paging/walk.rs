//! Walking the paging structures of the three modes (SDM vol. 3, 4.3–4.5), reading only.

use super::{MAXPHYADDR, Rights};
use crate::addr::{Gpa, La};
use crate::bus::PhysicalMemory;
use crate::regs::{Cr0, Cr4, Efer};
use crate::state::PagingState;

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const XD: u64 = 1 << 63;

/// Bits 51:12, cut to the physical address width.
const ADDRESS: u64 = ((1 << MAXPHYADDR) - 1) & !0xfff;
/// Bits 51:MAXPHYADDR.
const BEYOND: u64 = ((1 << 52) - 1) & !((1 << MAXPHYADDR) - 1);

/// Which of the paging modes is active (SDM vol. 3, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingMode {
    /// CR0.PG is clear: linear is physical.
    Off,
    /// 32-bit paging, two levels.
    Bits32,
    /// PAE paging, three levels, the first in registers.
    Pae,
    /// 4-level paging.
    FourLevel,
}

impl PagingMode {
    /// The mode `state` selects.
    pub const fn of(state: &PagingState) -> Self {
        if !state.cr0.contains(Cr0::PG) {
            Self::Off
        } else if state.efer.contains(Efer::LMA) {
            Self::FourLevel
        } else if state.cr4.contains(Cr4::PAE) {
            Self::Pae
        } else {
            Self::Bits32
        }
    }
}

/// The name of an entry's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelKind {
    /// Maps 512 GiB.
    Pml4e,
    /// Maps 1 GiB.
    Pdpte,
    /// Maps 2 MiB (4 MiB in 32-bit paging).
    Pde,
    /// Maps 4 KiB.
    Pte,
}

/// One entry met on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Its level.
    pub kind: LevelKind,
    /// Where it lies in guest-physical memory. PAE's PDPTEs are registers: the address they were
    /// loaded from.
    pub gpa: Gpa,
    /// Its value (zero-extended from 32 bits in 32-bit paging).
    pub entry: u64,
}

/// What the last level says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Guest-physical address of the byte.
    pub gpa: Gpa,
    /// Bytes in the page.
    pub page_size: u64,
    /// All levels combined.
    pub rights: Rights,
    /// G, if CR4.PGE.
    pub global: bool,
    /// D.
    pub dirty: bool,
    /// PAT:PCD:PWT.
    pub pat_index: u8,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a page; whether an access is allowed is [`Rights::check`]'s answer.
    Mapped(Mapping),
    /// The last entry listed is not present.
    NotPresent,
    /// The last entry listed has these reserved bits set.
    Reserved(u64),
}

/// Every entry a walk met, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The paging mode.
    pub mode: PagingMode,
    /// How it ended.
    pub end: End,
    levels: [Level; 4],
    count: u8,
}

impl Walk {
    /// The entries in the order met; empty with paging off.
    pub fn levels(&self) -> &[Level] {
        self.levels.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Sets A in every entry met, and D in the last one for a write. False: an entry changed
    /// meanwhile.
    pub(super) fn mark_used<M: PhysicalMemory + ?Sized>(&self, mem: &M, write: bool) -> bool {
        let levels = self.levels();
        levels.iter().enumerate().all(|(i, level)| {
            if self.mode == PagingMode::Pae && level.kind == LevelKind::Pdpte {
                return true; // no A bit there
            }
            let last = i + 1 == levels.len();
            let new = level.entry | A | if write && last { D } else { 0 };
            if new == level.entry {
                true
            } else if self.mode == PagingMode::Bits32 {
                mem.compare_exchange_u32(level.gpa, level.entry as u32, new as u32)
            } else {
                mem.compare_exchange_u64(level.gpa, level.entry, new)
            }
        })
    }
}

/// Walks the structures for `la` without judging or changing anything.
pub fn explain<M: PhysicalMemory + ?Sized>(state: &PagingState, mem: &M, la: La) -> Walk {
    let mode = PagingMode::of(state);
    let mut walker = Walker::new(mode, state);
    let end = match mode {
        PagingMode::Off => walker.off(la),
        PagingMode::Bits32 => walker.bits32(mem, la),
        PagingMode::Pae => walker.pae(mem, la),
        PagingMode::FourLevel => walker.four_level(mem, la),
    };
    Walk { mode, end, levels: walker.levels, count: walker.count }
}

/// The walk under way. Rights start at "everything" and are narrowed by each level.
struct Walker<'a> {
    state: &'a PagingState,
    levels: [Level; 4],
    count: u8,
    rights: Rights,
    /// Bits reserved in every 64-bit entry of this mode.
    reserved: u64,
}

impl<'a> Walker<'a> {
    fn new(mode: PagingMode, state: &'a PagingState) -> Self {
        let xd = if state.efer.contains(Efer::NXE) { 0 } else { XD };
        let reserved = match mode {
            PagingMode::Off | PagingMode::Bits32 => 0,
            PagingMode::Pae => BEYOND | (0x7ff << 52) | xd,
            PagingMode::FourLevel => BEYOND | xd,
        };
        let none = Level { kind: LevelKind::Pte, gpa: Gpa(0), entry: 0 };
        Self { state, levels: [none; 4], count: 0, rights: Rights::ALL, reserved }
    }

    fn off(&self, la: La) -> End {
        End::Mapped(Mapping {
            gpa: Gpa(la.0 & 0xffff_ffff),
            page_size: 0x1000,
            rights: Rights::ALL,
            global: false,
            dirty: true,
            pat_index: 0,
        })
    }

    /// SDM vol. 3, 4.3.
    fn bits32<M: PhysicalMemory + ?Sized>(&mut self, mem: &M, la: La) -> End {
        let pde_gpa = Gpa((self.state.cr3 & 0xffff_f000) | ((la.0 >> 22) & 0x3ff) << 2);
        let pde = u64::from(mem.read_u32(pde_gpa));
        let large = pde & PS != 0 && self.state.cr4.contains(Cr4::PSE);
        // PSE-36: bits 20:13 are address bits 39:32, bit 21 is reserved.
        let reserved = if large { 1 << 21 } else { 0 };
        if let Some(end) = self.meet(LevelKind::Pde, pde_gpa, pde, reserved) {
            return end;
        }
        if large {
            let base = (pde & 0xffc0_0000) | ((pde >> 13) & 0xff) << 32;
            return self.page(pde, base, 4 << 20, la);
        }
        let pte_gpa = Gpa((pde & 0xffff_f000) | ((la.0 >> 12) & 0x3ff) << 2);
        let pte = u64::from(mem.read_u32(pte_gpa));
        match self.meet(LevelKind::Pte, pte_gpa, pte, 0) {
            Some(end) => end,
            None => self.page(pte, pte & 0xffff_f000, 4 << 10, la),
        }
    }

    /// SDM vol. 3, 4.4. The PDPTE carries no rights and was judged when loaded.
    fn pae<M: PhysicalMemory + ?Sized>(&mut self, mem: &M, la: La) -> End {
        let index = ((la.0 >> 30) & 3) as usize;
        let pdpte = self.state.pdpte.get(index).copied().unwrap_or(0);
        self.note(LevelKind::Pdpte, Gpa((self.state.cr3 & 0xffff_ffe0) + 8 * index as u64), pdpte);
        if pdpte & P == 0 {
            return End::NotPresent;
        }
        self.directory(mem, pdpte & ADDRESS, la)
    }

    /// SDM vol. 3, 4.5.
    fn four_level<M: PhysicalMemory + ?Sized>(&mut self, mem: &M, la: La) -> End {
        let (gpa, pml4e) = fetch(mem, self.state.cr3 & ADDRESS, la.0 >> 39);
        if let Some(end) = self.meet(LevelKind::Pml4e, gpa, pml4e, PS) {
            return end;
        }
        let (gpa, pdpte) = fetch(mem, pml4e & ADDRESS, la.0 >> 30);
        let large = pdpte & PS != 0;
        let reserved = if large { 0x3fff_e000 } else { 0 };
        match self.meet(LevelKind::Pdpte, gpa, pdpte, reserved) {
            Some(end) => end,
            None if large => self.page(pdpte, pdpte & ADDRESS & !0x3fff_ffff, 1 << 30, la),
            None => self.directory(mem, pdpte & ADDRESS, la),
        }
    }

    /// The last two levels, alike in PAE and 4-level paging.
    fn directory<M: PhysicalMemory + ?Sized>(&mut self, mem: &M, table: u64, la: La) -> End {
        let (gpa, pde) = fetch(mem, table, la.0 >> 21);
        let large = pde & PS != 0;
        let reserved = if large { 0x1f_e000 } else { 0 };
        if let Some(end) = self.meet(LevelKind::Pde, gpa, pde, reserved) {
            return end;
        }
        if large {
            return self.page(pde, pde & ADDRESS & !0x1f_ffff, 2 << 20, la);
        }
        let (gpa, pte) = fetch(mem, pde & ADDRESS, la.0 >> 12);
        match self.meet(LevelKind::Pte, gpa, pte, 0) {
            Some(end) => end,
            None => self.page(pte, pte & ADDRESS, 4 << 10, la),
        }
    }

    fn note(&mut self, kind: LevelKind, gpa: Gpa, entry: u64) {
        if let Some(slot) = self.levels.get_mut(usize::from(self.count)) {
            *slot = Level { kind, gpa, entry };
            self.count += 1;
        }
    }

    /// Records an entry and combines its rights; `Some` if the walk ends here.
    fn meet(&mut self, kind: LevelKind, gpa: Gpa, entry: u64, reserved: u64) -> Option<End> {
        self.note(kind, gpa, entry);
        if entry & P == 0 {
            return Some(End::NotPresent);
        }
        let bad = entry & (reserved | self.reserved);
        if bad != 0 {
            return Some(End::Reserved(bad));
        }
        self.rights.writable &= entry & RW != 0;
        self.rights.user &= entry & US != 0;
        self.rights.executable &= entry & XD == 0;
        None
    }

    fn page(&mut self, entry: u64, base: u64, page_size: u64, la: La) -> End {
        if self.state.efer.contains(Efer::LMA) {
            self.rights.key = ((entry >> 59) & 15) as u8;
        }
        let pat = if page_size == 4 << 10 { (entry >> 7) & 1 } else { (entry >> 12) & 1 };
        End::Mapped(Mapping {
            gpa: Gpa(base | (la.0 & (page_size - 1))),
            page_size,
            rights: self.rights,
            global: entry & G != 0 && self.state.cr4.contains(Cr4::PGE),
            dirty: entry & D != 0,
            pat_index: ((pat << 2) | ((entry >> 3) & 3)) as u8,
        })
    }
}

/// Entry `index` (its low nine bits) of the 64-bit table at `table`, with its address.
fn fetch<M: PhysicalMemory + ?Sized>(mem: &M, table: u64, index: u64) -> (Gpa, u64) {
    let gpa = Gpa(table | (index & 0x1ff) << 3);
    (gpa, mem.read_u64(gpa))
}
