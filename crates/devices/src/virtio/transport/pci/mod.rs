//! The PCI transport (virtio 1.2, 4.1), modern interface only: one device is one function.
//!
//! BAR 0 holds the structures that the capabilities name, a page each; BAR 1 the MSI-X table. There
//! is a vector for each queue and one for the configuration; without MSI-X the function asks by
//! INTA#.
//!
//! What the specifications leave open: fields take accesses of their own width only, 64-bit ones of
//! each half; any other access, as one to what is not there, reads all-ones and writes nothing.
//! While the driver has not allowed bus mastering the device rests: it touches no memory and sends
//! no message, and makes up for both as soon as it may.

mod common_config;
mod function;
mod interrupt;
mod layout;
mod saved;

pub use function::VirtioPci;
pub use saved::PciState;
