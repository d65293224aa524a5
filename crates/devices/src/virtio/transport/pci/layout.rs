//! The function's configuration space, and where in its BARs the structures are (virtio 1.2,
//! 4.1.2 to 4.1.4).

use crate::pci::registers::{CAP_MSIX, CAP_VENDOR};
use crate::pci::{Config, Identity, Msix};

/// Virtio's vendor ID.
const VENDOR: u16 = 0x1AF4;
/// What is added to the device's type for the device ID (4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// For a device that is not transitional: 1 or higher.
const REVISION: u8 = 1;
/// Likewise: 40H or higher.
const SUBSYSTEM: u16 = 0x40;

/// The BAR of the structures.
pub(super) const STRUCTURES: u8 = 0;
/// The BAR of the MSI-X table.
pub(super) const MSIX: u8 = 1;

/// Bytes of BAR 0.
const STRUCTURES_LEN: u32 = 0x4000;
/// Each structure has so much room, the first nothing before it.
pub(super) const ROOM: u32 = 0x1000;
/// Bytes of the common configuration (4.1.4.3), without the fields of features that are not here.
const COMMON_LEN: u32 = 0x38;
/// From one queue's notification address to the next.
pub(super) const NOTIFY_STEP: u32 = 4;

/// The structures of BAR 0, in the order in which they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Structure {
    Common,
    Isr,
    Device,
    Notify,
}

impl Structure {
    /// The one at `offset` of BAR 0, and the offset in it.
    pub(super) fn at(offset: u32) -> (Self, u32) {
        let structure = match offset / ROOM {
            0 => Self::Common,
            1 => Self::Isr,
            2 => Self::Device,
            _ => Self::Notify,
        };
        (structure, offset % ROOM)
    }

    fn offset(self) -> u32 {
        ROOM * self as u32
    }

    /// cfg_type (4.1.4).
    fn kind(self) -> u8 {
        match self {
            Self::Common => 1,
            Self::Notify => 2,
            Self::Isr => 3,
            Self::Device => 4,
        }
    }
}

/// cfg_type of the window through the configuration space.
const WINDOW_KIND: u8 = 5;

/// Where what the function itself acts on is in the configuration space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// The MSI-X capability.
    pub(super) msix: u16,
    /// VIRTIO_PCI_CAP_PCI_CFG.
    pub(super) window: u16,
}

/// The configuration space of a device of type `kind` with so many `queues`.
pub(super) fn config(kind: u32, class: [u8; 3], queues: u16) -> (Config, Places) {
    let mut config = Config::new(&Identity {
        vendor: VENDOR,
        device: DEVICE_BASE + kind as u16,
        revision: REVISION,
        class,
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
    });
    config.add_interrupt_pin();
    config.add_bar(STRUCTURES_LEN);
    config.add_bar(Msix::BAR);
    let msix = config.add_capability(CAP_MSIX, &msix(queues + 1), &[0x00, 0xC0]);
    for (structure, len) in
        [(Structure::Common, COMMON_LEN), (Structure::Isr, 1), (Structure::Device, ROOM)]
    {
        let body = capability(structure.kind(), structure.offset(), len, None);
        config.add_capability(CAP_VENDOR, &body, &[]);
    }
    let len = u32::from(queues) * NOTIFY_STEP;
    let offset = Structure::Notify.offset();
    let notify = capability(Structure::Notify.kind(), offset, len, Some(NOTIFY_STEP));
    config.add_capability(CAP_VENDOR, &notify, &[]);
    // The driver chooses BAR, offset and length, and has the data after them.
    let writable = [&[0, 0, 0xFF, 0, 0, 0], &[0xFF; 12][..]].concat();
    let window = capability(WINDOW_KIND, 0, 0, Some(0));
    let window = config.add_capability(CAP_VENDOR, &window, &writable);
    (config, Places { msix, window })
}

/// The MSI-X capability after identifier and link (PCI Local Bus 3.0, 6.8.2).
fn msix(vectors: u16) -> Vec<u8> {
    let mut body = (vectors - 1).to_le_bytes().to_vec();
    body.extend(u32::from(MSIX).to_le_bytes());
    body.extend((Msix::PENDING | u32::from(MSIX)).to_le_bytes());
    body
}

/// struct virtio_pci_cap after cap_vndr and cap_next (4.1.4), and what follows it.
fn capability(kind: u8, offset: u32, len: u32, more: Option<u32>) -> Vec<u8> {
    let cap_len = if more.is_some() { 20 } else { 16 };
    let mut body = vec![cap_len, kind, STRUCTURES, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(more.into_iter().flat_map(u32::to_le_bytes));
    body
}
