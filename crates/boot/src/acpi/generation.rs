//! The VM generation ID (Microsoft's "Virtual Machine Generation ID", 2012): 16 bytes in memory
//! that a guest reads, and is told of when they change.
//!
//! The notice comes by a generic event device (ACPI 6.4, 5.6.9): an interrupt of its own, and a
//! method that the guest runs for it.

use super::parts::{byte, low};
use crate::layout;
use acpi_tables::Aml;
use acpi_tables::aml::{Device, Interrupt, Method, Name, Notify, Package, Path, ResourceTemplate};
use x86::addr::{Gpa, Gsi};

/// Where the ID lies in memory: 16 bytes.
pub const GENERATION_ID: Gpa = layout::ACPI_START.wrapping_add(64);
/// Bytes of its place.
pub(super) const ROOM: u64 = 64;

/// The device with the ID, and the event device, which `interrupt` belongs to.
pub(super) fn devices(out: &mut Vec<u8>, interrupt: Gsi) {
    let hid = Name::new("_HID".into(), &"VMGENCTR");
    let cid = Name::new("_CID".into(), &"VM_Gen_Counter");
    let ddn = Name::new("_DDN".into(), &"VM_Gen_Counter");
    let (low, high) = (low(GENERATION_ID), byte(0));
    let address = Name::new("ADDR".into(), &Package::new(vec![&low, &high]));
    Device::new("VGEN".into(), vec![&hid, &cid, &ddn, &address]).to_aml_bytes(out);
    let hid = Name::new("_HID".into(), &"ACPI0013");
    let interrupt = Interrupt::new(true, true, false, false, interrupt.0);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt]));
    let (device, changed) = (Path::new("\\_SB_.VGEN"), byte(0x80));
    let notify = Notify::new(&device, &changed);
    let event = Method::new("_EVT".into(), 1, true, vec![&notify]);
    Device::new("GED_".into(), vec![&hid, &crs, &event]).to_aml_bytes(out);
}
