//! The virtio devices that the configuration asks for, each in its slot.
//!
//! A new kind of device is one variant of [`Device`] and one arm of [`make`].

use crate::config::{Device, Disk, Scratch};
use crate::error::BuildError;
use crate::layout::{VirtioSlot, virtio_slots};
use crate::scratch;
use devices::bus::{Bus, BusError};
use devices::irqchip::IrqChips;
use devices::virtio::blk::{Block, DiskAccess, RawImage};
use devices::virtio::{Service, VirtioDevice, VirtioMmio};
use memory::GuestRam;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};
use x86::addr::Gpa;

/// A device in its slot.
pub(crate) struct Slotted {
    /// For traces.
    name: &'static str,
    slot: VirtioSlot,
    transport: Arc<Mutex<VirtioMmio>>,
    /// What a scratch disk holds.
    content: Option<File>,
}

/// The devices of `wanted` on their transports, paused until the machine runs.
pub(crate) fn build(
    wanted: &[Device],
    ram: &GuestRam,
    irqchips: &IrqChips,
    service: Service,
) -> Result<Vec<Slotted>, BuildError> {
    let mut slotted = Vec::new();
    for (index, (device, slot)) in wanted.iter().zip(virtio_slots()).enumerate() {
        let before = wanted.iter().take(index).filter(|other| same_kind(other, device)).count();
        let irq = irqchips.gsi_line(slot.gsi);
        let (made, content) = make(device, before, service)?;
        let transport = VirtioMmio::new(made, ram.clone(), irq);
        let made = Slotted { name: name(device), slot, transport, content };
        made.lock().pause();
        slotted.push(made);
    }
    Ok(slotted)
}

type Made = (Box<dyn VirtioDevice>, Option<File>);

/// Device `number` of its kind, and the content of a scratch disk.
fn make(device: &Device, number: usize, service: Service) -> Result<Made, BuildError> {
    let disk = |image, access| -> Result<Box<dyn VirtioDevice>, BuildError> {
        let serial = format!("gemello-disk{number}");
        Ok(Box::new(Block::new(Box::new(image), access, &serial, service)?))
    };
    match device {
        Device::Disk(Disk { path, read_only, trust }) => {
            let access = if *read_only { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite };
            Ok((disk(RawImage::open(path, access, *trust)?, access)?, None))
        }
        Device::Scratch(Scratch { bytes }) => {
            let content = scratch::make(*bytes)?;
            let image = RawImage::over(content.try_clone()?)?;
            Ok((disk(image, DiskAccess::ReadWrite)?, Some(content)))
        }
    }
}

fn name(device: &Device) -> &'static str {
    match device {
        Device::Disk(_) | Device::Scratch(_) => "disk",
    }
}

fn same_kind(one: &Device, other: &Device) -> bool {
    name(one) == name(other)
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

    /// What a scratch disk holds; it changes as long as the machine's devices go on.
    pub(crate) fn content(&self) -> Option<&File> {
        self.content.as_ref()
    }

    /// The device behind its transport.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VirtioMmio> {
        sync::lock(&self.transport)
    }
}
