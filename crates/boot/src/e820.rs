//! The memory map the guest is told (ACPI 6.4, chapter 15), and the BIOS data area's few bytes.

use crate::place::subtract;
use crate::{Run, layout};
use x86::addr::Gpa;

/// What a range is (ACPI 6.4, table 15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// RAM for the guest to use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// Guest-physical address.
    pub gpa: Gpa,
    /// Bytes.
    pub len: u64,
    /// Kind.
    pub kind: E820Type,
}

/// What the guest must leave alone in the first MiB.
const RESERVED: [Run; 2] = [
    (layout::EBDA, layout::VGA_HOLE.0 - layout::EBDA.0),
    (layout::ACPI_START, layout::HIGH_MEMORY.0 - layout::ACPI_START.0),
];

/// The map of a machine with these RAM ranges, ascending and disjoint, and PCI's configuration
/// window at `ecam` (PCI Firmware 3.2, 4.1.2).
pub(crate) fn map(ram: &[Run], ecam: Run) -> Vec<E820Entry> {
    let hole = (layout::EBDA, layout::HIGH_MEMORY.0 - layout::EBDA.0);
    let usable = subtract(ram, hole);
    let entry = |kind| move |(gpa, len)| E820Entry { gpa, len, kind };
    let mut map: Vec<_> = usable.into_iter().map(entry(E820Type::Ram)).collect();
    map.extend(RESERVED.into_iter().chain([ecam]).map(entry(E820Type::Reserved)));
    map.sort_by_key(|e| e.gpa);
    map
}

/// BIOS data area from 400H: COM1 at 3F8H, EBDA segment at 40EH, KiB of conventional memory at
/// 413H.
pub(crate) fn bios_data_area() -> Vec<u8> {
    let mut bda = vec![0; 0x15];
    bda[0..2].copy_from_slice(&0x3f8u16.to_le_bytes());
    bda[0xe..0x10].copy_from_slice(&((layout::EBDA.0 >> 4) as u16).to_le_bytes());
    bda[0x13..0x15].copy_from_slice(&((layout::EBDA.0 >> 10) as u16).to_le_bytes());
    bda
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_ascending_disjoint_and_hides_the_holes() {
        let ecam = (Gpa(0xe000_0000), 1 << 20);
        let map = map(&[(Gpa(0), 0xc000_0000), (Gpa(1 << 32), 1 << 30)], ecam);
        assert!(map.windows(2).all(|w| w[0].gpa.wrapping_add(w[0].len) <= w[1].gpa));
        let ram: Vec<_> =
            map.iter().filter(|e| e.kind == E820Type::Ram).map(|e| (e.gpa.0, e.len)).collect();
        let want = [(0, 0x9_fc00), (0x10_0000, 0xc000_0000 - 0x10_0000), (1 << 32, 1 << 30)];
        assert_eq!(ram, want);
        let reserved = E820Entry { gpa: ecam.0, len: ecam.1, kind: E820Type::Reserved };
        assert!(map.contains(&reserved));
    }
}
