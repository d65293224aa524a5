//! One 8259A (datasheet 231468): requests, priorities, command words. Pure.
//!
//! As in the AT: 8086 mode, and whether an input is level-triggered is the ELCR's to say, not
//! ICW1.LTIM's.

use super::registers::*;
use x86::addr::Vector;

/// Which initialization word comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expect {
    /// None: a write to A0 = 1 is OCW1.
    #[default]
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// One chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chip {
    /// Levels of the inputs.
    pub(super) lines: u8,
    /// Rises not yet acknowledged.
    pub(super) edges: u8,
    pub(super) imr: u8,
    pub(super) isr: u8,
    /// Inputs that are level-triggered: the ELCR's, and the cascade.
    pub(super) level: u8,
    /// Inputs with a slave behind.
    pub(super) slaves: u8,
    /// ICW2: bits 7:3 of the vectors.
    pub(super) base: u8,
    /// The input with the lowest priority.
    pub(super) lowest: u8,
    pub(super) icw1: u8,
    pub(super) icw4: u8,
    pub(super) expect: Expect,
    pub(super) special_mask: bool,
    pub(super) rotate_on_aeoi: bool,
    pub(super) poll: bool,
    pub(super) read_isr: bool,
}

impl Chip {
    /// Before initialization: everything masked, so that nothing comes in with an unset vector.
    pub(super) fn new(slaves: u8) -> Self {
        Self { imr: 0xFF, slaves, level: slaves, lowest: 7, ..Self::default() }
    }

    pub(super) fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        if level {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            // A request that falls before its acknowledge is withdrawn.
            self.edges &= !bit;
            self.lines &= !bit;
        }
    }

    pub(super) fn irr(&self) -> u8 {
        self.edges & !self.level | self.lines & self.level
    }

    pub(super) fn set_level_triggered(&mut self, elcr: u8) {
        self.level = elcr | self.slaves;
    }

    /// Inputs in order of priority, highest first.
    fn by_priority(&self) -> impl Iterator<Item = u8> {
        let first = self.lowest.wrapping_add(1);
        (0..8).map(move |n| first.wrapping_add(n) & 7)
    }

    /// The highest-priority request that may interrupt now.
    pub(super) fn request(&self) -> Option<u8> {
        let wanted = self.irr() & !self.imr;
        let blocking = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let nested = if self.icw4 & ICW4_SFNM != 0 { self.slaves } else { 0 };
        for input in self.by_priority() {
            let bit = 1 << input;
            // In special fully nested mode a slave in service lets that slave's higher requests
            // through.
            if wanted & bit != 0 && blocking & bit & !nested == 0 {
                return Some(input);
            }
            if blocking & bit != 0 {
                return None;
            }
        }
        None
    }

    /// The INTA cycle: the input that is now in service.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let input = self.request()?;
        let bit = 1 << input;
        self.edges &= !bit;
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit;
        } else if self.rotate_on_aeoi {
            self.lowest = input;
        }
        Some(input)
    }

    /// The vector of `input`.
    pub(super) fn vector(&self, input: u8) -> Vector {
        Vector(self.base & ICW2_BASE | input & 7)
    }

    /// A read with A0 = `a0`; after a poll command it acknowledges.
    pub(super) fn read(&mut self, a0: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.acknowledge().map_or(0, |input| 0x80 | input);
        }
        match (a0, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    pub(super) fn write(&mut self, a0: bool, value: u8) {
        if a0 {
            self.write_a1(value);
        } else if value & ICW1 != 0 {
            self.initialize(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn initialize(&mut self, icw1: u8) {
        let Self { lines, level, slaves, base, .. } = *self;
        let expect = Expect::Icw2;
        *self = Self { lines, level, slaves, base, icw1, expect, lowest: 7, ..Self::default() };
    }

    fn write_a1(&mut self, value: u8) {
        self.expect = match self.expect {
            Expect::Ocw1 => {
                self.imr = value;
                return;
            }
            Expect::Icw2 => {
                self.base = value & ICW2_BASE;
                if self.icw1 & ICW1_SNGL == 0 { Expect::Icw3 } else { self.after_icw3() }
            }
            // The cascade is wired; ICW3 cannot change it.
            Expect::Icw3 => self.after_icw3(),
            Expect::Icw4 => {
                self.icw4 = value;
                Expect::Ocw1
            }
        };
    }

    fn after_icw3(&self) -> Expect {
        if self.icw1 & ICW1_IC4 != 0 { Expect::Icw4 } else { Expect::Ocw1 }
    }

    fn write_ocw2(&mut self, value: u8) {
        let input = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_aeoi = false,
            0b100 => self.rotate_on_aeoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(ended) = self.end_highest() {
                    self.lowest = ended;
                }
            }
            0b011 => self.isr &= !(1 << input),
            0b111 => {
                self.isr &= !(1 << input);
                self.lowest = input;
            }
            0b110 => self.lowest = input,
            _ => {}
        }
    }

    /// Non-specific EOI. In special mask mode, masked inputs stay in service.
    fn end_highest(&mut self) -> Option<u8> {
        let in_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let input = self.by_priority().find(|input| in_service & 1 << input != 0)?;
        self.isr &= !(1 << input);
        Some(input)
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
        if value & OCW3_POLL != 0 {
            self.poll = true;
        } else if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
    }
}
