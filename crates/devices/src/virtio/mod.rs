//! Virtio 1.2 devices on the MMIO transport, modern interface only.
//!
//! ```text
//! guest's loads, stores ──► mmio (registers, section 4.2.2) ──start, notify, stop──► a device, e.g. blk
//!                             ▲                                                        │ one thread a queue
//!                             └── interrupt (status, level-triggered line) ◄── ring (virtqueue, 2.7) ◄┘
//! ```
//! A device's requests are served on its own threads, which may block on the host; the processors only write registers.
//! What a driver does wrong never reaches the host: a chain that makes no sense stops the device with DEVICE_NEEDS_RESET
//! (2.1.2), a request that makes none is answered with an error.
//!
//! Locks: the transport is a chipset device in the crate's order; then a worker's mailbox, then the interrupt, then the line.
//! A worker's thread takes the last three, one after the other's release, and never the transport's.

pub mod blk;
mod chain;
mod interrupt;
mod mmio;
mod ring;
#[cfg(test)]
mod tests;
mod worker;

pub use interrupt::Interrupt;
pub use mmio::{MmioState, QueueState, VirtioMmio};
pub use ring::{Ring, RingPosition};

/// What the transport needs of a device. Queues are numbered from 0.
pub trait VirtioDevice: Send {
    /// The device's type (section 5).
    fn device_id(&self) -> u32;

    /// Feature bits of this kind of device (0 to 23). The transport and the rings add theirs.
    fn features(&self) -> u64;

    /// The most entries that each queue may have, a power of two; as many queues as it has elements.
    fn queue_sizes(&self) -> &[u16];

    /// The configuration space (2.5). It never changes.
    fn config(&self) -> &[u8];

    /// The driver is ready: serves the rings from now on, with what they hold already. `None` for a queue that the driver
    /// does not use. `features` are the negotiated ones. Never called twice without [`VirtioDevice::stop`] between.
    fn start(&mut self, features: u64, rings: Vec<Option<Ring>>);

    /// The driver has put something into this queue.
    fn notify(&mut self, queue: usize);

    /// Finishes the requests in progress and takes up no more: where each ring is now, `None` for those not started.
    /// After this the device is as new.
    fn stop(&mut self) -> Vec<Option<RingPosition>>;
}
