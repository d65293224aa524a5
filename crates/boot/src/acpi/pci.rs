//! PCI in the firmware tables: the MCFG (PCI Firmware 3.2, 4.1.2), and the host bridge in the DSDT
//! (4.2, 4.5; ACPI 6.4, 6.2.11, 6.2.13).

use super::config::PciHost;
use super::parts::{byte, low, table};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    IO, If, Memory32Fixed, Method, Name, Or, Package, PackageBuilder, Path, ResourceTemplate,
    Return, Uuid,
};

/// What _OSC is asked about: a PCI host bridge's capabilities.
const OSC_PCI: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
/// _OSC's first word: the UUID is not known; some capability was not granted.
const UNKNOWN_UUID: u8 = 1 << 2;
const MASKED: u8 = 1 << 4;

/// The MCFG: where the configuration window of bus 0 is.
pub(super) fn mcfg(host: &PciHost) -> Vec<u8> {
    let mut t = table(*b"MCFG", 44, 1);
    t.append_slice(&host.ecam.0.to_le_bytes());
    // Segment group, first bus, last bus, reserved.
    t.append_slice(&[0; 8]);
    t.as_slice().to_vec()
}

/// The host bridge, and the board's resource that its configuration window is.
pub(super) fn devices(out: &mut Vec<u8>, host: &PciHost) {
    let window = Memory32Fixed::new(true, low(host.ecam), PciHost::ECAM_SIZE);
    let board = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let reserved = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window]));
    Device::new("MBRD".into(), vec![&board, &reserved]).to_aml_bytes(out);
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let zero = byte(0);
    let uid = Name::new("_UID".into(), &zero);
    let segment = Name::new("_SEG".into(), &zero);
    let bus = Name::new("_BBN".into(), &zero);
    let resources = resources(host);
    let routing = routing(host);
    let mut osc = Vec::new();
    control(&mut osc);
    let osc = Raw(osc);
    let children: Vec<&dyn Aml> =
        vec![&hid, &cid, &uid, &segment, &bus, &resources, &routing, &osc];
    Device::new("PCI0".into(), children).to_aml_bytes(out);
}

/// _CRS: the bus, the ports of configuration mechanism #1, the window for BARs.
fn resources(host: &PciHost) -> Name {
    let buses = AddressSpace::new_bus_number(0_u16, 0);
    let ports = IO::new(0xCF8, 0xCF8, 1, 8);
    let (first, last) = (low(*host.memory.start()), low(*host.memory.end()));
    let cache = AddressSpaceCacheable::NotCacheable;
    let memory = AddressSpace::new_memory(cache, true, first, last, None);
    Name::new("_CRS".into(), &ResourceTemplate::new(vec![&buses, &ports, &memory]))
}

/// _PRT: address (device, any function), pin, no link device, interrupt.
fn routing(host: &PciHost) -> Name {
    let mut table = PackageBuilder::new();
    for (device, gsi) in &host.interrupts {
        let address = u32::from(*device) << 16 | 0xFFFF;
        let (inta, no_link) = (byte(0), byte(0));
        table.add_element(&Package::new(vec![&address, &inta, &no_link, &gsi.0]));
    }
    Name::new("_PRT".into(), &table)
}

/// _OSC: the system gets no control of features, none of which is here.
fn control(out: &mut Vec<u8>) {
    let (uuid, buffer) = (Uuid::new(OSC_PCI), Arg(3));
    let (status, granted): (Path, Path) = ("CDW1".into(), "CDW3".into());
    let (zero, eight) = (byte(0), byte(8));
    let status_field = CreateDWordField::new(&status, &buffer, &zero);
    let granted_field = CreateDWordField::new(&granted, &buffer, &eight);
    let (masked, unknown) = (byte(MASKED), byte(UNKNOWN_UUID));
    let (tell_masked, tell_unknown) =
        (Or::new(&status, &status, &masked), Or::new(&status, &status, &unknown));
    let nothing = And::new(&granted, &granted, &zero);
    let asked = If::new(&granted, vec![&tell_masked]);
    let ours = Equal::new(&Arg(0), &uuid);
    let known = If::new(&ours, vec![&granted_field, &asked, &nothing]);
    let other = Else::new(vec![&tell_unknown]);
    let result = Return::new(&buffer);
    let children: Vec<&dyn Aml> = vec![&status_field, &known, &other, &result];
    Method::new("_OSC".into(), 4, true, children).to_aml_bytes(out);
}

/// Code that is encoded already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}
