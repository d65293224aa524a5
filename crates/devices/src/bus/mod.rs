//! The I/O bus: from a port or guest-physical address to the device there.
//!
//! Built once by the machine, then shared by all vCPU threads: a lookup takes no lock, a device is
//! locked only while it is being accessed. An access wider than a device takes is split into its
//! bytes (or words), lowest address first, each looked up on its own, as the chipset does. What
//! nobody claims reads all-ones, swallows writes, and is counted and logged once per place.

mod ranges;
mod unclaimed;

pub use ranges::BusError;
pub use unclaimed::{Place, Unclaimed};
use x86::addr::{Gpa, Port, PortWidth, Width};

use ranges::{Entry, Ranges};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use sync::lock;
use unclaimed::UnclaimedPlaces;

/// A device on I/O ports.
pub trait PioDevice: Send {
    /// IN from `port`; `width` is at most [`PioDevice::max_width`].
    fn read(&mut self, port: Port, width: PortWidth) -> u32;
    /// OUT to `port`.
    fn write(&mut self, port: Port, width: PortWidth, value: u32);
    /// The widest access in bytes that the device takes; wider ones are split.
    fn max_width(&self) -> PortWidth {
        PortWidth::B1
    }
}

/// A device in guest-physical memory.
pub trait MmioDevice: Send {
    /// A load at `offset` from the start of the device's range; `width` is at most
    /// [`MmioDevice::max_width`].
    fn read(&mut self, offset: u64, width: Width) -> u64;
    /// A store.
    fn write(&mut self, offset: u64, width: Width, value: u64);
    /// The widest access in bytes that the device takes; wider ones are split.
    fn max_width(&self) -> Width {
        Width::B8
    }
}

/// A [`PioDevice`] that does its own locking.
pub trait SharedPio: Send + Sync {
    /// As [`PioDevice::read`].
    fn read(&self, port: Port, width: PortWidth) -> u32;
    /// As [`PioDevice::write`].
    fn write(&self, port: Port, width: PortWidth, value: u32);
    /// As [`PioDevice::max_width`].
    fn max_width(&self) -> PortWidth {
        PortWidth::B1
    }
}

/// A [`MmioDevice`] that does its own locking.
pub trait SharedMmio: Send + Sync {
    /// As [`MmioDevice::read`].
    fn read(&self, offset: u64, width: Width) -> u64;
    /// As [`MmioDevice::write`].
    fn write(&self, offset: u64, width: Width, value: u64);
    /// Whether something is at `offset` now.
    fn claims(&self, _offset: u64) -> bool {
        true
    }
    /// As [`MmioDevice::max_width`].
    fn max_width(&self) -> Width {
        Width::B8
    }
}

impl<T: PioDevice + ?Sized> SharedPio for Mutex<T> {
    fn read(&self, port: Port, width: PortWidth) -> u32 {
        lock(self).read(port, width)
    }

    fn write(&self, port: Port, width: PortWidth, value: u32) {
        lock(self).write(port, width, value);
    }

    fn max_width(&self) -> PortWidth {
        lock(self).max_width()
    }
}

impl<T: MmioDevice + ?Sized> SharedMmio for Mutex<T> {
    fn read(&self, offset: u64, width: Width) -> u64 {
        lock(self).read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        lock(self).write(offset, width, value);
    }

    fn max_width(&self) -> Width {
        lock(self).max_width()
    }
}

