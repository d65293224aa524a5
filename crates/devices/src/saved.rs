//! What every saved state has in common: a version that is read, and contents that are checked.
//!
//! A saved state comes from a file, which anybody may have written. A device checks all of it
//! before it takes over any of it, and takes nothing that its registers could not have come to by
//! themselves.

use std::fmt::{Display, LowerHex};
use std::ops::RangeInclusive;

/// Why a saved state is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by another version.
    #[error(
        "the saved state of the {device} has version {found}, and this build reads {reads}; \
         restore it with the build that saved it"
    )]
    Version {
        /// Whose state it is.
        device: &'static str,
        /// The version that it has.
        found: u32,
        /// The version that can be read.
        reads: u32,
    },
    /// The state of another kind of device.
    #[error(
        "the saved state of the {device} is another device's; give the machine the devices, in the \
         order, that it was saved with"
    )]
    Kind {
        /// The device that is there.
        device: &'static str,
    },
    /// A value that the device cannot have.
    #[error(
        "the saved state of the {device} has {field} = {value}, which is not {wanted}; \
         the state is damaged, or another machine's"
    )]
    Value {
        /// Whose state it is.
        device: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        wanted: String,
    },
}

/// Checks the fields of one device's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    device: &'static str,
}

impl Check {
    /// Of `device`, whose state must have version `reads`.
    pub(crate) fn version(
        device: &'static str,
        found: u32,
        reads: u32,
    ) -> Result<Self, RestoreError> {
        if found != reads {
            return Err(RestoreError::Version { device, found, reads });
        }
        Ok(Self { device })
    }

    /// `field` holds `value`, which is `good`, or else not what is `wanted`.
    pub(crate) fn that(
        self,
        good: bool,
        field: &'static str,
        value: impl Display,
        wanted: impl Display,
    ) -> Result<(), RestoreError> {
        if good { Ok(()) } else { Err(self.refused(field, value, wanted)) }
    }

    /// `field` holds `value`, which is not what is `wanted`.
    pub(crate) fn refused(
        self,
        field: &'static str,
        value: impl Display,
        wanted: impl Display,
    ) -> RestoreError {
        let (value, wanted) = (value.to_string(), wanted.to_string());
        RestoreError::Value { device: self.device, field, value, wanted }
    }

    /// `field` has no bits but those of `mask`.
    pub(crate) fn bits<T: Into<u64> + LowerHex + Copy>(
        self,
        field: &'static str,
        value: T,
        mask: T,
    ) -> Result<(), RestoreError> {
        let good = value.into() & !mask.into() == 0;
        self.that(good, field, format_args!("{value:#x}"), format_args!("within {mask:#x}"))
    }

    /// `field` is within `range`.
    pub(crate) fn within<T: PartialOrd + Display + Copy>(
        self,
        field: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Result<(), RestoreError> {
        let wanted = format_args!("{} to {}", range.start(), range.end());
        self.that(range.contains(&value), field, value, wanted)
    }
}
