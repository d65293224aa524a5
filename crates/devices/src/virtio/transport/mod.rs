//! Transports: how a driver reaches a device. What they share is in `common` and `negotiation`; a
//! transport of its own has registers and a way to interrupt.

mod common;
mod mmio;
mod negotiation;
mod pci;
mod saved;

pub use mmio::{MmioState, VirtioMmio};
pub use pci::{PciState, VirtioPci};
pub use saved::{QueueState, TransportState};
