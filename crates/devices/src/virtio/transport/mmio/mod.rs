//! The MMIO transport (virtio 1.2, 4.2): one device on 4 KiB of guest-physical memory and one
//! level-triggered interrupt.
//!
//! Registers take aligned 32-bit accesses (4.2.2.2). What the specification leaves open: any other
//! access to them reads all-ones and writes nothing, as does a register that is not there.

mod interrupt;
mod registers;
mod saved;

pub use registers::VirtioMmio;
pub use saved::MmioState;
