//! Saved state of the local APIC.

use super::bits256::Bits256;
use super::core::Core;
use super::registers::lvt;
use super::timer::{Mode, Run, Timer};
use serde::{Deserialize, Serialize};

/// The state of a local APIC, version 1. Times are VM nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the registers' names of the manual")]
pub struct LapicState {
    pub version: u32,
    pub id: u32,
    pub base: u64,
    pub tpr: u8,
    pub ldr: u32,
    pub dfr: u32,
    pub svr: u32,
    pub isr: [u32; 8],
    pub tmr: [u32; 8],
    pub irr: [u32; 8],
    pub esr: u32,
    pub esr_pending: u32,
    pub icr: u64,
    pub lvt: [u32; lvt::COUNT],
    pub timer_hz: u64,
    pub initial_count: u32,
    pub divide: u32,
    /// When the count-down began, and after how many ticks it is next zero.
    pub count_down: Option<(u64, u64)>,
    pub tsc_deadline: u64,
    pub lint: [bool; 2],
    pub external: bool,
    pub sipi: Option<u8>,
}

impl LapicState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

impl Core {
    pub(super) fn save(&self) -> LapicState {
        let Self {
            id,
            base,
            tpr,
            ldr,
            dfr,
            svr,
            isr,
            tmr,
            irr,
            esr,
            esr_pending,
            icr,
            lvt,
            timer,
            lint,
            external,
            sipi,
        } = self.clone();
        // The mode is the LVT's; `not_before` only paces the host.
        let Timer { hz, mode: _, initial, divide, run, tsc_deadline, not_before: _ } = timer;
        LapicState {
            version: LapicState::VERSION,
            id,
            base,
            tpr,
            ldr,
            dfr,
            svr,
            isr: isr.words(),
            tmr: tmr.words(),
            irr: irr.words(),
            esr,
            esr_pending,
            icr,
            lvt,
            timer_hz: hz,
            initial_count: initial,
            divide,
            count_down: run.map(|Run { since, target }| (since, target)),
            tsc_deadline,
            lint,
            external,
            sipi,
        }
    }

    pub(super) fn restore(state: &LapicState) -> Self {
        let LapicState {
            version: _,
            id,
            base,
            tpr,
            ldr,
            dfr,
            svr,
            isr,
            tmr,
            irr,
            esr,
            esr_pending,
            icr,
            lvt,
            timer_hz,
            initial_count,
            divide,
            count_down,
            tsc_deadline,
            lint,
            external,
            sipi,
        } = state.clone();
        Self {
            id,
            base,
            tpr,
            ldr,
            dfr,
            svr,
            isr: Bits256::from_words(isr),
            tmr: Bits256::from_words(tmr),
            irr: Bits256::from_words(irr),
            esr,
            esr_pending,
            icr,
            lvt,
            timer: Timer {
                hz: timer_hz.max(1),
                mode: Mode::of_lvt(lvt[super::registers::lvt::TIMER]),
                initial: initial_count,
                divide,
                run: count_down.map(|(since, target)| Run { since, target }),
                tsc_deadline,
                not_before: 0,
            },
            lint,
            external,
            sipi,
        }
    }
}
