//! The virtio devices that the configuration asks for, each in its slot.
//!
//! A new kind of device is one variant of [`Device`] and one arm of [`make`].

use crate::config::{Device, Disk, Hardware, Scratch, Transport};
use crate::error::BuildError;
use crate::layout::{self, VirtioSlot, virtio_slot};
use crate::saved::state::VirtioState;
use crate::scratch;
use devices::bus::{Bus, BusError};
use devices::irqchip::IrqChips;
use devices::pci::PciFunction;
use devices::saved::RestoreError;
use devices::virtio::blk::{Block, DiskAccess, RawImage};
use devices::virtio::net::{Forward, Mac, Net, UserNet};
use devices::virtio::{Service, VirtioDevice, VirtioMmio, VirtioPci};
use memory::GuestRam;
use std::fs::File;
use std::sync::{Arc, Mutex};
use sync::lock;
use x86::addr::Gpa;

/// A device in its slot.
pub(crate) struct Slotted {
    /// For traces.
    name: &'static str,
    transport: Attached,
    own: Own,
}

/// What the machine knows of a device beside its registers.
#[derive(Default)]
struct Own {
    /// What a scratch disk holds.
    content: Option<File>,
    /// The ports of the host's that lead to the guest.
    forwards: Vec<Forward>,
}

/// A device on its transport.
enum Attached {
    Pci(Arc<Mutex<VirtioPci>>),
    Mmio(Arc<Mutex<VirtioMmio>>, VirtioSlot),
}

/// The devices of `hardware` on their transports, paused until the machine runs.
pub(crate) fn build(
    hardware: &Hardware,
    ram: &GuestRam,
    irqchips: &IrqChips,
) -> Result<Vec<Slotted>, BuildError> {
    let (wanted, mut free) = (&hardware.devices, layout::PCI_MEMORY.start().0 as u32);
    let service = if hardware.deterministic { Service::AtOnce } else { Service::Thread };
    let mut slotted = Vec::new();
    for (index, (device, slot)) in wanted.iter().zip(0..).enumerate() {
        let before = wanted.iter().take(index).filter(|other| same_kind(other, device)).count();
        let (made, own) = make(device, before, service)?;
        let transport = match hardware.transport {
            Transport::Pci => on_pci(made, slot, &mut free, ram, irqchips),
            Transport::Mmio => on_mmio(made, virtio_slot(slot), ram, irqchips),
        };
        let made = Slotted { name: name(device), transport, own };
        made.pause();
        slotted.push(made);
    }
    Ok(slotted)
}

/// `device` on PCI, in the slot after the host bridge's and `slot` others; BARs go to `free`.
fn on_pci(
    device: Box<dyn VirtioDevice>,
    slot: u8,
    free: &mut u32,
    ram: &GuestRam,
    irqchips: &IrqChips,
) -> Attached {
    let line = irqchips.gsi_line(layout::pci_gsi(slot + 1));
    let sink = Arc::clone(&irqchips.interconnect) as _;
    let function = VirtioPci::new(device, ram.clone(), line, sink);
    *free = lock(&function).assign(*free);
    Attached::Pci(function)
}

fn on_mmio(
    device: Box<dyn VirtioDevice>,
    slot: VirtioSlot,
    ram: &GuestRam,
    irqchips: &IrqChips,
) -> Attached {
    let line = irqchips.gsi_line(slot.gsi);
    Attached::Mmio(VirtioMmio::new(device, ram.clone(), line), slot)
}

type Made = (Box<dyn VirtioDevice>, Own);

/// Device `number` of its kind.
fn make(device: &Device, number: usize, service: Service) -> Result<Made, BuildError> {
    let disk = |image, access| -> Result<Box<dyn VirtioDevice>, BuildError> {
        let serial = format!("gemello-disk{number}");
        Ok(Box::new(Block::new(Box::new(image), access, &serial, service)?))
    };
    match device {
        Device::Disk(Disk { path, read_only, trust }) => {
            let access = if *read_only { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite };
            Ok((disk(RawImage::open(path, access, *trust)?, access)?, Own::default()))
        }
        Device::Scratch(Scratch { bytes }) => {
            let content = scratch::make(*bytes)?;
            let image = RawImage::over(content.try_clone()?)?;
            let own = Own { content: Some(content), ..Own::default() };
            Ok((disk(image, DiskAccess::ReadWrite)?, own))
        }
        Device::Net(config) => {
            let backend = UserNet::new(config)?;
            let own = Own { forwards: backend.forwards(), ..Own::default() };
            let mac = Mac::of(number as u8);
            Ok((Box::new(Net::new(mac, Box::new(backend))?), own))
        }
    }
}

fn name(device: &Device) -> &'static str {
    match device {
        Device::Disk(_) | Device::Scratch(_) => "disk",
        Device::Net(_) => "net",
    }
}

fn same_kind(one: &Device, other: &Device) -> bool {
    name(one) == name(other)
}

/// What the firmware tables tell of `count` devices: PCI ones are found without.
pub(crate) fn acpi(transport: Transport, count: usize) -> Vec<boot::VirtioMmio> {
    let told = |VirtioSlot { address, gsi }: VirtioSlot| boot::VirtioMmio {
        address: address.0 as u32,
        gsi,
    };
    match transport {
        Transport::Pci => Vec::new(),
        Transport::Mmio => (0..).take(count).map(virtio_slot).map(told).collect(),
    }
}

impl Slotted {
    /// The device as a function on PCI, if it is one.
    pub(crate) fn function(&self) -> Option<Arc<Mutex<dyn PciFunction>>> {
        match &self.transport {
            Attached::Pci(function) => Some(Arc::clone(function) as _),
            Attached::Mmio(..) => None,
        }
    }

    /// Puts the device at its place, if it has one of its own.
    pub(crate) fn attach(&self, bus: &mut Bus) -> Result<(), BusError> {
        let Attached::Mmio(device, slot) = &self.transport else { return Ok(()) };
        let last = slot.address.0 + (VirtioMmio::SIZE - 1);
        bus.add_mmio(self.name, slot.address..=Gpa(last), Arc::clone(device) as _)
    }

    /// What a scratch disk holds; it changes as long as the machine's devices go on.
    pub(crate) fn content(&self) -> Option<&File> {
        self.own.content.as_ref()
    }

    /// The ports of the host's that lead to the guest through this device.
    pub(crate) fn forwards(&self) -> &[Forward] {
        &self.own.forwards
    }

    /// Has the device rest, so that guest memory stands still.
    pub(crate) fn pause(&self) {
        match &self.transport {
            Attached::Pci(device) => lock(device).pause(),
            Attached::Mmio(device, _) => lock(device).pause(),
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        match &self.transport {
            Attached::Pci(device) => lock(device).resume(),
            Attached::Mmio(device, _) => lock(device).resume(),
        }
    }

    /// The state of the device and its transport.
    pub(crate) fn save(&self) -> VirtioState {
        match &self.transport {
            Attached::Pci(device) => VirtioState::Pci(lock(device).save()),
            Attached::Mmio(device, _) => VirtioState::Mmio(lock(device).save()),
        }
    }

    /// Goes on from `state`.
    pub(crate) fn restore(&self, state: &VirtioState) -> Result<(), RestoreError> {
        match (&self.transport, state) {
            (Attached::Pci(device), VirtioState::Pci(state)) => lock(device).restore(state),
            (Attached::Mmio(device, _), VirtioState::Mmio(state)) => lock(device).restore(state),
            _ => Err(RestoreError::Kind { device: "virtio transport" }),
        }
    }
}
