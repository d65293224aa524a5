//! Differentiated system description table (ACPI 6.4, 5.2.11.1): processors, legacy devices, PCI,
//! virtio devices, \_S5.

use super::config::{AcpiConfig, VirtioMmio};
use super::parts::{byte, low, table};
use super::{generation, pci};
use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};

/// The table.
pub(super) fn dsdt(config: &AcpiConfig) -> Vec<u8> {
    let mut code = Vec::new();
    soft_off(config).to_aml_bytes(&mut code);
    code.extend(system_bus(config));
    let mut t = table(*b"DSDT", 36, 2);
    t.append_slice(&code);
    t.as_slice().to_vec()
}

/// \_S5 (7.4.2.6): SLP_TYPa, SLP_TYPb, reserved, reserved.
fn soft_off(config: &AcpiConfig) -> Name {
    let (kind, zero) = (byte(config.s5_sleep_type & 7), byte(0));
    Name::new("_S5_".into(), &Package::new(vec![&kind, &kind, &zero, &zero]))
}

/// \_SB with everything in it.
fn system_bus(config: &AcpiConfig) -> Vec<u8> {
    let mut inside = Vec::new();
    for id in 0..config.cpus {
        processor(&mut inside, id);
    }
    if config.com1 {
        device(&mut inside, "COM1", "PNP0501", &[&IO::new(0x3f8, 0x3f8, 1, 8), &isa_irq(4)]);
    }
    if config.rtc {
        device(&mut inside, "RTC_", "PNP0B00", &[&IO::new(0x70, 0x70, 1, 2), &isa_irq(8)]);
    }
    if config.i8042 {
        let ports = [IO::new(0x60, 0x60, 1, 1), IO::new(0x64, 0x64, 1, 1)];
        device(&mut inside, "PS2K", "PNP0303", &[&ports[0], &ports[1], &isa_irq(1)]);
    }
    pci::devices(&mut inside, &config.pci);
    generation::devices(&mut inside, config.generation);
    for (id, device) in (0..=0xff).zip(&config.virtio) {
        virtio_mmio(&mut inside, id, *device);
    }
    Scope::raw("\\_SB_".into(), inside)
}

/// An edge-triggered, active-high, exclusive interrupt.
fn isa_irq(irq: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, irq)
}

/// A device that is its id, its resources and nothing else.
fn device(out: &mut Vec<u8>, name: &str, id: &str, resources: &[&dyn Aml]) {
    let hid = Name::new("_HID".into(), &EISAName::new(id));
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources.to_vec()));
    Device::new(name.into(), vec![&hid, &crs]).to_aml_bytes(out);
}

/// A processor (8.4): its uid links it to the MADT's entry.
fn processor(out: &mut Vec<u8>, id: u32) {
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let uid = Name::new("_UID".into(), &id);
    Device::new(format!("C{id:03X}").as_str().into(), vec![&hid, &uid]).to_aml_bytes(out);
}

/// A virtio device: the id is Linux's name for the MMIO transport.
fn virtio_mmio(out: &mut Vec<u8>, id: u32, device: VirtioMmio) {
    let hid = Name::new("_HID".into(), &"LNRO0005");
    let uid = Name::new("_UID".into(), &id);
    let memory = Memory32Fixed::new(true, low(device.address), VirtioMmio::SIZE);
    let irq = Interrupt::new(true, false, false, false, device.gsi.0);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &irq]));
    Device::new(format!("V{id:03X}").as_str().into(), vec![&hid, &uid, &crs]).to_aml_bytes(out);
}
