//! The two chips with what the PC wires between them. Pure.

use super::chip::Chip;
use super::registers::*;
use x86::addr::{Port, Vector};

/// Master and slave, wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) master: Chip,
    pub(super) slave: Chip,
    pub(super) elcr: [u8; 2],
}

impl Pair {
    pub(super) fn new() -> Self {
        Self { master: Chip::new(1 << CASCADE), slave: Chip::new(0), elcr: [0; 2] }
    }

    /// Brings the cascade up to date; the pair's INT output.
    pub(super) fn settle(&mut self) -> bool {
        self.master.set_line(CASCADE, self.slave.request().is_some());
        self.master.request().is_some()
    }

    pub(super) fn set_input(&mut self, irq: u8, level: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.master.set_line(irq, level),
            8..16 => self.slave.set_line(irq - 8, level),
            _ => {}
        }
    }

    /// INTA. Input 7 of the chip that finds no request stands for a spurious one, and is not in
    /// service.
    pub(super) fn acknowledge(&mut self) -> Vector {
        match self.master.acknowledge() {
            Some(CASCADE) => {
                let input = self.slave.acknowledge().unwrap_or(7);
                self.slave.vector(input)
            }
            input => self.master.vector(input.unwrap_or(7)),
        }
    }

    pub(super) fn read(&mut self, port: Port) -> u8 {
        match port {
            MASTER_A0 | MASTER_A1 => self.master.read(port == MASTER_A1),
            SLAVE_A0 | SLAVE_A1 => self.slave.read(port == SLAVE_A1),
            ELCR1 | ELCR2 => self.elcr[usize::from(port.0 & 1)],
            _ => 0xFF,
        }
    }

    pub(super) fn write(&mut self, port: Port, value: u8) {
        match port {
            MASTER_A0 | MASTER_A1 => self.master.write(port == MASTER_A1, value),
            SLAVE_A0 | SLAVE_A1 => self.slave.write(port == SLAVE_A1, value),
            ELCR1 | ELCR2 => {
                let index = usize::from(port.0 & 1);
                self.elcr[index] = value & ELCR_BITS[index];
                self.master.set_level_triggered(self.elcr[0]);
                self.slave.set_level_triggered(self.elcr[1]);
            }
            _ => {}
        }
    }
}
