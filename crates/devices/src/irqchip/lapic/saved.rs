//! Saved state of the local APIC.

use super::bits256::Bits256;
use super::core::{ApicMode, Core};
use super::registers::*;
use super::timer::{Mode, Run, Timer};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};
use x86::addr::Vector;

/// The state of a local APIC. Times are VM nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    pub lvt: [u32; slot::COUNT],
    pub timer_hz: u64,
    pub initial_count: u32,
    pub divide: u32,
    pub count_down: Option<CountDown>,
    pub tsc_deadline: u64,
    pub lint: [bool; 2],
    pub external: bool,
    pub sipi: Option<u8>,
}

/// A running count-down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountDown {
    /// When it began, in VM nanoseconds.
    pub since: u64,
    /// After how many ticks since then the count is next zero.
    pub target: u64,
}

impl LapicState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
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
            count_down: run.map(|Run { since, target }| CountDown { since, target }),
            tsc_deadline,
            lint,
            external,
            sipi: sipi.map(|vector| vector.0),
        }
    }

    /// The local APIC of `state`, in place of this one, at VM time `now`.
    pub(super) fn restored(&self, state: &LapicState, now: u64) -> Result<Self, RestoreError> {
        let check = Check::version("local APIC", state.version, LapicState::VERSION)?;
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
        check.that(id == self.id, "id", id, self.id)?;
        check.that(timer_hz == self.timer.hz, "timer_hz", timer_hz, self.timer.hz)?;
        let core = Self {
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
                hz: timer_hz,
                mode: Mode::of_lvt(lvt[super::registers::slot::TIMER]),
                initial: initial_count,
                divide,
                run: count_down.map(|CountDown { since, target }| Run { since, target }),
                tsc_deadline,
                not_before: 0,
            },
            lint,
            external,
            sipi: sipi.map(Vector),
        };
        core.check_base(check, self.base)?;
        core.check_ids(check)?;
        core.check_vectors(check)?;
        core.check_lvt(check)?;
        core.timer.check(check, now)?;
        Ok(core)
    }

    /// IA32_APIC_BASE, in place of one that was `own`.
    fn check_base(&self, check: Check, own: u64) -> Result<(), RestoreError> {
        check.bits("base", self.base, base::BSP | base::EXTD | base::EN | base::ADDRESS)?;
        let shown = format_args!("{:#x}", self.base);
        let bootstrap = self.base & base::BSP == own & base::BSP;
        check.that(bootstrap, "base", shown, "with BSP on the bootstrap processor alone")?;
        let mode = self.base & base::EXTD == 0 || self.base & base::EN != 0;
        check.that(mode, "base", shown, "with EXTD only beside EN")
    }

    /// The registers whose form the mode decides.
    fn check_ids(&self, check: Check) -> Result<(), RestoreError> {
        let shown = format_args!("{:#x}", self.ldr);
        let (ldr, icr_high) = match self.mode() {
            ApicMode::Disabled => (self.ldr == 0, 0),
            ApicMode::Xapic => (self.ldr & 0x00FF_FFFF == 0, 0xFF00_0000),
            ApicMode::X2apic => (self.ldr == self.x2apic_ldr(), u64::from(u32::MAX)),
        };
        check.that(ldr, "ldr", shown, "of the form that its mode has")?;
        check.bits("icr", self.icr, icr_high << 32 | u64::from(ICR_LOW_BITS))?;
        let shown = format_args!("{:#x}", self.dfr);
        check.that(self.dfr | 0x0FFF_FFFF == self.dfr, "dfr", shown, "with bits 27:0")
    }

    fn check_vectors(&self, check: Check) -> Result<(), RestoreError> {
        let sets = [("isr", &self.isr), ("tmr", &self.tmr), ("irr", &self.irr)];
        for (field, set) in sets {
            check.bits(field, set.word(0), !0xFFFF)?;
        }
        check.bits("esr", self.esr, ESR_BITS)?;
        check.bits("esr_pending", self.esr_pending, ESR_BITS)
    }

    fn check_lvt(&self, check: Check) -> Result<(), RestoreError> {
        check.bits("svr", self.svr, SVR_BITS)?;
        let enabled = self.svr & svr::ENABLE != 0;
        for (index, entry) in self.lvt.into_iter().enumerate() {
            check.bits("lvt", entry, lvt_bits(index) & !lvt::PENDING)?;
            let shown = format_args!("{entry:#x}");
            let masked = enabled || entry & lvt::MASKED != 0;
            check.that(masked, "lvt", shown, "masked while the APIC is disabled")?;
            let level = entry & lvt::REMOTE_IRR == 0 || entry & lvt::LEVEL != 0;
            check.that(level, "lvt", shown, "level with remote IRR")?;
        }
        Ok(())
    }
}

impl Timer {
    fn check(&self, check: Check, now: u64) -> Result<(), RestoreError> {
        check.bits("divide", self.divide, TIMER_DIVIDE_BITS)?;
        let deadline = self.tsc_deadline == 0 || self.mode == Mode::TscDeadline;
        check.that(deadline, "tsc_deadline", self.tsc_deadline, "0 outside its mode")?;
        let Some(Run { since, target }) = self.run else { return Ok(()) };
        let counts = matches!(self.mode, Mode::OneShot | Mode::Periodic) && self.initial != 0;
        check.that(counts, "count_down", "running", "null while the timer does not count")?;
        check.within("since", since, 0..=now)?;
        let latest = self.ticks(since, now).saturating_add(u64::from(u32::MAX));
        check.within("target", target, 1..=latest)
    }
}
