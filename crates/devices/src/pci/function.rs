//! What the bus asks of a function.

use super::decoder::Decoder;
use std::sync::Arc;
use x86::addr::PortWidth;

/// A function, 0 of its device.
pub trait PciFunction: Send {
    /// A naturally aligned read of the configuration space, `register` of which is below 4096.
    fn config_read(&mut self, register: u16, width: PortWidth) -> u32;

    /// A naturally aligned write.
    fn config_write(&mut self, register: u16, width: PortWidth, value: u32);

    /// Where each BAR is, now and from now on.
    fn decoders(&self) -> Vec<Arc<Decoder>>;

    /// A naturally aligned load from `offset` of a BAR.
    fn read(&mut self, bar: usize, offset: u32, width: PortWidth) -> u32;

    /// A store.
    fn write(&mut self, bar: usize, offset: u32, width: PortWidth, value: u32);
}
