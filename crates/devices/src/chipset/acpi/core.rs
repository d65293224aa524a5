//! The registers and rules of the event and control blocks and the PM timer. Pure.

use super::registers::*;
use crate::time::SECOND;

/// The PM timer's frequency in Hz.
const PM_TIMER_HZ: u64 = 3_579_545;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub(super) status: u16,
    pub(super) enable: u16,
    pub(super) control: u16,
    /// The timer counts to 2^24 or 2^32: the machine's choice, not state.
    pub(super) timer_bits: u32,
    /// The timer's top bit when it was last looked at.
    pub(super) top: bool,
}

impl Core {
    pub(super) fn new(timer_bits: u32) -> Self {
        Self { status: 0, enable: 0, control: SCI_EN, timer_bits, top: false }
    }

    fn ticks(ns: u64) -> u128 {
        u128::from(ns) * u128::from(PM_TIMER_HZ) / u128::from(SECOND)
    }

    fn timer(&self, ns: u64) -> u32 {
        (Self::ticks(ns) & ((1 << self.timer_bits) - 1)) as u32
    }

    /// Notes a change of the timer's top bit.
    pub(super) fn advance(&mut self, ns: u64) {
        let top = self.timer(ns) >> (self.timer_bits - 1) != 0;
        if top != self.top {
            self.status |= TMR;
        }
        self.top = top;
    }

    /// When the top bit changes next, if that interrupts.
    pub(super) fn deadline(&self, ns: u64) -> Option<u64> {
        let half = self.timer_bits - 1;
        let next = ((Self::ticks(ns) >> half) + 1) << half;
        let at = (next * u128::from(SECOND)).div_ceil(u128::from(PM_TIMER_HZ));
        (self.enable & TMR != 0 && self.status & TMR == 0).then_some(at as u64)
    }

    pub(super) fn sci(&self) -> bool {
        self.status & self.enable != 0
    }

    /// The aligned dword at `offset`.
    pub(super) fn dword(&self, offset: u16, ns: u64) -> u32 {
        match offset {
            PM1A_EVT => u32::from(self.status) | u32::from(self.enable) << 16,
            PM1A_CNT => u32::from(self.control),
            PM_TMR => self.timer(ns),
            _ => 0,
        }
    }

    /// Writes one byte; true if it asks for soft off. SLP_TYP and SLP_EN share a byte.
    pub(super) fn write(&mut self, offset: u16, byte: u8) -> bool {
        let value = u16::from(byte);
        match offset {
            0 => self.status &= !value,
            1 => self.status &= !(value << 8),
            2 => self.enable = (self.enable & 0xFF00 | value) & ENABLES,
            3 => self.enable = (self.enable & 0x00FF | value << 8) & ENABLES,
            4 => self.control = self.control & 0xFF00 | SCI_EN | value & BM_RLD,
            5 => {
                self.control = self.control & 0x00FF | value << 8 & SLP_TYP;
                return value << 8 & SLP_EN != 0 && self.sleep();
            }
            _ => {}
        }
        false
    }

    fn sleep(&self) -> bool {
        let kind = (self.control & SLP_TYP) >> SLP_TYP_SHIFT;
        if kind != u16::from(SLP_TYP_S5) {
            let what = "the guest asked for a sleep state that is not there";
            tracing::warn!(target: "power", kind, "{what}");
        }
        kind == u16::from(SLP_TYP_S5)
    }
}
