//! Saved state of a UART.

use super::core::Core;
use super::registers::*;
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};

/// The state of a UART. The transmitter has none: what is written is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UartState {
    /// [`UartState::VERSION`] of the writer.
    pub version: u32,
    /// What the receiver holds, the oldest first.
    pub rx: Vec<u8>,
    /// IER.
    pub ier: u8,
    /// FCR, without the bits that act once.
    pub fcr: u8,
    /// LCR.
    pub lcr: u8,
    /// MCR.
    pub mcr: u8,
    /// LSR's errors.
    pub errors: u8,
    /// MSR's changes; its lines follow from MCR.
    pub changes: u8,
    /// SCR.
    pub scr: u8,
    /// The divisor latch.
    pub divisor: u16,
    /// The THRE interrupt is pending.
    pub thre: bool,
    /// The character timeout has passed.
    pub timeout: bool,
    /// When the receiver was last touched, in VM nanoseconds.
    pub touched: u64,
    /// Reads of LSR since the last byte was sent.
    pub polls: u8,
    /// Until when the interrupt output stays up though nothing is pending, in VM nanoseconds.
    pub held_until: Option<u64>,
}

impl UartState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 3;
}

impl Core {
    pub(super) fn save(&self) -> UartState {
        let Self {
            rx,
            ier,
            fcr,
            lcr,
            mcr,
            errors,
            changes,
            scr,
            divisor,
            thre,
            timeout,
            touched,
            polls,
            held_until,
        } = self;
        UartState {
            version: UartState::VERSION,
            rx: rx.iter().copied().collect(),
            ier: *ier,
            fcr: *fcr,
            lcr: *lcr,
            mcr: *mcr,
            errors: *errors,
            changes: *changes,
            scr: *scr,
            divisor: *divisor,
            thre: *thre,
            timeout: *timeout,
            touched: *touched,
            polls: *polls,
            held_until: *held_until,
        }
    }

    /// The chip of `state` at VM time `now`.
    pub(super) fn restored(state: &UartState, now: u64) -> Result<Self, RestoreError> {
        let UartState {
            version,
            rx,
            ier,
            fcr,
            lcr,
            mcr,
            errors,
            changes,
            scr,
            divisor,
            thre,
            timeout,
            touched,
            polls,
            held_until,
        } = state;
        let check = Check::version("serial line", *version, UartState::VERSION)?;
        check.bits("ier", *ier, IER_BITS)?;
        check.bits("fcr", *fcr, FCR_BITS)?;
        let fifo = fcr & FCR_ENABLE != 0;
        check.that(fifo || *fcr == 0, "fcr", fcr, "0 without its bit 0")?;
        check.bits("mcr", *mcr, MCR_BITS)?;
        check.bits("errors", *errors, LSR_OE)?;
        check.bits("changes", *changes, MSR_CHANGES)?;
        check.within("touched", *touched, 0..=now)?;
        let waits = fifo && !rx.is_empty();
        check.that(waits || !timeout, "timeout", timeout, "false while nothing waits")?;
        let core = Self {
            rx: rx.iter().copied().collect(),
            ier: *ier,
            fcr: *fcr,
            lcr: *lcr,
            mcr: *mcr,
            errors: *errors,
            changes: *changes,
            scr: *scr,
            divisor: *divisor,
            thre: *thre,
            timeout: *timeout,
            touched: *touched,
            polls: *polls,
            held_until: *held_until,
        };
        check.within("rx", rx.len(), 0..=core.capacity())?;
        Ok(core)
    }
}
