//! Virtio 1.2 devices, modern interface only: each a device behind a transport.
//!
//! ```text
//! loads, stores ──► transport (registers) ──activate, notify, quiesce──► a device, e.g. blk
//!                     ▲                                                    │ threads of its own
//!                     └── VirtioIrq (status, line) ◄── Queue (2.7) ◄───────┘
//! ```
//! A device's requests are served on its own threads, which may block on the host; the processors
//! only write registers. (With [`Service::AtOnce`] the access that notifies a device serves it.)
//! What a driver does wrong never reaches the host: a chain that makes no sense stops the device
//! with DEVICE_NEEDS_RESET (2.1.2), a request that makes none is answered with an error.
//!
//! Locks: the transport is a chipset device in the crate's order; then a worker's mailbox, then a
//! queue's ring, then the interrupt, then the line. A device's thread takes the last four, each
//! after the other's release, and never the transport's.

mod attendant;
pub mod balloon;
pub mod blk;
mod chain;
pub mod console;
mod device;
mod entropy;
pub mod fs;
mod irq;
pub mod net;
mod queue;
pub mod saved;
#[cfg(test)]
mod tests;
mod transport;
pub mod vsock;
mod worker;

pub use device::{Activation, ConfigSpace, VirtioDevice};
pub use entropy::Entropy;
pub use irq::VirtioIrq;
pub use queue::{Queue, QueuePosition};
pub use transport::{MmioState, PciState, QueueState, TransportState, VirtioMmio, VirtioPci};
pub use worker::Service;
