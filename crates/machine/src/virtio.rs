//! The virtio devices that the configuration asks for, each in its slot.
//!
//! A new kind of device is one variant of [`Device`] and one arm of [`make`].

use crate::config::{Device, Disk};
use crate::error::BuildError;
use crate::layout::{VirtioSlot, virtio_slots};
use devices::bus::{Bus, BusError};
use devices::irqchip::IrqChips;
use devices::virtio::blk::{Block, DiskAccess, RawImage};
use devices::virtio::{VirtioDevice, VirtioMmio};
use memory::GuestRam;
use std::sync::{Arc, Mutex, MutexGuard};
use x86::addr::Gpa;

/// A device in its slot.
pub(crate) struct Slotted {
    /// For traces.
    name: &'static str,
    slot: VirtioSlot,
    transport: Arc<Mutex<VirtioMmio>>,
}

/// The devices of `wanted` on their transports, paused until the machine runs.
pub(crate) fn build(
    wanted: &[Device],
    ram: &GuestRam,
    irqchips: &IrqChips,
) -> Result<Vec<Slotted>, BuildError> {
    let mut slotted = Vec::new();
    for (index, (device, slot)) in wanted.iter().zip(virtio_slots()).enumerate() {
        let before = wanted.iter().take(index).filter(|other| same_kind(other, device)).count();
        let irq = irqchips.gsi_line(slot.gsi);
        let transport = VirtioMmio::new(make(device, before)?, ram.clone(), irq);
        let made = Slotted { name: name(device), slot, transport };
        made.lock().pause();
        slotted.push(made);
    }
    Ok(slotted)
}

/// Device `number` of its kind.
fn make(device: &Device, number: usize) -> Result<Box<dyn VirtioDevice>, BuildError> {
    match device {
        Device::Disk(Disk { path, read_only, trust }) => {
            let access = if *read_only { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite };
            let image = Box::new(RawImage::open(path, access, *trust)?);
            Ok(Box::new(Block::new(image, access, &format!("gemello-disk{number}"))?))
        }
    }
}

fn name(device: &Device) -> &'static str {
    match device {
        Device::Disk(_) => "disk",
    }
}

fn same_kind(one: &Device, other: &Device) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// What the firmware tables tell of `count` devices.
pub(crate) fn acpi(count: usize) -> Vec<boot::VirtioMmio> {
    let told = |VirtioSlot { address, gsi }: VirtioSlot| boot::VirtioMmio {
        address: address.0 as u32,
        gsi,
    };
    virtio_slots().take(count).map(told).collect()
}

impl Slotted {
    /// Puts the device at its place.
    pub(crate) fn attach(&self, bus: &mut Bus) -> Result<(), BusError> {
        let first = self.slot.address;
        let last = first.0 + (VirtioMmio::SIZE - 1);
        bus.add_mmio(self.name, first..=Gpa(last), Arc::clone(&self.transport) as _)
    }

    /// The device behind its transport.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VirtioMmio> {
        sync::lock(&self.transport)
    }
}
