//! The page walk (SDM vol. 3, chapter 4): the one place where a linear address becomes a physical
//! one.
//!
//! [`translate`] is what a processor does on a TLB miss: walk, judge, set accessed and dirty bits.
//! [`explain`] is the same walk for the curious (inspector, fault reports): every entry it met,
//! nothing changed. Canonicality is the caller's to check ([`La::is_canonical`]), because the
//! exception depends on the segment (vol. 3, 3.3.7.1).
//!
//! Pure: reaches memory only through [`PhysicalMemory`]; entries are updated by compare-exchange,
//! and a lost race walks again (vol. 3, 4.8).

mod pdpte;
mod rights;
mod walk;

use crate::addr::{Gpa, La};
pub use pdpte::{check_pdptes, load_pdptes};
pub use rights::Rights;
pub use walk::{End, Level, LevelKind, Mapping, PagingMode, Walk, explain};

use crate::bus::{Access, AccessKind, PhysicalMemory, Smap};
use crate::exception::Exception;
use crate::state::PagingState;

/// Width of a physical address, as CPUID leaf 80000008H reports it.
pub const MAXPHYADDR: u32 = 46;

/// Bits of the #PF error code (SDM vol. 3, 4.7).
pub mod error_code {
    /// The fault was a violation; otherwise some entry was not present.
    pub const P: u32 = 1 << 0;
    /// The access was a write.
    pub const W: u32 = 1 << 1;
    /// The access was a user-mode access.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set in some entry.
    pub(super) const RSVD: u32 = 1 << 3;
    /// The access was an instruction fetch (only with NXE under PAE or 4-level paging, or with
    /// SMEP).
    pub const I: u32 = 1 << 4;
    /// The protection key forbade it.
    pub const PK: u32 = 1 << 5;
}

/// A linear address translated, with what a TLB must remember to judge later accesses without a
/// walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address of the byte asked for.
    pub gpa: Gpa,
    /// Bytes in the page: 4 KiB, 2 MiB, 4 MiB or 1 GiB.
    pub page_size: u64,
    /// A later write with the same privilege (and AC, CR0, CR4, PKRU) needs no walk: it is allowed
    /// and D is set.
    pub writable_now: bool,
    /// R/W of all levels combined.
    pub writable: bool,
    /// U/S of all levels combined.
    pub user: bool,
    /// No level sets XD.
    pub executable: bool,
    /// G in the last level, and CR4.PGE.
    pub global: bool,
    /// D was set, or is now.
    pub dirty: bool,
    /// Protection key (0 unless 4-level paging).
    pub key: u8,
    /// Index into IA32_PAT: PAT:PCD:PWT of the last level (SDM vol. 3, 4.9.2).
    pub pat_index: u8,
}

/// Translates linear address `la` for `access`, setting accessed bits, and the dirty bit for a
/// write.
///
/// Entries change only if the access is allowed.
///
/// # Errors
/// #PF with its error code and `la` for CR2.
pub fn translate<M: PhysicalMemory + ?Sized>(
    state: &PagingState,
    smap: Smap,
    mem: &M,
    la: La,
    access: Access,
) -> Result<Translation, Exception> {
    let fault = |bits: u32| Exception::pf(la, bits | rights::access_code(state, access));
    loop {
        let walk = explain(state, mem, la);
        let mapping = match walk.end {
            End::NotPresent => return Err(fault(0)),
            End::Reserved(_) => return Err(fault(error_code::P | error_code::RSVD)),
            End::Mapped(mapping) => mapping,
        };
        mapping.rights.check(state, smap, access).map_err(|bits| fault(error_code::P | bits))?;
        let write = access.kind == AccessKind::Write;
        if walk.mark_used(mem, write) {
            let dirty = mapping.dirty || write;
            let later_write = Access { kind: AccessKind::Write, ..access };
            return Ok(Translation {
                gpa: mapping.gpa,
                page_size: mapping.page_size,
                writable_now: dirty && mapping.rights.check(state, smap, later_write).is_ok(),
                writable: mapping.rights.writable,
                user: mapping.rights.user,
                executable: mapping.rights.executable,
                global: mapping.global,
                dirty,
                key: mapping.rights.key,
                pat_index: mapping.pat_index,
            });
        }
    }
}
