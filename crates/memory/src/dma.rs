//! What devices wrote to guest memory behind the processors' backs.
//!
//! An engine keeps decoded code and must drop what a device overwrites. A device calls [`GuestRam::note_dma_write`] after it
//! has written and before it tells the guest (used ring, interrupt). A processor keeps the generation it has seen, compares
//! it with [`GuestRam::dma_generation`] (one load) wherever it may run code it has decoded before, at the latest before it
//! delivers an interrupt, and on a difference catches up with [`GuestRam::dma_writes_since`].
//!
//! Any thread may call anything here; the lock inside is a leaf.

use crate::GuestRam;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Writes that are remembered for processors that have not caught up yet.
const REMEMBERED: usize = 4096;

/// The writes of all devices, the last [`REMEMBERED`] of them by range.
#[derive(Debug, Default)]
pub(crate) struct DmaLog {
    /// Writes noted since the machine was made. Changed under the lock, read without it.
    generation: AtomicU64,
    recent: Mutex<VecDeque<DmaWrite>>,
}

/// Bytes that a device wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWrite {
    /// Guest-physical address of the first.
    pub gpa: u64,
    /// How many; not 0.
    pub len: u64,
}

/// The log does not reach back to what a processor has seen last: any byte of RAM may have been written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {REMEMBERED} writes by devices since the last look; take all of memory as written"
)]
pub struct DmaOverrun;

impl GuestRam {
    /// A device has written `len` bytes from guest-physical `gpa`.
    pub fn note_dma_write(&self, gpa: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut recent = self.dma.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(DmaWrite { gpa, len });
        self.dma.generation.fetch_add(1, Ordering::Release);
    }

    /// A number that grows with every write by a device.
    #[inline]
    pub fn dma_generation(&self) -> u64 {
        self.dma.generation.load(Ordering::Acquire)
    }

    /// Calls `each` with every write since generation `seen`, oldest first, and moves `seen` to the present. `each` must
    /// not note writes.
    ///
    /// # Errors
    /// The log has forgotten some of them; `each` was not called, `seen` is at the present all the same.
    pub fn dma_writes_since(
        &self,
        seen: &mut u64,
        each: impl FnMut(DmaWrite),
    ) -> Result<(), DmaOverrun> {
        let recent = self.dma.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.dma.generation.load(Ordering::Relaxed);
        let missed = now.wrapping_sub(std::mem::replace(seen, now));
        let missed = usize::try_from(missed).map_err(|_| DmaOverrun)?;
        let first = recent.len().checked_sub(missed).ok_or(DmaOverrun)?;
        recent.iter().skip(first).copied().for_each(each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> GuestRam {
        GuestRam::new(&[(0, 1 << 16)]).expect("memory")
    }

    fn writes(ram: &GuestRam, seen: &mut u64) -> Result<Vec<u64>, DmaOverrun> {
        let mut list = Vec::new();
        ram.dma_writes_since(seen, |write| list.push(write.gpa)).map(|()| list)
    }

    #[test]
    fn every_reader_sees_every_write_once_in_order() {
        let ram = ram();
        let (mut a, mut b) = (ram.dma_generation(), ram.dma_generation());
        ram.note_dma_write(0x1000, 8);
        ram.clone().note_dma_write(0x2000, 8);
        ram.note_dma_write(0x3000, 0);
        assert_ne!(ram.dma_generation(), a);
        assert_eq!(writes(&ram, &mut a), Ok(vec![0x1000, 0x2000]));
        assert_eq!((writes(&ram, &mut a), ram.dma_generation()), (Ok(vec![]), a));
        ram.note_dma_write(0x4000, 1);
        assert_eq!(writes(&ram, &mut a), Ok(vec![0x4000]));
        assert_eq!(writes(&ram, &mut b), Ok(vec![0x1000, 0x2000, 0x4000]));
    }

    #[test]
    fn a_reader_that_slept_too_long_is_told() {
        let ram = ram();
        let (mut late, mut just) = (0, 1);
        (0..=REMEMBERED as u64).for_each(|n| ram.note_dma_write(n, 1));
        assert_eq!(writes(&ram, &mut late), Err(DmaOverrun));
        assert_eq!(writes(&ram, &mut late), Ok(vec![]), "at the present now");
        assert_eq!(writes(&ram, &mut just).map(|list| list.len()), Ok(REMEMBERED));
        assert_eq!(writes(&ram, &mut (just + 1)), Err(DmaOverrun), "from the future: nonsense");
    }
}
