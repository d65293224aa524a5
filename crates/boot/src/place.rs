//! Finds room in RAM and collects the pieces, each inside RAM and none over another.

use crate::bytes::align_up;
use crate::{BootError, Piece, Run, layout};
use x86::addr::Gpa;

/// RAM and what has been placed in it so far.
#[derive(Debug)]
pub(crate) struct Placer {
    ram: Vec<Run>,
    taken: Vec<Run>,
    pieces: Vec<Piece>,
}

/// Granularity of the sizes that messages recommend.
const MIB: u64 = 1 << 20;

impl Placer {
    /// Over `ram`, which must hold this crate's own low tables.
    pub(crate) fn new(ram: &[Run]) -> Result<Self, BootError> {
        let placer = Self { ram: merge(ram), taken: Vec::new(), pieces: Vec::new() };
        placer.require("the boot area", Gpa(0), layout::VGA_HOLE.0)?;
        let acpi = layout::HIGH_MEMORY.0 - layout::ACPI_START.0;
        placer.require("the firmware table area", layout::ACPI_START, acpi)?;
        Ok(placer)
    }

    /// Bytes of RAM.
    pub(crate) fn size(&self) -> u64 {
        self.ram.iter().fold(0u64, |sum, r| sum.saturating_add(r.1))
    }

    /// Fails unless `len` bytes at `gpa` are RAM.
    fn require(&self, name: &str, gpa: Gpa, len: u64) -> Result<(), BootError> {
        let fits = |&(start, size): &Run| {
            gpa.checked_distance(start).is_some_and(|o| o <= size && len <= size - o)
        };
        if self.ram.iter().any(fits) { Ok(()) } else { Err(self.too_little(name, gpa, len)) }
    }

    /// The error for `bytes` that have to lie at `gpa` and cannot.
    pub(crate) fn too_little(&self, name: &str, gpa: Gpa, bytes: u64) -> BootError {
        // What lies above 4 GiB counts from the end of the hole below it: one GiB at the most.
        let needed =
            align_up(gpa.saturating_add(bytes).0, MIB).unwrap_or(u64::MAX).saturating_add(8 * MIB);
        BootError::TooLittleMemory { name: name.to_owned(), gpa, bytes, ram: self.size(), needed }
    }

    /// Whether `len` bytes at `gpa` are RAM that nothing occupies.
    pub(crate) fn is_free(&self, gpa: Gpa, len: u64) -> bool {
        self.free().iter().any(|&(start, size)| {
            gpa.checked_distance(start).is_some_and(|o| o <= size && len <= size - o)
        })
    }

    /// Keeps others from `len` bytes at `gpa`, on behalf of the file `name`.
    pub(crate) fn reserve(&mut self, name: &str, gpa: Gpa, len: u64) -> Result<(), BootError> {
        self.require(name, gpa, len)?;
        if !self.is_free(gpa, len) {
            let what =
                format!("asks to be loaded at {gpa:#x}..+{len:#x}, over another part of the boot");
            let remedy = "its link address must leave the first MiB and its own other parts alone";
            return Err(BootError::Unsupported { name: name.to_owned(), what, remedy });
        }
        if len > 0 {
            self.taken.push((gpa, len));
        }
        Ok(())
    }

    /// Places `bytes` at `gpa`, in space that was not reserved before.
    pub(crate) fn add(
        &mut self,
        gpa: Gpa,
        bytes: Vec<u8>,
        what: &'static str,
    ) -> Result<(), BootError> {
        self.reserve(what, gpa, bytes.len() as u64)?;
        self.add_reserved(gpa, bytes, what);
        Ok(())
    }

    /// Places `bytes` at `gpa`, in space that the caller has reserved.
    pub(crate) fn add_reserved(&mut self, gpa: Gpa, bytes: Vec<u8>, what: &'static str) {
        if !bytes.is_empty() {
            self.pieces.push(Piece { gpa, bytes, what });
        }
    }

    /// The highest free address for `len` bytes, page aligned, at `floor` or above, whose last byte
    /// is at most `max`.
    pub(crate) fn highest(&self, len: u64, floor: Gpa, max: Gpa) -> Option<Gpa> {
        let fit = |&(start, size): &Run| {
            let end = start.saturating_add(size).min(max.saturating_add(1));
            let gpa = end.checked_sub(len)?.page();
            (gpa >= start.max(floor)).then_some(gpa)
        };
        self.free().iter().filter_map(fit).max()
    }

