//! What every table is made of.

use acpi_tables::aml;
use acpi_tables::sdt::Sdt;
use x86::addr::Gpa;

pub(super) const OEM_ID: [u8; 6] = *b"GEMELO";
const OEM_TABLE_ID: [u8; 8] = *b"GEMELLO ";
const OEM_REVISION: u32 = 1;

/// A table with its standard header (5.2.6), `length` bytes long, the rest zero.
pub(super) fn table(signature: [u8; 4], length: u32, revision: u8) -> Sdt {
    Sdt::new(signature, length, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION)
}

/// A byte constant in its own encoding, whatever its value.
pub(super) fn byte(value: u8) -> aml::Byte {
    value
}

/// An address where the tables have 32 bits for it.
pub(super) const fn low(gpa: Gpa) -> u32 {
    gpa.0 as u32
}
