//! The firmware tables (ACPI 6.4): RSDP, RSDT, XSDT, FADT, MADT, MCFG, DSDT, FACS.
//!
//! A full-hardware (not "hardware-reduced") machine that is always in ACPI mode: no SMI command
//! port.

mod config;
mod dsdt;
mod fadt;
mod generation;
mod madt;
mod parts;
mod pci;

use crate::bytes::{Put as _, align_up};
use crate::{Piece, layout};
use acpi_tables::Aml as _;
use acpi_tables::rsdp::Rsdp;
pub use config::{AcpiConfig, PciHost, VirtioMmio};
pub use generation::GENERATION_ID;
use parts::{OEM_ID, table};
use x86::addr::Gpa;

/// All tables, the RSDP first at [`layout::ACPI_START`].
pub(crate) fn tables(config: &AcpiConfig) -> Vec<Piece> {
    let config = AcpiConfig { cpus: config.cpus.clamp(1, AcpiConfig::MAX_CPUS), ..config.clone() };
    let mut area = Area { next: layout::ACPI_START.0, pieces: Vec::new() };
    let rsdp_gpa = area.next;
    area.next += 64;
    area.next += generation::ROOM;
    let facs = area.add(facs(), "ACPI FACS");
    let dsdt = area.add(dsdt::dsdt(&config), "ACPI DSDT");
    let fadt = area.add(fadt::fadt(&config, facs, dsdt), "ACPI FADT");
    let madt = area.add(madt::madt(&config), "ACPI MADT");
    let mcfg = area.add(pci::mcfg(&config.pci), "ACPI MCFG");
    let listed = [fadt, madt, mcfg];
    let rsdt = area.add(root(*b"RSDT", &listed.map(|gpa| (gpa as u32).to_le_bytes())), "ACPI RSDT");
    let xsdt = area.add(root(*b"XSDT", &listed.map(u64::to_le_bytes)), "ACPI XSDT");
    area.pieces.insert(0, Piece { gpa: Gpa(rsdp_gpa), bytes: rsdp(rsdt, xsdt), what: "ACPI RSDP" });
    area.pieces
}

/// The part of low memory that is being filled, 64-byte aligned (the FACS asks for it).
struct Area {
    next: u64,
    pieces: Vec<Piece>,
}

impl Area {
    fn add(&mut self, bytes: Vec<u8>, what: &'static str) -> u64 {
        let gpa = self.next;
        self.next = align_up(gpa + bytes.len() as u64, 64).unwrap_or(layout::HIGH_MEMORY.0);
        self.pieces.push(Piece { gpa: Gpa(gpa), bytes, what });
        gpa
    }
}

/// RSDP, revision 2 (5.2.5.3), naming both root tables: old guests know the RSDT alone.
fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut bytes);
    bytes.put(16, &(rsdt as u32).to_le_bytes());
    fix_sum(&mut bytes, 8, 20);
    fix_sum(&mut bytes, 32, 36);
    bytes
}

/// RSDT or XSDT: the header, then pointers (5.2.7, 5.2.8).
fn root<const N: usize>(signature: [u8; 4], pointers: &[[u8; N]]) -> Vec<u8> {
    let mut table = table(signature, 36, 1);
    table.append_slice(pointers.as_flattened());
    table.as_slice().to_vec()
}

/// FACS (5.2.10): nothing but its size and version; sleep states other than S5 do not exist here.
fn facs() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes.put(0, b"FACS");
    bytes.put(4, &64u32.to_le_bytes());
    bytes.put(32, &[2]);
    bytes
}

