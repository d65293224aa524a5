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

use ranges::Ranges;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use sync::lock;
use unclaimed::UnclaimedPlaces;

/// A device on I/O ports.
pub trait PioDevice: Send {
    /// IN from `port`; `size` is 1, 2 or 4 and at most [`PioDevice::max_width`].
    fn read(&mut self, port: u16, size: u8) -> u32;
    /// OUT to `port`.
    fn write(&mut self, port: u16, size: u8, value: u32);
    /// The widest access in bytes that the device takes; wider ones are split.
    fn max_width(&self) -> u8 {
        1
    }
}

/// A device in guest-physical memory.
pub trait MmioDevice: Send {
    /// A load at `offset` from the start of the device's range; `size` is 1, 2, 4 or 8 and at most
    /// [`MmioDevice::max_width`].
    fn read(&mut self, offset: u64, size: u8) -> u64;
    /// A store.
    fn write(&mut self, offset: u64, size: u8, value: u64);
    /// The widest access in bytes that the device takes; wider ones are split.
    fn max_width(&self) -> u8 {
        8
    }
}

/// A [`PioDevice`] that does its own locking.
pub trait SharedPio: Send + Sync {
    /// As [`PioDevice::read`].
    fn read(&self, port: u16, size: u8) -> u32;
    /// As [`PioDevice::write`].
    fn write(&self, port: u16, size: u8, value: u32);
    /// As [`PioDevice::max_width`].
    fn max_width(&self) -> u8 {
        1
    }
}

/// A [`MmioDevice`] that does its own locking.
pub trait SharedMmio: Send + Sync {
    /// As [`MmioDevice::read`].
    fn read(&self, offset: u64, size: u8) -> u64;
    /// As [`MmioDevice::write`].
    fn write(&self, offset: u64, size: u8, value: u64);
    /// As [`MmioDevice::max_width`].
    fn max_width(&self) -> u8 {
        8
    }
}

impl<T: PioDevice + ?Sized> SharedPio for Mutex<T> {
    fn read(&self, port: u16, size: u8) -> u32 {
        lock(self).read(port, size)
    }

    fn write(&self, port: u16, size: u8, value: u32) {
        lock(self).write(port, size, value);
    }

    fn max_width(&self) -> u8 {
        lock(self).max_width()
    }
}

impl<T: MmioDevice + ?Sized> SharedMmio for Mutex<T> {
    fn read(&self, offset: u64, size: u8) -> u64 {
        lock(self).read(offset, size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        lock(self).write(offset, size, value);
    }

    fn max_width(&self) -> u8 {
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
        ports: RangeInclusive<u16>,
        device: Arc<dyn SharedPio>,
    ) -> Result<(), BusError> {
        let width = device.max_width();
        self.pio.add(name, u64::from(*ports.start())..=u64::from(*ports.end()), width, device)
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
        port: u16,
        device: Arc<dyn SharedPio>,
    ) -> Result<(), BusError> {
        self.bytes.add(name, u64::from(port)..=u64::from(port), 1, device)
    }

    /// Puts `device` at guest-physical `addresses`.
    ///
    /// # Errors
    /// If `addresses` is empty or a device is there already.
    pub fn add_mmio(
        &mut self,
        name: &'static str,
        addresses: RangeInclusive<u64>,
        device: Arc<dyn SharedMmio>,
    ) -> Result<(), BusError> {
        let width = device.max_width();
        self.mmio.add(name, addresses, width, device)
    }

    /// IN of `size` bytes (1, 2 or 4) from `port`.
    pub fn pio_read(&self, port: u16, size: u8) -> u32 {
        match self.bytes.find(u64::from(port)) {
            Some(entry) if size == 1 => entry.device.read(port, size) & 0xFF,
            _ => self.pio_read_part(port, size),
        }
    }

    /// The same, of an access or a part of one.
    fn pio_read_part(&self, port: u16, size: u8) -> u32 {
        let Some(entry) = self.pio.find(u64::from(port)) else {
            if size > 1 {
                return self.pio_read_halves(port, size);
            }
            self.unclaimed.note(Place::Port(port), false);
            return 0xFF;
        };
        if size > entry.room(u64::from(port)) {
            return self.pio_read_halves(port, size);
        }
        let value = entry.device.read(port, size) & ones(size) as u32;
        tracing::trace!(target: "ports", device = entry.name,
            "in  {port:#06x}/{size} = {value:#x}");
        value
    }

    /// OUT of `size` bytes (1, 2 or 4) to `port`.
    pub fn pio_write(&self, port: u16, size: u8, value: u32) {
        match self.bytes.find(u64::from(port)) {
            Some(entry) if size == 1 => entry.device.write(port, size, value & 0xFF),
            _ => self.pio_write_part(port, size, value),
        }
    }

    /// The same, of an access or a part of one.
    fn pio_write_part(&self, port: u16, size: u8, value: u32) {
        let value = value & ones(size) as u32;
        let Some(entry) = self.pio.find(u64::from(port)) else {
            if size > 1 {
                return self.pio_write_halves(port, size, value);
            }
            return self.unclaimed.note(Place::Port(port), true);
        };
        if size > entry.room(u64::from(port)) {
            return self.pio_write_halves(port, size, value);
        }
        tracing::trace!(target: "ports", device = entry.name,
            "out {port:#06x}/{size} = {value:#x}");
        entry.device.write(port, size, value);
    }

    /// A load of `size` bytes (1, 2, 4 or 8) from guest-physical `gpa`.
    pub fn mmio_read(&self, gpa: u64, size: u8) -> u64 {
        let Some(entry) = self.mmio.find(gpa) else {
            self.unclaimed.note(Place::Memory(gpa), false);
            return ones(size);
        };
        if size > entry.room(gpa) {
            let half = size / 2;
            let low = self.mmio_read(gpa, half);
            return low | self.mmio_read(gpa.wrapping_add(u64::from(half)), half) << (half * 8);
        }
        let value = entry.device.read(gpa - entry.first, size) & ones(size);
        tracing::trace!(target: "mmio", device = entry.name, "load  {gpa:#x}/{size} = {value:#x}");
        value
    }

    /// A store of `size` bytes (1, 2, 4 or 8) to guest-physical `gpa`.
    pub fn mmio_write(&self, gpa: u64, size: u8, value: u64) {
        let value = value & ones(size);
        let Some(entry) = self.mmio.find(gpa) else {
            return self.unclaimed.note(Place::Memory(gpa), true);
        };
        if size > entry.room(gpa) {
            let half = size / 2;
            self.mmio_write(gpa, half, value);
            return self.mmio_write(gpa.wrapping_add(u64::from(half)), half, value >> (half * 8));
        }
        tracing::trace!(target: "mmio", device = entry.name, "store {gpa:#x}/{size} = {value:#x}");
        entry.device.write(gpa - entry.first, size, value);
    }

    /// The places that were accessed though no device is there, with counts, in address order.
    pub fn unclaimed(&self) -> Vec<Unclaimed> {
        self.unclaimed.list()
    }

    fn pio_read_halves(&self, port: u16, size: u8) -> u32 {
        let half = size / 2;
        let low = self.pio_read_part(port, half);
        low | self.pio_read_part(port.wrapping_add(u16::from(half)), half) << (half * 8)
    }

    fn pio_write_halves(&self, port: u16, size: u8, value: u32) {
        let half = size / 2;
        self.pio_write_part(port, half, value);
        self.pio_write_part(port.wrapping_add(u16::from(half)), half, value >> (half * 8));
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

/// All-ones of `size` bytes.
const fn ones(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (size * 8)) - 1 }
}

#[cfg(test)]
mod tests;
