//! A sorted table of address ranges that do not overlap.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use x86::addr::Width;

/// Why a device cannot be put on the bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range has no address.
    #[error("cannot place {name}: its range {first:#x}..={last:#x} is empty; give first <= last")]
    Empty {
        /// The device.
        name: &'static str,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// Another device is there.
    #[error(
        "cannot place {name} at {first:#x}..={last:#x}: {other} is there; move one of them in the \
         layout"
    )]
    Overlap {
        /// The device.
        name: &'static str,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
        /// The device that is there already.
        other: &'static str,
    },
}

/// One device's range.
pub(super) struct Entry<D: ?Sized> {
    pub(super) name: &'static str,
    pub(super) first: u64,
    last: u64,
    /// The widest access that the device takes.
    widest: Width,
    pub(super) device: Arc<D>,
}

impl<D: ?Sized> Entry<D> {
    /// Whether the device takes an access of `width` at `place` as one.
    pub(super) fn takes(&self, place: u64, width: Width) -> bool {
        width <= self.widest && u64::from(width) - 1 <= self.last - place
    }
}

/// The table.
pub(super) struct Ranges<D: ?Sized>(Vec<Entry<D>>);

impl<D: ?Sized> Default for Ranges<D> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<D: ?Sized> Ranges<D> {
    pub(super) fn add(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        widest: Width,
        device: Arc<D>,
    ) -> Result<(), BusError> {
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return Err(BusError::Empty { name, first, last });
        }
        if let Some(other) = self.0.iter().find(|e| e.first <= last && first <= e.last) {
            return Err(BusError::Overlap { name, first, last, other: other.name });
        }
        let at = self.0.partition_point(|e| e.first < first);
        self.0.insert(at, Entry { name, first, last, widest, device });
        Ok(())
    }

    #[inline]
    pub(super) fn find(&self, place: u64) -> Option<&Entry<D>> {
        let after = self.0.partition_point(|e| e.first <= place);
        self.0.get(after.checked_sub(1)?).filter(|e| place <= e.last)
    }
}

impl<D: ?Sized> fmt::Debug for Ranges<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|e| (format!("{:#x}..={:#x}", e.first, e.last), e.name));
        f.debug_map().entries(entries).finish()
    }
}
