//! The AT's pair of 8259A with the edge/level control registers of the PIIX (ports 4D0H, 4D1H).
//!
//! The lock is held while the output is driven, so that its levels keep their order.

mod chip;
mod core;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::{PicChipState, PicState};
use x86::addr::{Port, PortWidth, Vector};

use self::core::Pair;
use super::interconnect::ExternalVector;
use crate::bus::SharedPio;
use crate::irq::{IrqInputs, IrqLine};
use crate::saved::RestoreError;
use std::fmt;
use std::sync::{Arc, Mutex};
use sync::lock;

/// The master and slave 8259A with the edge/level control registers.
pub struct PicPair {
    /// The master's INT output.
    int: IrqLine,
    pair: Mutex<Pair>,
}

impl PicPair {
    /// As after reset; the master's output is `int`.
    pub fn new(int: IrqLine) -> Arc<Self> {
        Arc::new(Self { int, pair: Mutex::new(Pair::new()) })
    }

    /// The saved state.
    pub fn save(&self) -> PicState {
        lock(&self.pair).save()
    }

    /// Goes on from `state`. The inputs' levels are as their devices left them.
    ///
    /// # Errors
    /// The state is another version's or no 8259 pair's; nothing was changed.
    pub fn restore(&self, state: &PicState) -> Result<(), RestoreError> {
        let restored = Pair::restored(state)?;
        self.with(|pair| *pair = restored);
        Ok(())
    }

    /// Runs `body` with the lock, then drives the output.
    fn with<R>(&self, body: impl FnOnce(&mut Pair) -> R) -> R {
        let mut pair = lock(&self.pair);
        let result = body(&mut pair);
        self.int.set(pair.settle());
        result
    }
}

impl ExternalVector for PicPair {
    /// The vector is spurious (IR7's) if no request is left.
    fn acknowledge(&self) -> Vector {
        self.with(Pair::acknowledge)
    }
}

impl IrqInputs for PicPair {
    fn set_input(&self, pin: u8, level: bool) {
        self.with(|pair| pair.set_input(pin, level));
    }
}

impl SharedPio for PicPair {
    fn read(&self, port: Port, _width: PortWidth) -> u32 {
        u32::from(self.with(|pair| pair.read(port)))
    }

    fn write(&self, port: Port, _width: PortWidth, value: u32) {
        self.with(|pair| pair.write(port, value as u8));
    }
}

impl fmt::Debug for PicPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PicPair({:x?})", lock(&self.pair))
    }
}
