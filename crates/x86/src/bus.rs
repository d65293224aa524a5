//! How the architecture's functions reach memory: two narrow contracts that engines implement.

use crate::addr::{Gpa, La, Width};
use crate::exception::Exception;
use crate::regs::Rflags;
use crate::state::{Flags, PagingState};

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Read data.
    Read,
    /// Write data (also the read half of a read-modify-write).
    Write,
    /// Fetch an instruction.
    Execute,
}

/// With whose rights (SDM vol. 3, 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// CPL 3, explicit.
    User,
    /// CPL 0 to 2, explicit: SMAP is overridden while RFLAGS.AC is set.
    Supervisor,
    /// The processor's own accesses to descriptor tables and TSS: supervisor whatever the CPL, and
    /// no SMAP override.
    Implicit,
}

/// What SMAP says to explicit supervisor accesses (SDM vol. 3, 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smap {
    /// It applies if CR4.SMAP is set.
    Enforced,
    /// RFLAGS.AC is set and overrides it.
    Overridden,
}

impl Smap {
    /// What RFLAGS says.
    #[inline]
    pub const fn of(flags: Flags) -> Self {
        if flags.has(Rflags::AC) { Self::Overridden } else { Self::Enforced }
    }
}

/// One access, as the page walk judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What.
    pub kind: AccessKind,
    /// Whose.
    pub privilege: Privilege,
}

impl Access {
    /// An explicit read at `cpl`.
    pub const fn read(cpl: u8) -> Self {
        Self { kind: AccessKind::Read, privilege: Privilege::at(cpl) }
    }

    /// An explicit write at `cpl`.
    pub const fn write(cpl: u8) -> Self {
        Self { kind: AccessKind::Write, privilege: Privilege::at(cpl) }
    }

    /// An instruction fetch at `cpl`.
    pub const fn fetch(cpl: u8) -> Self {
        Self { kind: AccessKind::Execute, privilege: Privilege::at(cpl) }
    }
}

impl Privilege {
    /// The privilege of an explicit access at `cpl`.
    pub const fn at(cpl: u8) -> Self {
        if cpl == 3 { Self::User } else { Self::Supervisor }
    }
}

/// Guest-physical memory, as the page walk sees it.
///
/// Addresses outside RAM read as all-ones and swallow writes: hardware gives no fault there.
pub trait PhysicalMemory {
    /// The naturally aligned 32-bit word at guest-physical `gpa`.
    fn read_u32(&self, gpa: Gpa) -> u32;
    /// The naturally aligned 64-bit word at guest-physical `gpa`.
    fn read_u64(&self, gpa: Gpa) -> u64;
    /// Atomically replaces `old` by `new`; false if the word was no longer `old`.
    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> bool;
    /// Atomically replaces `old` by `new`; false if the word was no longer `old`.
    fn compare_exchange_u64(&self, gpa: Gpa, old: u64, new: u64) -> bool;
}

/// Linear memory and the translation caches, as the processor's system-level operations see them.
///
/// Implemented by an engine over its TLB. Values are zero-extended.
/// An access may cross a page; a write that would fault on its second page must change nothing.
pub trait SystemBus {
    /// Reads `size` bytes at linear address `la`.
    fn read(&mut self, la: La, size: Width, access: Privilege) -> Result<u64, Exception>;
    /// Writes the low `size` bytes of `value` at linear address `la`.
    fn write(
        &mut self,
        la: La,
        size: Width,
        value: u64,
        access: Privilege,
    ) -> Result<(), Exception>;
    /// Reads quadwords in a row from `la` on, which do not go beyond the end of the address space.
    fn read_quadwords(
        &mut self,
        la: La,
        into: &mut [[u8; 8]],
        access: Privilege,
    ) -> Result<(), Exception> {
        read_each(self, la, into, access)
    }
    /// Writes quadwords in a row, likewise.
    fn write_quadwords(
        &mut self,
        la: La,
        from: &[[u8; 8]],
        access: Privilege,
    ) -> Result<(), Exception> {
        write_each(self, la, from, access)
    }
    /// Verifies that `len` bytes at `la` could be written, without writing: for operations that
    /// must not fail half-way.
    fn probe_write(&mut self, la: La, len: u64, access: Privilege) -> Result<(), Exception>;
    /// Sets bits in the byte at `la` atomically (a descriptor's accessed and busy bits).
    fn fetch_or_u8(&mut self, la: La, bits: u8) -> Result<u8, Exception>;
    /// The paging registers have changed: `state` holds their new value, `effect` what leaves the
    /// TLB.
    fn paging_changed(&mut self, state: &PagingState, effect: TlbEffect);
    /// Reads the four 64-bit PDPTEs at guest-physical `gpa` (PAE paging; SDM vol. 3, 4.4.1).
    fn read_pdptes(&mut self, gpa: Gpa) -> [u64; 4];
}

/// [`SystemBus::read_quadwords`] by an access for each.
pub fn read_each<B: SystemBus + ?Sized>(
    bus: &mut B,
    la: La,
    into: &mut [[u8; 8]],
    access: Privilege,
) -> Result<(), Exception> {
    for (n, word) in (0..).zip(into) {
        *word = bus.read(la.wrapping_add(8 * n), Width::B8, access)?.to_le_bytes();
    }
    Ok(())
}

/// [`SystemBus::write_quadwords`] by an access for each.
pub fn write_each<B: SystemBus + ?Sized>(
    bus: &mut B,
    la: La,
    from: &[[u8; 8]],
    access: Privilege,
) -> Result<(), Exception> {
    for (n, word) in (0..).zip(from) {
        bus.write(la.wrapping_add(8 * n), Width::B8, u64::from_le_bytes(*word), access)?;
    }
    Ok(())
}

/// What a system operation does to cached translations (SDM vol. 3, 4.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlbEffect {
    /// Nothing.
    None,
    /// All translations of the current PCID except global ones.
    FlushCurrent,
    /// All translations except global ones, for every PCID.
    FlushNonGlobal,
    /// Everything.
    FlushAll,
    /// CR3 now names another PCID, whose cached translations (if any) stay valid (bit 63 of the
    /// source).
    SwitchKeep,
    /// CR3 now names another (or the same) PCID, whose non-global translations are to be dropped.
    SwitchFlush,
    /// One page, in the current PCID and all global ones (INVLPG).
    Page(La),
    /// One page in the PCID given, global ones excepted (INVPCID type 0).
    PageOfPcid(u16, La),
    /// All non-global translations of the PCID given (INVPCID type 1).
    Pcid(u16),
}
