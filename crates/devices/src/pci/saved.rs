//! Saved state of configuration spaces.

use super::config::Config;
use super::registers::{INTERRUPT_STATUS, STATUS};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// A configuration space, a doubleword an element. What cannot be written is there to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigState(Vec<u32>);

impl Config {
    /// The saved state.
    pub(crate) fn save(&self) -> ConfigState {
        let mut bytes = self.bytes;
        bytes[usize::from(STATUS)] &= !(INTERRUPT_STATUS as u8); // follows from the device's
        ConfigState(bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect())
    }

    /// Whether this space can have come to `state`.
    pub(crate) fn check(&self, check: Check, state: &ConfigState) -> Result<(), RestoreError> {
        let (ConfigState(own), ConfigState(found)) = (self.save(), state);
        check.that(found.len() == own.len(), "config", found.len(), own.len())?;
        let writable = self.writable.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
        for ((own, found), writable) in own.iter().zip(found).zip(writable) {
            let wanted = format_args!("{own:#x} outside {writable:#x}");
            check.that(
                (own ^ found) & !writable == 0,
                "config",
                format_args!("{found:#x}"),
                wanted,
            )?;
        }
        Ok(())
    }

    /// Takes over `state`, which is checked.
    pub(crate) fn restore(&mut self, state: &ConfigState) {
        let ConfigState(words) = state;
        let from = words.iter().flat_map(|word| word.to_le_bytes());
        self.bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        self.publish();
    }
}