    /// The lowest free address for `len` bytes, a multiple of `align`, at `floor` or above, whose
    /// last byte is at most `max`.
    pub(crate) fn lowest(&self, len: u64, align: u64, floor: Gpa, max: Gpa) -> Option<Gpa> {
        let fit = |&(start, size): &Run| {
            let end = start.saturating_add(size).min(max.saturating_add(1));
            let gpa = Gpa(align_up(start.max(floor).0, align)?);
            (gpa.checked_add(len)? <= end).then_some(gpa)
        };
        self.free().iter().filter_map(fit).min()
    }

    /// The largest free run between `floor` and `max`.
    pub(crate) fn largest(&self, floor: Gpa, max: Gpa) -> u64 {
        let run = |&(start, size): &Run| {
            let end = start.saturating_add(size).min(max.saturating_add(1));
            end.checked_distance(start.max(floor)).unwrap_or(0)
        };
        self.free().iter().map(run).max().unwrap_or(0)
    }

    /// RAM minus what is taken, as runs.
    fn free(&self) -> Vec<Run> {
        self.taken.iter().fold(self.ram.clone(), |runs, &hole| subtract(&runs, hole))
    }

    /// The pieces, in ascending order.
    pub(crate) fn finish(mut self) -> Vec<Piece> {
        self.pieces.sort_by_key(|p| p.gpa);
        self.pieces
    }
}

/// `runs` without `hole`.
pub(crate) fn subtract(runs: &[Run], hole: Run) -> Vec<Run> {
    let (hole_start, hole_end) = (hole.0, hole.0.saturating_add(hole.1));
    let pieces = |&(start, len): &Run| {
        let end = start.saturating_add(len);
        let below = (start, hole_start.clamp(start, end).wrapping_distance(start));
        let above_start = hole_end.clamp(start, end);
        [below, (above_start, end.wrapping_distance(above_start))]
    };
    runs.iter().flat_map(pieces).filter(|r| r.1 > 0).collect()
}

/// Ascending runs, neighbours joined.
fn merge(ram: &[Run]) -> Vec<Run> {
    let mut sorted = ram.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (start, len) in sorted {
        match runs.last_mut() {
            Some(last) if last.0.saturating_add(last.1) >= start => {
                let end = start.saturating_add(len).max(last.0.saturating_add(last.1));
                last.1 = end.wrapping_distance(last.0);
            }
            _ => runs.push((start, len)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Gpa = Gpa(u64::MAX);
    const BELOW_4_GIB: Gpa = Gpa(u32::MAX as u64);
    const RAM: &[Run] = &[(Gpa(0), 64 << 20), (Gpa(1 << 32), 64 << 20)];

    #[test]
    fn highest_respects_both_bounds_and_what_is_taken() {
        let mut placer = Placer::new(RAM).unwrap();
        assert_eq!(
            placer.highest(0x1000, Gpa(0), LAST),
            Some(Gpa((1 << 32) + (64 << 20) - 0x1000))
        );
        assert_eq!(placer.highest(0x1001, Gpa(0), BELOW_4_GIB), Some(Gpa((64 << 20) - 0x2000)));
        placer.add(Gpa((64 << 20) - 0x1800), vec![0; 0x1800], "x").unwrap();
        assert_eq!(placer.highest(0x1000, Gpa(0), BELOW_4_GIB), Some(Gpa((64 << 20) - 0x3000)));
        assert_eq!(placer.highest(65 << 20, Gpa(0), LAST), None);
    }

    #[test]
    fn overlap_is_refused() {
        let mut placer = Placer::new(RAM).unwrap();
        placer.add(Gpa(0x20_0000), vec![0; 0x1000], "a").unwrap();
        assert!(placer.add(Gpa(0x20_0fff), vec![0; 1], "b").is_err());
        placer.add(Gpa(0x20_1000), vec![0; 1], "c").unwrap();
    }

    #[test]
    fn a_machine_without_low_memory_is_too_small() {
        let error = Placer::new(&[(Gpa(0), 0x8_0000)]).unwrap_err().to_string();
        assert!(error.contains("`memory`"), "{error}");
    }

    #[test]
    fn ranges_at_the_end_of_the_address_space_do_not_overflow() {
        let placer = Placer::new(&[(Gpa(0), 1 << 21), (Gpa(u64::MAX - 5), 5)]).unwrap();
        assert!(!placer.is_free(Gpa(u64::MAX), u64::MAX));
        assert_eq!(placer.lowest(u64::MAX, 0x1000, Gpa(0), LAST), None);
    }
}
