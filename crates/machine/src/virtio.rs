//! The virtio devices that the configuration asks for, each in its slot.
//!
//! A new kind of device is one variant of [`Device`] and one arm of [`build`].

use crate::config::{Hardware, Transport};
use crate::console::Line;
use crate::device::{self, Device, Disk, Network, Scratch, Vsock};
use crate::ends::Ends;
use crate::error::BuildError;
use crate::layout::{self, VirtioSlot, virtio_slot};
use crate::saved::state::VirtioState;
use crate::scratch;
use devices::bus::{Bus, BusError};
use devices::irqchip::IrqChips;
use devices::pci::PciFunction;
use devices::saved::RestoreError;
use devices::virtio;
use devices::virtio::balloon::{Balloon, BalloonControl};
use devices::virtio::blk::{Block, Cache, Recipe};
use devices::virtio::console::ConsolePort;
use devices::virtio::fs::Fs;
use devices::virtio::net::{Forward, Net, Plugged, Watch};
use devices::virtio::vsock::{Entrance, Place, SocketFile};
use devices::virtio::{Entropy, Service, VirtioDevice, VirtioMmio, VirtioPci};
use disk_image::{DiskAccess, Limit, RawImage, Storage};
use memory::GuestRam;
use share::{Share, ShareStats};
use std::fs::File;
use std::sync::{Arc, Mutex};
use sync::lock;
use x86::addr::Gpa;

/// A device in its slot.
pub(crate) struct Slotted {
    /// For traces.
    name: &'static str,
    transport: Attached,
    side: Side,
}

/// The host's side of a device, beside the guest's.
#[derive(Default)]
pub(crate) struct Side {
    /// What a scratch disk holds.
    pub(crate) content: Option<File>,
    pub(crate) balloon: Option<BalloonControl>,
    /// Where programs reach the guest's sockets.
    socket: Option<Arc<SocketFile>>,
    /// Where this process does.
    pub(crate) entrance: Option<Entrance>,
    /// What a console device has.
    ports: Vec<ConsolePort>,
    /// The ports of the host's that lead to the guest.
    forwards: Vec<Forward>,
    /// Looks at a network device's cable.
    pub(crate) watch: Option<Watch>,
    pub(crate) share: Option<SharedFolder>,
}

/// A shared folder of a machine's.
#[derive(Clone, Debug)]
pub struct SharedFolder {
    /// What the guest calls it.
    pub tag: String,
    /// The folder.
    pub share: Arc<Share>,
}

/// A device on its transport.
enum Attached {
    Pci(Arc<Mutex<VirtioPci>>),
    Mmio(Arc<Mutex<VirtioMmio>>, VirtioSlot),
}