/// Sets the byte at `at` so that the first `len` bytes sum up to zero.
fn fix_sum(bytes: &mut Vec<u8>, at: usize, len: usize) {
    bytes.put(at, &[0]);
    let sum = bytes.iter().take(len).fold(0u8, |sum, b| sum.wrapping_add(*b));
    bytes.put(at, &[sum.wrapping_neg()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{u32_at, u64_at};
    use x86::addr::Gsi;

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0
    }

    fn find(pieces: &[Piece], gpa: u64) -> &[u8] {
        &pieces.iter().find(|p| p.gpa == Gpa(gpa)).expect("a table at that address").bytes
    }

    fn check(config: &AcpiConfig) -> Vec<Piece> {
        let pieces = tables(config);
        let rsdp = &pieces[0];
        assert_eq!(rsdp.gpa, layout::ACPI_START);
        assert!(sums_to_zero(&rsdp.bytes[..20]) && sums_to_zero(&rsdp.bytes));
        let xsdt = find(&pieces, u64_at(&rsdp.bytes, 24).unwrap());
        let rsdt = find(&pieces, u32_at(&rsdp.bytes, 16).unwrap().into());
        for (long, short) in xsdt[36..].chunks(8).zip(rsdt[36..].chunks(4)) {
            assert_eq!(long[..4], *short);
            let gpa = u64::from_le_bytes(long.try_into().unwrap());
            let table = find(&pieces, gpa);
            assert!(sums_to_zero(table));
        }
        for piece in pieces.iter().filter(|p| !p.what.contains("RSDP") && !p.what.contains("FACS"))
        {
            assert_eq!(u32_at(&piece.bytes, 4), Some(piece.bytes.len() as u32), "{}", piece.what);
            assert!(sums_to_zero(&piece.bytes), "{}", piece.what);
        }
        let end = pieces.iter().map(|p| p.gpa.0 + p.bytes.len() as u64).max();
        assert!(end.unwrap() <= layout::HIGH_MEMORY.0);
        pieces
    }

    #[test]
    fn every_table_is_linked_and_sums_to_zero() {
        check(&AcpiConfig::example());
        check(&AcpiConfig {
            cpus: 300,
            com1: false,
            i8042: false,
            rtc: false,
            ..AcpiConfig::example()
        });
        check(&AcpiConfig { cpus: u32::MAX, ..AcpiConfig::example() });
    }

    #[test]
    fn virtio_devices_have_id_registers_and_level_interrupt() {
        let device = |n: u32| VirtioMmio {
            address: Gpa(0xfeb0_0000 + (u64::from(n) << 12)),
            gsi: Gsi(16 + n),
        };
        let virtio = vec![device(0), device(1)];
        let pieces = check(&AcpiConfig { virtio, ..AcpiConfig::example() });
        let dsdt = &pieces.iter().find(|p| p.what == "ACPI DSDT").unwrap().bytes;
        let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"LNRO0005\0") && has(b"V000") && has(b"V001"));
        // Memory32Fixed (6.4.3.4), read and write; then Interrupt (6.4.3.6): consumer, level,
        // active high, exclusive.
        assert!(has(&[0x86, 9, 0, 1, 0, 0x10, 0xb0, 0xfe, 0, 0x10, 0, 0]));
        assert!(has(&[0x89, 6, 0, 0b0001, 1, 17, 0, 0, 0]));
    }

    #[test]
    fn the_pci_host_bridge_has_its_windows_and_every_device_an_interrupt() {
        let pieces = check(&AcpiConfig::example());
        let mcfg = &pieces.iter().find(|p| p.what == "ACPI MCFG").unwrap().bytes;
        assert_eq!(mcfg.len(), 60);
        assert_eq!((u64_at(mcfg, 44), u64_at(mcfg, 52)), (Some(0xE000_0000), Some(0)));
        let dsdt = &pieces.iter().find(|p| p.what == "ACPI DSDT").unwrap().bytes;
        let count = |bytes: &[u8]| dsdt.windows(bytes.len()).filter(|w| w == &bytes).count();
        // EISA ids PNP0A08 and PNP0C02.
        assert_eq!((count(&[0x41, 0xD0, 0x0A, 0x08]), count(&[0x41, 0xD0, 0x0C, 0x02])), (1, 1));
        // The configuration window is a Memory32Fixed; BARs have a DWord address space (6.4.3.5.2).
        assert_eq!(count(&[0x86, 9, 0, 1, 0, 0, 0, 0xE0, 0, 0, 0x10, 0]), 1);
        assert_eq!(count(&[0, 0, 0, 0xC0, 0xFF, 0xFF, 0xFF, 0xDF]), 1);
        // Device 9's INTA#: a package of address, pin, no link, GSI.
        assert_eq!(count(&[0x0C, 0xFF, 0xFF, 9, 0, 0, 0, 0x0A, 17]), 1);
    }

    #[test]
    fn the_generation_id_is_where_the_tables_say() {
        let pieces = check(&AcpiConfig::example());
        let end = GENERATION_ID.0 + generation::ROOM;
        let free = |p: &Piece| p.gpa.0 >= end || p.gpa.0 + p.bytes.len() as u64 <= GENERATION_ID.0;
        assert!(pieces.iter().all(free));
        let dsdt = &pieces.iter().find(|p| p.what == "ACPI DSDT").unwrap().bytes;
        let has = |bytes: &[u8]| dsdt.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"VM_Gen_Counter\0") && has(b"ACPI0013\0"));
        // ADDR is a package (20.2.5.4) of two numbers: DWord E0040H, zero.
        assert!(has(b"ADDR\x12\x08\x02\x0C\x40\x00\x0E\x00"));
        // Interrupt (6.4.3.6): consumer, edge, active high, exclusive.
        assert!(has(&[0x89, 6, 0, 0b0011, 1, 10, 0, 0, 0]));
    }

    #[test]
    fn the_fadt_names_facs_and_dsdt() {
        let pieces = check(&AcpiConfig::example());
        let fadt = pieces.iter().find(|p| p.what == "ACPI FADT").unwrap();
        assert_eq!(find(&pieces, u32_at(&fadt.bytes, 36).unwrap().into())[..4], *b"FACS");
        assert_eq!(find(&pieces, u32_at(&fadt.bytes, 40).unwrap().into())[..4], *b"DSDT");
        assert_eq!(u64_at(&fadt.bytes, 140).map(|x| x as u32), u32_at(&fadt.bytes, 40));
    }

    #[test]
    fn madt_describes_every_processor_and_both_overrides() {
        for cpus in [1, 2, 255, 256, 300] {
            let pieces = tables(&AcpiConfig { cpus, ..AcpiConfig::example() });
            let madt = &pieces.iter().find(|p| p.what == "ACPI MADT").unwrap().bytes;
            let mut rest = &madt[44..];
            let mut processors = 0;
            let mut overrides = Vec::new();
            while let [kind, len, ..] = *rest {
                match kind {
                    0 | 9 => processors += 1,
                    2 => overrides.push((rest[3], u32_at(rest, 4).unwrap(), rest[8])),
                    _ => {}
                }
                rest = &rest[usize::from(len)..];
            }
            assert!(rest.is_empty());
            assert_eq!(processors, cpus);
            assert_eq!(overrides, [(0, 2, 0), (9, 9, 0xf)]);
        }
    }
}
