//! Saved state of KVM's interface: its registers. The records are in guest memory, and the clock is
//! a function of the TSC.

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
    /// The next HLT has been ended already.
    pub unhalted: bool,
}

impl ParavirtState {
    /// The version that this build writes, and the only one that it reads.
    pub const VERSION: u32 = 2;
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
        let Self { common: _, tsc: _, system_time, area: _, steal, unhalted, yields: _ } = self;
        ParavirtState {
            version: ParavirtState::VERSION,
            system_time: *system_time,
            steal_time: steal.register(),
            unhalted: *unhalted,
        }
    }

    /// Goes on from `state`. Guest memory has the records already.
    ///
    /// # Errors
    /// The state is another version's or another machine's; nothing was changed.
    pub fn restore(&mut self, state: &ParavirtState) -> Result<(), RestoreError> {
        let ParavirtState { version, system_time, steal_time, unhalted } = *state;
        let check = Check::version(NAME, version, ParavirtState::VERSION)?;
        self.common.register(check, "system_time", system_time)?;
        let there = self.offers(Feature::KvmStealTime) && Steal::is_valid(steal_time);
        let text = format_args!("{steal_time:#x}");
        check.that(there || steal_time == 0, "steal_time", text, "a valid register")?;
        let there = self.offers(Feature::KvmPvUnhalt);
        check.that(there || !unhalted, "unhalted", unhalted, false)?;
        self.place_time(system_time);
        self.steal.place(&self.common.ram, steal_time);
        self.unhalted = unhalted;
        Ok(())
    }
}