/// The devices of `hardware` on their transports, paused until the machine runs; the other ends of
/// console devices' ports are `lines`.
pub(crate) fn build(
    hardware: &Hardware,
    ram: &GuestRam,
    irqchips: &IrqChips,
    queues: u16,
    lines: Vec<Line>,
    ends: &mut Ends,
) -> Result<Vec<Slotted>, BuildError> {
    let (wanted, mut free) = (&hardware.devices, layout::PCI_MEMORY.start().0 as u32);
    let service = if hardware.deterministic { Service::AtOnce } else { Service::Thread };
    let (mut slotted, mut lines) = (Vec::new(), lines.into_iter());
    for (index, (device, slot)) in wanted.iter().zip(0..).enumerate() {
        let before = wanted.iter().take(index).filter(|other| same_kind(other, device)).count();
        let (made, side): Made = match device {
            Device::Console(ports) => {
                let (console, ports) = ends.console(ports, &mut lines, service)?;
                (Box::new(console), Side { ports, ..Side::default() })
            }
            Device::Hvc => {
                let (hvc, ports) = ends.hvc(lines.next().unwrap_or_default(), service)?;
                (Box::new(hvc), Side { ports, ..Side::default() })
            }
            Device::Disk(disk) => (a_disk(disk, before, queues, service)?, Side::default()),
            Device::Scratch(scratch) => {
                let (disk, content) = a_scratch_disk(scratch, before, queues, service)?;
                (disk, Side { content: Some(content), ..Side::default() })
            }
            Device::Net(network) => a_network(network)?,
            Device::Entropy => (Box::new(Entropy::new(service)?), Side::default()),
            Device::Balloon => a_balloon(hardware.memory, service)?,
            Device::Vsock(vsock) => sockets(vsock)?,
            Device::Share(share) => a_share(share, queues, service)?,
        };
        let transport = match hardware.transport {
            Transport::Pci => on_pci(made, slot, &mut free, ram, irqchips),
            Transport::Mmio => on_mmio(made, virtio_slot(slot), ram, irqchips),
        };
        let made = Slotted { name: name(device), transport, side };
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

/// A device, and the host's side of it.
type Made = (Box<dyn VirtioDevice>, Side);

/// The balloon of a machine with `memory` bytes.
fn a_balloon(memory: u64, service: Service) -> Result<Made, BuildError> {
    let balloon = Balloon::new(memory, service)?;
    let side = Side { balloon: Some(balloon.control()), ..Side::default() };
    Ok((Box::new(balloon), side))
}

/// A network device, its cable plugged in.
fn a_network(Network { mac, cable }: &Network) -> Result<Made, BuildError> {
    let Plugged { backend, watch, forwards } = cable.plug()?;
    let side = Side { forwards, watch: Some(watch), ..Side::default() };
    Ok((Box::new(Net::new(*mac, backend, Service::Thread)?), side))
}

/// The sockets that a guest has.
fn sockets(Vsock { cid, path }: &Vsock) -> Result<Made, BuildError> {
    let place = path.as_deref().map(Place::new).transpose()?;
    let socket = place.as_ref().map(Place::file);
    let vsock = virtio::vsock::Vsock::new(*cid, place)?;
    let side = Side { socket, entrance: Some(vsock.entrance()), ..Side::default() };
    Ok((Box::new(vsock), side))
}

/// A shared folder.
fn a_share(
    device::Share { path, tag, options }: &device::Share,
    queues: u16,
    service: Service,
) -> Result<Made, BuildError> {
    let share = Arc::new(Share::open(path, *options)?);
    let fs = Fs::new(tag, Arc::clone(&share), queues, service)?;
    let share = SharedFolder { tag: tag.clone(), share };
    Ok((Box::new(fs), Side { share: Some(share), ..Side::default() }))
}

/// Disk `number`, with `queues` queues if they are of use.
fn a_disk(
    disk: &Disk,
    number: usize,
    queues: u16,
    service: Service,
) -> Result<Box<dyn VirtioDevice>, BuildError> {
    let Disk { path, read_only, serial, cache, limit, format: _, backing: _ } = disk;
    let access = access(*read_only);
    let serial = serial.clone().unwrap_or_else(|| usual_serial(number));
    let name = path.display().to_string();
    let recipe = Recipe { access, serial, name, cache: *cache, limit: *limit, queues };
    Ok(Box::new(Block::new(disk.image().open(access)?, recipe, service)?))
}

/// Disk `number`, and its content.
fn a_scratch_disk(
    Scratch { bytes, read_only, content: holds }: &Scratch,
    number: usize,
    queues: u16,
    service: Service,
) -> Result<(Box<dyn VirtioDevice>, File), BuildError> {
    let content = scratch::make(*bytes, holds)?;
    let image: Box<dyn Storage> = Box::new(RawImage::over(content.try_clone()?)?);
    let (cache, limit) = (Cache::Writeback, Limit::default());
    let access = access(*read_only);
    let (serial, name) = (usual_serial(number), format!("scratch disk {number}"));
    let recipe = Recipe { access, serial, name, cache, limit, queues };
    Ok((Box::new(Block::new(image, recipe, service)?), content))
}

fn access(read_only: bool) -> DiskAccess {
    if read_only { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite }
}

/// What disk `number` calls itself unless it is told.
fn usual_serial(number: usize) -> String {
    format!("gemello-disk{number}")
}

fn name(device: &Device) -> &'static str {
    match device {
        Device::Disk(_) | Device::Scratch(_) => "disk",
        Device::Console(_) => "console",
        Device::Hvc => "hvc",
        Device::Entropy => "rng",
        Device::Balloon => "balloon",
        Device::Vsock(_) => "vsock",
        Device::Net(_) => "net",
        Device::Share(_) => "share",
    }
}

/// What a guest that has not touched `device` can have seen of it.
pub(crate) fn kind(device: &Device) -> String {
    match device {
        Device::Console(ports) => format!("{} of {}", name(device), ports.len()),
        _ => name(device).into(),
    }
}

fn same_kind(one: &Device, other: &Device) -> bool {
    name(one) == name(other)
}

/// What the firmware tables tell of `count` devices: PCI ones are found without.
pub(crate) fn acpi(transport: Transport, count: usize) -> Vec<boot::VirtioMmio> {
    let told = |VirtioSlot { address, gsi }: VirtioSlot| boot::VirtioMmio { address, gsi };
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

    /// The machine has ended: what names it on the host goes.
    pub(crate) fn leave(&self) {
        self.side.socket.as_deref().inspect(|socket| socket.remove());
    }

    /// Puts the device at its place, if it has one of its own.
    pub(crate) fn attach(&self, bus: &mut Bus) -> Result<(), BusError> {
        let Attached::Mmio(device, slot) = &self.transport else { return Ok(()) };
        let last = slot.address.0 + (VirtioMmio::SIZE - 1);
        bus.add_mmio(self.name, slot.address..=Gpa(last), Arc::clone(device) as _)
    }

    /// The host's side; a scratch disk's content changes as long as the machine's devices go on.
    pub(crate) fn side(&self) -> &Side {
        &self.side
    }

    /// The ports of a console device.
    pub(crate) fn ports(&self) -> &[ConsolePort] {
        &self.side.ports
    }

    /// What has been done with a shared folder.
    pub(crate) fn share_stats(&self) -> Option<ShareStats> {
        let SharedFolder { tag, share } = self.side.share.as_ref()?;
        Some(ShareStats { tag: tag.clone(), ..share.stats() })
    }

    /// The ports of the host's that lead to the guest through this device.
    pub(crate) fn forwards(&self) -> &[Forward] {
        &self.side.forwards
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
