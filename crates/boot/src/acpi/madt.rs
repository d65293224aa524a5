//! Multiple APIC description table (ACPI 6.4, 5.2.12): processors, I/O APIC, ISA overrides, NMI
//! wiring.

use super::config::AcpiConfig;
use super::parts::{low, table};

/// The 8259 pair is there too.
const PCAT_COMPAT: u32 = 1;
/// A processor that is enabled.
const ENABLED: u32 = 1;
/// The first APIC id that an 8-bit entry cannot name (255 is its broadcast).
const FIRST_X2APIC_ID: u32 = 255;
/// MPS INTI flags (table 5.26): active low, level triggered.
const LOW_LEVEL: u16 = 0b1111;

/// The table.
pub(super) fn madt(config: &AcpiConfig) -> Vec<u8> {
    let mut entries = Vec::new();
    for id in 0..config.cpus {
        match u8::try_from(id) {
            Ok(id) if u32::from(id) < FIRST_X2APIC_ID => local_apic(&mut entries, id),
            _ => local_x2apic(&mut entries, id),
        }
    }
    io_apic(&mut entries, config);
    // ISA: the 8254 is wired to input 2, the SCI is a level; all others are identical and edge
    // triggered.
    interrupt_override(&mut entries, 0, 2, 0);
    interrupt_override(&mut entries, config.sci.0 as u8, config.sci.0, LOW_LEVEL);
    nmi_at_lint1(&mut entries);
    if config.cpus > FIRST_X2APIC_ID {
        x2apic_nmi_at_lint1(&mut entries);
    }
    let mut t = table(*b"APIC", 44, 5);
    t.write_u32(36, low(config.lapic_address));
    t.write_u32(40, PCAT_COMPAT);
    t.append_slice(&entries);
    t.as_slice().to_vec()
}

/// 5.2.12.2; the processor's uid equals its APIC id.
fn local_apic(out: &mut Vec<u8>, id: u8) {
    out.extend([0, 8, id, id]);
    out.extend(ENABLED.to_le_bytes());
}

/// 5.2.12.12.
fn local_x2apic(out: &mut Vec<u8>, id: u32) {
    out.extend([9, 16, 0, 0]);
    out.extend([id, ENABLED, id].into_iter().flat_map(u32::to_le_bytes));
}

/// 5.2.12.3.
fn io_apic(out: &mut Vec<u8>, config: &AcpiConfig) {
    out.extend([1, 12, config.ioapic_id, 0]);
    out.extend(low(config.ioapic_address).to_le_bytes());
    out.extend(0u32.to_le_bytes());
}

/// 5.2.12.5.
fn interrupt_override(out: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    out.extend([2, 10, 0, irq]);
    out.extend(gsi.to_le_bytes());
    out.extend(flags.to_le_bytes());
}

/// 5.2.12.7, for all processors.
fn nmi_at_lint1(out: &mut Vec<u8>) {
    out.extend([4, 6, 0xff, 0, 0, 1]);
}

/// 5.2.12.13, for all processors.
fn x2apic_nmi_at_lint1(out: &mut Vec<u8>) {
    out.extend([0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
}
