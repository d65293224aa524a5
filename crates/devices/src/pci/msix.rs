//! MSI-X: the table of messages and the pending bits (PCI Local Bus 3.0, 6.8.2), as one BAR of 4
//! KiB: the table first, the pending bit array from 800H on.
//!
//! Both take aligned accesses of four bytes; software has no business with others, which read
//! all-ones and write nothing.

use crate::msi::Msi;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};
use x86::addr::{Gpa, PortWidth};

/// Bytes of a table entry.
const ENTRY: u32 = 16;
/// Vector control: masked.
const MASKED: u32 = 1;

/// One vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    address: u64,
    data: u32,
    control: u32,
    pending: bool,
}

/// A function's vectors. Whether MSI-X is on is the capability's affair.
#[derive(Debug)]
pub(crate) struct Msix {
    vectors: Vec<Vector>,
}

/// The saved state of the table and the pending bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MsixState(Vec<Vector>);

impl Msix {
    /// Bytes of the BAR.
    pub(crate) const BAR: u32 = 0x1000;
    /// Where the pending bits are in it.
    pub(crate) const PENDING: u32 = 0x800;
    /// The most vectors for which there is room.
    pub(crate) const VECTORS_MAX: u16 = (Self::PENDING / ENTRY) as u16;

    /// `count` vectors, masked, as after a reset.
    pub(crate) fn new(count: u16) -> Self {
        assert!((1..=Self::VECTORS_MAX).contains(&count), "{count} vectors");
        let vector = Vector { address: 0, data: 0, control: MASKED, pending: false };
        Self { vectors: vec![vector; count.into()] }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Something has happened that vector `number` tells of. [`Msix::due`] says what to send.
    pub(crate) fn raise(&mut self, number: u16) {
        if let Some(vector) = self.vectors.get_mut(usize::from(number)) {
            vector.pending = true;
        }
    }

    /// The next message to send, which is then not pending any more. To be called while MSI-X is on
    /// and the function not masked.
    pub(crate) fn due(&mut self) -> Option<Msi> {
        let due = |vector: &&mut Vector| vector.pending && vector.control & MASKED == 0;
        let vector = self.vectors.iter_mut().find(due)?;
        vector.pending = false;
        Some(Msi { address: Gpa(vector.address), data: vector.data })
    }

    /// Nothing is pending any more.
    pub(crate) fn forget(&mut self) {
        self.vectors.iter_mut().for_each(|vector| vector.pending = false);
    }

    /// A load from the BAR.
    pub(crate) fn read(&self, offset: u32, width: PortWidth) -> u32 {
        if width != PortWidth::B4 {
            return u32::MAX;
        }
        if let Some(offset) = offset.checked_sub(Self::PENDING) {
            let bits = self.vectors.iter().skip(8 * offset as usize).take(32);
            return (0..).zip(bits).fold(0, |word, (bit, v)| word | u32::from(v.pending) << bit);
        }
        let Some(vector) = self.vectors.get((offset / ENTRY) as usize) else { return 0 };
        match offset % ENTRY {
            0 => vector.address as u32,
            4 => (vector.address >> 32) as u32,
            8 => vector.data,
            _ => vector.control,
        }
    }

    /// A store to it. The pending bits are only read.
    pub(crate) fn write(&mut self, offset: u32, width: PortWidth, value: u32) {
        if width != PortWidth::B4 || offset >= Self::PENDING {
            return;
        }
        let Some(vector) = self.vectors.get_mut((offset / ENTRY) as usize) else { return };
        let (high, low) = (vector.address >> 32 << 32, vector.address & u64::from(u32::MAX));
        match offset % ENTRY {
            0 => vector.address = high | u64::from(value & !3),
            4 => vector.address = u64::from(value) << 32 | low,
            8 => vector.data = value,
            _ => vector.control = value & MASKED,
        }
    }

    /// The saved state.
    pub(crate) fn save(&self) -> MsixState {
        MsixState(self.vectors.clone())
    }

    /// The vectors of `state`, if this could be their table.
    pub(crate) fn checked(&self, check: Check, state: &MsixState) -> Result<Self, RestoreError> {
        let MsixState(vectors) = state;
        let (found, own) = (vectors.len(), self.vectors.len());
        check.that(found == own, "vectors", found, own)?;
        for vector in vectors {
            check.bits("address", vector.address, !3)?;
            check.bits("control", vector.control, MASKED)?;
        }
        Ok(Self { vectors: vectors.clone() })
    }
}