/// The ports and the device memory of one machine.
#[derive(Default)]
pub struct Bus {
    pio: Ranges<dyn SharedPio>,
    /// Registers that take byte accesses at ports that are others' otherwise.
    bytes: Ranges<dyn SharedPio>,
    mmio: Ranges<dyn SharedMmio>,
    unclaimed: UnclaimedPlaces,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` on `ports`.
    ///
    /// # Errors
    /// If `ports` is empty or a device is there already.
    pub fn add_pio(
        &mut self,
        name: &'static str,
        ports: RangeInclusive<Port>,
        device: Arc<dyn SharedPio>,
    ) -> Result<(), BusError> {
        let (first, last) = (ports.start().0.into(), ports.end().0.into());
        self.pio.add(name, first..=last, device.max_width().into(), device)
    }

    /// Puts `device` on `port` for accesses of one byte, whatever else is there. A wider access
    /// that covers the port does not reach it: the reset control register in PCI's configuration
    /// address.
    ///
    /// # Errors
    /// If another such device is there already.
    pub fn add_byte_port(
        &mut self,
        name: &'static str,
        port: Port,
        device: Arc<dyn SharedPio>,
    ) -> Result<(), BusError> {
        let place = u64::from(port.0);
        self.bytes.add(name, place..=place, Width::B1, device)
    }

    /// Puts `device` at guest-physical `addresses`.
    ///
    /// # Errors
    /// If `addresses` is empty or a device is there already.
    pub fn add_mmio(
        &mut self,
        name: &'static str,
        addresses: RangeInclusive<Gpa>,
        device: Arc<dyn SharedMmio>,
    ) -> Result<(), BusError> {
        let (first, last) = (addresses.start().0, addresses.end().0);
        self.mmio.add(name, first..=last, device.max_width(), device)
    }

    /// IN of `width` from `port`.
    pub fn pio_read(&self, port: Port, width: PortWidth) -> u32 {
        match self.bytes.find(port.0.into()) {
            Some(entry) if width == PortWidth::B1 => entry.device.read(port, width) & 0xFF,
            _ => self.pio_read_part(port, width),
        }
    }

    /// The same, of an access or a part of one.
    fn pio_read_part(&self, port: Port, width: PortWidth) -> u32 {
        let entry = self.pio.find(port.0.into());
        if let Some(entry) = entry.filter(|entry| entry.takes(port.0.into(), width.into())) {
            let value = entry.device.read(port, width) & width.mask();
            let (device, bytes) = (entry.name, width.bytes());
            tracing::trace!(target: "ports", device, "in  {port:#06x}/{bytes} = {value:#x}");
            return value;
        }
        let Some(half) = width.half() else {
            self.unclaimed.note(Place::Port(port), false);
            return 0xFF;
        };
        let low = self.pio_read_part(port, half);
        low | self.pio_read_part(port.wrapping_add(half.into()), half) << half.bits()
    }

    /// OUT of `width` to `port`.
    pub fn pio_write(&self, port: Port, width: PortWidth, value: u32) {
        match self.bytes.find(port.0.into()) {
            Some(entry) if width == PortWidth::B1 => entry.device.write(port, width, value & 0xFF),
            _ => self.pio_write_part(port, width, value),
        }
    }

    /// The same, of an access or a part of one.
    fn pio_write_part(&self, port: Port, width: PortWidth, value: u32) {
        let value = value & width.mask();
        let entry = self.pio.find(port.0.into());
        if let Some(entry) = entry.filter(|entry| entry.takes(port.0.into(), width.into())) {
            let (device, bytes) = (entry.name, width.bytes());
            tracing::trace!(target: "ports", device, "out {port:#06x}/{bytes} = {value:#x}");
            return entry.device.write(port, width, value);
        }
        let Some(half) = width.half() else {
            return self.unclaimed.note(Place::Port(port), true);
        };
        self.pio_write_part(port, half, value);
        self.pio_write_part(port.wrapping_add(half.into()), half, value >> half.bits());
    }

    /// The device that answers at `gpa`.
    fn claimed(&self, gpa: Gpa) -> Option<&Entry<dyn SharedMmio>> {
        self.mmio.find(gpa.0).filter(|entry| entry.device.claims(gpa.0 - entry.first))
    }

    /// A load of `width` from guest-physical `gpa`.
    pub fn mmio_read(&self, gpa: Gpa, width: Width) -> u64 {
        let Some(entry) = self.claimed(gpa) else {
            self.unclaimed.note(Place::Memory(gpa), false);
            return width.mask();
        };
        match width.half().filter(|_| !entry.takes(gpa.0, width)) {
            Some(half) => {
                let low = self.mmio_read(gpa, half);
                low | self.mmio_read(gpa.wrapping_add(half.into()), half) << half.bits()
            }
            None => {
                let value = entry.device.read(gpa.0 - entry.first, width) & width.mask();
                let (device, bytes) = (entry.name, width.bytes());
                tracing::trace!(target: "mmio", device, "load  {gpa:#x}/{bytes} = {value:#x}");
                value
            }
        }
    }

    /// A store of `width` to guest-physical `gpa`.
    pub fn mmio_write(&self, gpa: Gpa, width: Width, value: u64) {
        let value = value & width.mask();
        let Some(entry) = self.claimed(gpa) else {
            return self.unclaimed.note(Place::Memory(gpa), true);
        };
        match width.half().filter(|_| !entry.takes(gpa.0, width)) {
            Some(half) => {
                self.mmio_write(gpa, half, value);
                self.mmio_write(gpa.wrapping_add(half.into()), half, value >> half.bits());
            }
            None => {
                let (device, bytes) = (entry.name, width.bytes());
                tracing::trace!(target: "mmio", device, "store {gpa:#x}/{bytes} = {value:#x}");
                entry.device.write(gpa.0 - entry.first, width, value);
            }
        }
    }

    /// The places that were accessed though no device is there, with counts, in address order.
    pub fn unclaimed(&self) -> Vec<Unclaimed> {
        self.unclaimed.list()
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pio, bytes, mmio, unclaimed: _ } = self;
        f.debug_struct("Bus")
            .field("pio", pio)
            .field("bytes", bytes)
            .field("mmio", mmio)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
