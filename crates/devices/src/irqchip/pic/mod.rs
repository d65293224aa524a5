//! The AT's pair of 8259A with the edge/level control registers of the PIIX (ports 4D0H, 4D1H).
//!
//! The lock is held while the output is driven, so that its levels keep their order.

mod chip;
#[cfg(test)]
mod tests;

use self::chip::Chip;
use super::interconnect::ExternalVector;
use crate::bus::SharedPio;
use crate::irq::{IrqInputs, IrqLine};
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The master's input for the slave.
const CASCADE: u8 = 2;
/// ELCR bits that exist: IRQ0, 1, 2, 8 and 13 are always edge-triggered.
const ELCR_BITS: [u8; 2] = [0xF8, 0xDE];

/// Master and slave, wired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    master: Chip,
    slave: Chip,
    elcr: [u8; 2],
}

impl Pair {
    fn new() -> Self {
        Self { master: Chip::new(1 << CASCADE), slave: Chip::new(0), elcr: [0; 2] }
    }

    /// Brings the cascade up to date; the pair's INT output.
    fn settle(&mut self) -> bool {
        self.master.set_line(CASCADE, self.slave.request().is_some());
        self.master.request().is_some()
    }

    fn set_input(&mut self, irq: u8, level: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.master.set_line(irq, level),
            8..16 => self.slave.set_line(irq - 8, level),
            _ => {}
        }
    }

    /// INTA. Input 7 of the chip that finds no request stands for a spurious one, and is not in
    /// service.
    fn acknowledge(&mut self) -> u8 {
        match self.master.acknowledge() {
            Some(CASCADE) => {
                let input = self.slave.acknowledge().unwrap_or(7);
                self.slave.vector(input)
            }
            input => self.master.vector(input.unwrap_or(7)),
        }
    }

    fn read(&mut self, port: u16) -> u8 {
        match port {
            0x20 | 0x21 => self.master.read(port & 1 != 0),
            0xA0 | 0xA1 => self.slave.read(port & 1 != 0),
            0x4D0 | 0x4D1 => self.elcr[usize::from(port & 1)],
            _ => 0xFF,
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 => self.master.write(port & 1 != 0, value),
            0xA0 | 0xA1 => self.slave.write(port & 1 != 0, value),
            0x4D0 | 0x4D1 => {
                let index = usize::from(port & 1);
                self.elcr[index] = value & ELCR_BITS[index];
                self.master.set_level_triggered(self.elcr[0]);
                self.slave.set_level_triggered(self.elcr[1]);
            }
            _ => {}
        }
    }
}

/// The master and slave 8259A with the edge/level control registers.
pub struct PicPair {
    /// The master's INT output.
    int: IrqLine,
    pair: Mutex<Pair>,
}

/// The state of the 8259 pair, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    /// 1.
    pub version: u32,
    pair: Pair,
}

impl PicPair {
    /// As after reset; the master's output is `int`.
    pub fn new(int: IrqLine) -> Arc<Self> {
        Arc::new(Self { int, pair: Mutex::new(Pair::new()) })
    }

    /// A reset; the inputs keep their levels.
    pub fn reset(&self) {
        self.with(|pair| {
            let lines = (pair.master.lines, pair.slave.lines);
            *pair = Pair::new();
            (pair.master.lines, pair.slave.lines) = lines;
        });
    }

    /// The saved state.
    pub fn save(&self) -> PicState {
        PicState { version: 1, pair: lock(&self.pair).clone() }
    }

    /// Takes over `state`.
    pub fn restore(&self, state: &PicState) {
        let PicState { version: _, pair } = state.clone();
        self.with(|own| *own = pair);
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
    fn acknowledge(&self) -> u8 {
        self.with(Pair::acknowledge)
    }
}

impl IrqInputs for PicPair {
    fn set_input(&self, pin: u8, level: bool) {
        self.with(|pair| pair.set_input(pin, level));
    }
}

impl SharedPio for PicPair {
    fn read(&self, port: u16, _size: u8) -> u32 {
        u32::from(self.with(|pair| pair.read(port)))
    }

    fn write(&self, port: u16, _size: u8, value: u32) {
        self.with(|pair| pair.write(port, value as u8));
    }
}

impl fmt::Debug for PicPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PicPair({:x?})", lock(&self.pair))
    }
}
