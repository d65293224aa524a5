//! Saved state of KVM's interface: its registers. The records are in guest memory, and the clock is
//! a function of the TSC.

pub use super::async_pf::AsyncPfState;

use super::async_pf::AsyncPf;
use super::steal::Steal;
use super::{Common, Paravirt};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use x86::cpuid::Feature;

const NAME: &str = "KVM interface";

/// One processor's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParavirtState {
    /// [`ParavirtState::VERSION`] of the writer.
    pub version: u32,
    /// MSR_KVM_SYSTEM_TIME.
    pub system_time: u64,
    /// MSR_KVM_STEAL_TIME.
    pub steal_time: u64,
    /// Asynchronous page faults.
    pub async_pf: AsyncPfState,
    /// The next HLT has been ended already.
    pub unhalted: bool,
}

impl ParavirtState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 3;
}

/// What the processors have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonState {
    /// [`CommonState::VERSION`] of the writer.
    pub version: u32,
    /// MSR_KVM_WALL_CLOCK.
    pub wall_clock: u64,
}

impl CommonState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

impl Common {
    /// The saved state.
    pub fn save(&self) -> CommonState {
        let wall_clock = self.wall_clock.load(Ordering::SeqCst);
        CommonState { version: CommonState::VERSION, wall_clock }
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// The state is another version's or another machine's; nothing was changed.
    pub fn restore(&self, state: &CommonState) -> Result<(), RestoreError> {
        let CommonState { version, wall_clock } = *state;
        let check = Check::version(NAME, version, CommonState::VERSION)?;
        self.register(check, "wall_clock", wall_clock)?;
        self.wall_clock.store(wall_clock, Ordering::SeqCst);
        Ok(())
    }

    /// A clock's register holds something only on a processor that has a clock.
    fn register(&self, check: Check, field: &'static str, value: u64) -> Result<(), RestoreError> {
        let clocks = [Feature::KvmClock, Feature::KvmClockOld];
        let there = clocks.iter().any(|&clock| self.features.contains(clock));
        check.that(there || value == 0, field, format_args!("{value:#x}"), "0")
    }
}

impl Paravirt {
    /// The saved state.
    pub fn save(&self) -> ParavirtState {
        let Self {
            common: _,
            id: _,
            tsc: _,
            system_time,
            area: _,
            steal,
            async_pf,
            unhalted,
            yields: _,
        } = self;
        ParavirtState {
            version: ParavirtState::VERSION,
            system_time: *system_time,
            steal_time: steal.register(),
            async_pf: async_pf.save(),
            unhalted: *unhalted,
        }
    }

    /// Goes on from `state`. Guest memory has the records already.
    ///
    /// # Errors
    /// The state is another version's or another machine's; nothing was changed.
    pub fn restore(&mut self, state: &ParavirtState) -> Result<(), RestoreError> {
        let ParavirtState { version, system_time, steal_time, ref async_pf, unhalted } = *state;
        let check = Check::version(NAME, version, ParavirtState::VERSION)?;
        self.common.register(check, "system_time", system_time)?;
        let there = self.offers(Feature::KvmStealTime) && Steal::is_valid(steal_time);
        let text = format_args!("{steal_time:#x}");
        check.that(there || steal_time == 0, "steal_time", text, "a valid register")?;
        let there = self.offers(Feature::KvmPvUnhalt);
        check.that(there || !unhalted, "unhalted", unhalted, false)?;
        let text = format_args!("{async_pf:x?}");
        let restored = self.restored_async_pf(async_pf);
        check.that(restored.is_some(), "async_pf", text, "valid registers")?;
        self.async_pf = restored.unwrap_or_default();
        self.place_time(system_time);
        self.steal.place(&self.common.ram, steal_time);
        self.unhalted = unhalted;
        Ok(())
    }

    fn restored_async_pf(&self, state: &AsyncPfState) -> Option<AsyncPf> {
        let interrupts = self.offers(Feature::KvmAsyncPfInt);
        let there = self.offers(Feature::KvmAsyncPf) || state.control == 0;
        let valid = there
            && AsyncPf::is_valid(state.control, interrupts)
            && (interrupts || state.interrupt == 0);
        self.async_pf.restored(&self.common.ram, state).filter(|_| valid)
    }
}
