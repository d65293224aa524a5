//! Asynchronous page faults: a guest that needs a page which the machine has to bring in first is
//! told so, runs other work, and is told when the page is there.
//!
//! *Not present* is a page fault, with a token in CR2 and a flag in the record that tells it from
//! the guest's own. It comes only where the guest can switch to other work: where an interrupt
//! could come, and unless the guest says otherwise in user code alone. *Ready* is an interrupt,
//! with the token in the record. The record has room for one; the next follows when the guest has
//! taken it and says so.
//!
//! Who waits is lost where a machine is saved, and where the guest enables this anew: it is then
//! told that all pages are ready, and those that are not fault again.

use super::area::Area;
use super::registers::{ENABLED, async_pf};
use memory::GuestRam;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use vcpu::{Interruptible, MsrFault};
use x86::addr::{Gpa, La, VcpuId, Vector};

/// Tokens that a processor's guest waits for at the most; the processor itself waits then.
const MOST: usize = 64;
/// A token is a processor's number, and above it a number that is never 0.
const NUMBER_SHIFT: u32 = 12;
/// Every page is ready.
const ALL: u32 = u32::MAX;

/// One processor's faults and record.
#[derive(Debug, Default)]
pub(super) struct AsyncPf {
    control: u64,
    vector: Vector,
    area: Option<Area>,
    /// The number of the last token.
    number: u32,
    /// Pages that the guest waits for, and their tokens.
    outstanding: Vec<(Gpa, u32)>,
    /// Tokens whose pages have come, which the guest has not been told.
    ready: VecDeque<u32>,
    /// It is to be told that all are ready.
    wake_all: bool,
    /// How many it was told of that were not present.
    faults: u64,
}

/// What a saved machine has of it. The record is in guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsyncPfState {
    /// MSR_KVM_ASYNC_PF_EN.
    pub control: u64,
    /// MSR_KVM_ASYNC_PF_INT.
    pub interrupt: u8,
    /// The guest waits for pages.
    pub waits: bool,
}

impl AsyncPf {
    /// MSR_KVM_ASYNC_PF_EN.
    pub(super) fn control(&self) -> u64 {
        self.control
    }

    /// MSR_KVM_ASYNC_PF_INT.
    pub(super) fn vector(&self) -> Vector {
        self.vector
    }

    pub(super) fn faults(&self) -> u64 {
        self.faults
    }

    /// Whether MSR_KVM_ASYNC_PF_EN takes `value`, where *ready* may come by interrupt or not.
    pub(super) fn is_valid(value: u64, interrupts: bool) -> bool {
        let reserved = async_pf::RESERVED | if interrupts { 0 } else { async_pf::BY_INTERRUPT };
        value & reserved == 0
    }

    fn is_enabled(&self) -> bool {
        let both = ENABLED | async_pf::BY_INTERRUPT;
        self.control & both == both
    }

    /// The guest writes a valid `value` to MSR_KVM_ASYNC_PF_EN.
    pub(super) fn enable(&mut self, ram: &GuestRam, value: u64) -> Result<(), MsrFault> {
        let area = || Area::new(ram, Gpa(value & !async_pf::FLAGS), async_pf::SIZE);
        let area = if value & ENABLED == 0 { None } else { Some(area().ok_or(MsrFault)?) };
        (self.control, self.area) = (value, area);
        self.outstanding.clear();
        self.ready.clear();
        self.wake_all = self.is_enabled();
        Ok(())
    }

    /// The guest writes MSR_KVM_ASYNC_PF_INT.
    pub(super) fn set_vector(&mut self, value: u64) -> Result<(), MsrFault> {
        self.vector = Vector(u8::try_from(value).map_err(|_| MsrFault)?);
        Ok(())
    }

    /// As after INIT.
    pub(super) fn init(&mut self) {
        *self = Self { number: self.number, faults: self.faults, ..Self::default() };
    }

    /// Whether the guest, interrupted as `guest` says, can be told that a page is not present.
    pub(super) fn can_tell(&self, ram: &GuestRam, guest: Interruptible) -> bool {
        let wanted = match guest {
            Interruptible::No => false,
            Interruptible::Kernel => self.control & async_pf::SEND_ALWAYS != 0,
            Interruptible::User => true,
        };
        // It has taken the last one, if the flag is clear.
        let taken = |area: &Area| area.word(ram, async_pf::FLAG) == 0;
        wanted
            && self.is_enabled()
            && self.outstanding.len() < MOST
            && self.area.as_ref().is_some_and(taken)
    }

    /// Tells the guest of processor `id` that the page at `page`, which is on its way, is not
    /// present: by a page fault with this in CR2.
    pub(super) fn not_present(&mut self, ram: &GuestRam, id: VcpuId, page: Gpa) -> Option<La> {
        let area = self.area.as_ref()?;
        area.set_word(ram, async_pf::FLAG, async_pf::NOT_PRESENT);
        self.number = (self.number + 1) << NUMBER_SHIFT >> NUMBER_SHIFT;
        self.number = self.number.max(1);
        let token = self.number << NUMBER_SHIFT | id.0;
        self.outstanding.push((page, token));
        self.faults += 1;
        Some(La(token.into()))
    }

    /// The page at `page` has come.
    pub(super) fn came(&mut self, page: Gpa) {
        let Self { outstanding, ready, .. } = self;
        outstanding.retain(|&(waited, token)| {
            let came = waited == page;
            ready.extend(came.then_some(token));
            !came
        });
    }

    /// Tells the guest of the next page that is ready, if it can take that now. `interrupt` tells
    /// whether its interrupt was accepted.
    pub(super) fn tell(&mut self, ram: &GuestRam, interrupt: impl FnOnce(Vector) -> bool) {
        let next = if self.wake_all { Some(ALL) } else { self.ready.front().copied() };
        let (Some(token), Some(area), true) = (next, &self.area, self.is_enabled()) else { return };
        if area.word(ram, async_pf::TOKEN) != 0 {
            return;
        }
        area.set_word(ram, async_pf::TOKEN, token);
        if !interrupt(self.vector) {
            area.set_word(ram, async_pf::TOKEN, 0);
        } else if std::mem::take(&mut self.wake_all) {
            self.outstanding.clear();
            self.ready.clear();
        } else {
            self.ready.pop_front();
        }
    }

    pub(super) fn save(&self) -> AsyncPfState {
        let Self { control, vector, outstanding, ready, wake_all, .. } = self;
        let waits = *wake_all || !outstanding.is_empty() || !ready.is_empty();
        AsyncPfState { control: *control, interrupt: vector.0, waits }
    }

    /// As `state` has it. `None`: that is not valid.
    pub(super) fn restored(&self, ram: &GuestRam, state: &AsyncPfState) -> Option<Self> {
        let AsyncPfState { control, interrupt, waits } = *state;
        let Self { number, faults, .. } = *self;
        let vector = Vector(interrupt);
        let mut new = Self { number, faults, vector, ..Self::default() };
        new.enable(ram, control).ok()?;
        (!waits || new.is_enabled()).then_some(())?;
        new.wake_all = waits;
        Some(new)
    }
}
