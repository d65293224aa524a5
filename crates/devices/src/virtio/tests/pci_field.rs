//! The MMIO transport's registers on PCI: for tests, which know them by the former's offsets.

use x86::addr::PortWidth;

/// Where the MMIO transport's `register` is in BAR 0 of a function (virtio 1.2, 4.1.4.3), and how
/// wide.
pub(super) fn pci_field(register: u64) -> Option<(u32, PortWidth)> {
    let low = register as u32 & 4;
    let field = match register {
        0x10 => (0x04, PortWidth::B4),
        0x14 => (0x00, PortWidth::B4),
        0x20 => (0x0C, PortWidth::B4),
        0x24 => (0x08, PortWidth::B4),
        0x30 => (0x16, PortWidth::B2),
        0x34 | 0x38 => (0x18, PortWidth::B2),
        0x44 => (0x1C, PortWidth::B2),
        0x70 => (0x14, PortWidth::B1),
        0x80 | 0x84 => (0x20 + low, PortWidth::B4),
        0x90 | 0x94 => (0x28 + low, PortWidth::B4),
        0xa0 | 0xa4 => (0x30 + low, PortWidth::B4),
        0xfc => (0x15, PortWidth::B1),
        0x100..0x1100 => (0x2000 + (register as u32 - 0x100), PortWidth::B4),
        _ => return None,
    };
    Some(field)
}
