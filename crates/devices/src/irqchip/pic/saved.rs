//! Saved state of the 8259 pair.

use super::chip::{Chip, Expect};
use super::core::Pair;
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of the 8259 pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PicState {
    /// [`PicState::VERSION`] of the writer.
    pub version: u32,
    /// The master.
    pub master: PicChipState,
    /// The slave.
    pub slave: PicChipState,
    /// The edge/level control registers.
    pub elcr: [u8; 2],
}

/// The state of an 8259. Which inputs are level-triggered, the ELCR says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PicChipState {
    /// Levels of the inputs.
    pub lines: u8,
    /// Rises not yet acknowledged, of inputs that are still up.
    pub edges: u8,
    /// IMR.
    pub imr: u8,
    /// ISR.
    pub isr: u8,
    /// ICW2.
    pub base: u8,
    /// The input with the lowest priority.
    pub lowest: u8,
    /// ICW1.
    pub icw1: u8,
    /// ICW4.
    pub icw4: u8,
    /// The initialization word that comes next: 2, 3 or 4; 0 if none.
    pub next_icw: u8,
    /// Special mask mode.
    pub special_mask: bool,
    /// Automatic EOIs rotate.
    pub rotate_on_aeoi: bool,
    /// The next read is a poll.
    pub poll: bool,
    /// Reads give the ISR.
    pub read_isr: bool,
}

impl PicState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
}

impl Pair {
    pub(super) fn save(&self) -> PicState {
        let Self { master, slave, elcr } = self;
        let version = PicState::VERSION;
        PicState { version, master: master.save(), slave: slave.save(), elcr: *elcr }
    }

    pub(super) fn restored(state: &PicState) -> Result<Self, RestoreError> {
        let PicState { version, master, slave, elcr } = state;
        let check = Check::version("8259 pair", *version, PicState::VERSION)?;
        check.bits("elcr", elcr[0], ELCR_BITS[0])?;
        check.bits("elcr", elcr[1], ELCR_BITS[1])?;
        let fresh = Self::new();
        let pair = Self {
            master: master.chip(check, fresh.master.slaves, elcr[0])?,
            slave: slave.chip(check, fresh.slave.slaves, elcr[1])?,
            elcr: *elcr,
        };
        let cascade = pair.master.lines & 1 << CASCADE != 0;
        let agree = cascade == pair.slave.request().is_some();
        check.that(agree, "lines", pair.master.lines, "what the slave asks for on input 2")?;
        Ok(pair)
    }
}

impl Chip {
    fn save(&self) -> PicChipState {
        let Self {
            lines,
            edges,
            imr,
            isr,
            level: _,
            slaves: _,
            base,
            lowest,
            icw1,
            icw4,
            expect,
            special_mask,
            rotate_on_aeoi,
            poll,
            read_isr,
        } = *self;
        PicChipState {
            lines,
            edges,
            imr,
            isr,
            base,
            lowest,
            icw1,
            icw4,
            next_icw: match expect {
                Expect::Ocw1 => 0,
                Expect::Icw2 => 2,
                Expect::Icw3 => 3,
                Expect::Icw4 => 4,
            },
            special_mask,
            rotate_on_aeoi,
            poll,
            read_isr,
        }
    }
}

impl PicChipState {
    fn chip(&self, check: Check, slaves: u8, elcr: u8) -> Result<Chip, RestoreError> {
        let Self {
            lines,
            edges,
            imr,
            isr,
            base,
            lowest,
            icw1,
            icw4,
            next_icw,
            special_mask,
            rotate_on_aeoi,
            poll,
            read_isr,
        } = *self;
        check.bits("edges", edges, lines)?;
        check.bits("base", base, ICW2_BASE)?;
        check.within("lowest", lowest, 0..=7)?;
        let expect = match next_icw {
            0 => Expect::Ocw1,
            2 => Expect::Icw2,
            3 => Expect::Icw3,
            4 => Expect::Icw4,
            other => return Err(check.refused("next_icw", other, "0, 2, 3 or 4")),
        };
        let mut chip = Chip {
            lines,
            edges,
            imr,
            isr,
            base,
            lowest,
            icw1,
            icw4,
            expect,
            special_mask,
            rotate_on_aeoi,
            poll,
            read_isr,
            ..Chip::new(slaves)
        };
        chip.set_level_triggered(elcr);
        Ok(chip)
    }
}
