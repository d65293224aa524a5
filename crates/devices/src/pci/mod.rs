//! PCI: one root bus behind a host bridge, with conventional functions on it (PCI Local Bus 3.0;
//! PCI Firmware 3.2 for how a guest gets there).
//!
//! ```text
//! CF8H, CFCH ──┐                            ┌─► host bridge, 00.0
//!              ├─► PciBus ──configuration───┼─► function, 01.0 ─┬─ Config (header, capabilities)
//! ECAM window ─┘      │                     └─► function, 02.0  └─ BARs ─► Decoder
//! memory window ──────┴──loads, stores, to the BAR whose Decoder has the address
//! ```
//! There are no bridges and no further buses. Each slot has one function, which interrupts by MSI-X
//! ([`Msix`]) or by INTA#.
//!
//! A guest may move a BAR at any time, on one processor while another uses it. What a BAR decodes
//! is one atomic word ([`Decoder`]): the function publishes it, the look-up takes no lock. An
//! access that has found its BAR already is carried out as if it had come before the move.
//!
//! What the specifications leave open: an access that is not naturally aligned is split into its
//! halves; one that no function answers reads all-ones and writes nothing (master abort).
//!
//! Locks: a function is a chipset device in the crate's order.

mod bus;
mod config;
mod decoder;
mod function;
mod host_bridge;
mod msix;
pub(crate) mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use bus::{PciBus, PciBusState, PciLayout};
pub(crate) use config::{Config, Identity};
pub use decoder::Decoder;
pub use function::PciFunction;
pub use host_bridge::HostBridgeState;
pub(crate) use msix::Msix;
pub use msix::MsixState;
pub use saved::ConfigState;
