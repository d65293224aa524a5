//! The four PDPTE registers of PAE paging (SDM vol. 3, 4.4.1).

use super::MAXPHYADDR;
use crate::addr::Gpa;
use crate::bus::SystemBus;
use crate::exception::Exception;

const PRESENT: u64 = 1;
/// Bits 1–2, 5–8 and everything from MAXPHYADDR up.
const RESERVED: u64 = 0x1e6 | (u64::MAX << MAXPHYADDR);

/// Judges PDPTEs about to be loaded.
///
/// # Errors
/// #GP(0) if a present one has a reserved bit set.
pub fn check_pdptes(pdpte: &[u64; 4]) -> Result<(), Exception> {
    let bad = pdpte.iter().any(|entry| entry & PRESENT != 0 && entry & RESERVED != 0);
    if bad { Err(Exception::gp(0)) } else { Ok(()) }
}

/// Reads the PDPTEs that `cr3` points at, as MOV to CR3 does under PAE paging, and judges them.
///
/// # Errors
/// As [`check_pdptes`]; nothing is to be loaded then.
pub fn load_pdptes<B: SystemBus + ?Sized>(bus: &mut B, cr3: u64) -> Result<[u64; 4], Exception> {
    let pdpte = bus.read_pdptes(Gpa(cr3 & 0xffff_ffe0));
    check_pdptes(&pdpte)?;
    Ok(pdpte)
}
