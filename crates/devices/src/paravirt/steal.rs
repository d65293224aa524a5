//! Steal time: the record that tells a guest how long a processor could have run and did not, and
//! whether it runs now.
//!
//! The byte *preempted* is what other processors act on: while it says that this one is away, they
//! spare it interrupts, and ask in it for a flush of the TLB instead. So it says so exactly while
//! the processor does not run. When it comes back, the byte is taken and cleared in one step before
//! the guest makes any access; who asked before that is heard, who comes later finds it running.

use super::area::Area;
use super::registers::{ENABLED, steal_time};
use memory::GuestRam;
use std::time::Duration;
use vcpu::MsrFault;
use x86::addr::Gpa;

/// One processor's record.
#[derive(Debug, Default)]
pub(super) struct Steal {
    register: u64,
    area: Option<Area>,
    /// What the guest has been told of.
    told: Duration,
}

impl Steal {
    /// MSR_KVM_STEAL_TIME.
    pub(super) fn register(&self) -> u64 {
        self.register
    }

    /// Whether the register takes `value`.
    pub(super) fn is_valid(value: u64) -> bool {
        value & steal_time::RESERVED == 0
    }

    /// The guest writes the register; this processor runs.
    pub(super) fn write(&mut self, ram: &GuestRam, value: u64) -> Result<(), MsrFault> {
        if !Self::is_valid(value) {
            return Err(MsrFault);
        }
        self.place(ram, value);
        self.mark(ram, 0);
        Ok(())
    }

    /// From now on the record is where `value` says, which is valid.
    pub(super) fn place(&mut self, ram: &GuestRam, value: u64) {
        self.register = value;
        let area = || Area::new(ram, Gpa(value & !ENABLED), steal_time::SIZE);
        self.area = if value & ENABLED == 0 { None } else { area() };
    }

    /// The processor is about to run, after it has waited for `waited` in all. Whether its TLB must
    /// be flushed first.
    pub(super) fn arrives(&mut self, ram: &GuestRam, waited: Duration) -> bool {
        let more = waited.saturating_sub(std::mem::replace(&mut self.told, waited));
        let asked = self.mark(ram, 0);
        if let Some(area) = self.area.as_ref().filter(|_| !more.is_zero()) {
            let sum = area.long(ram, 0).wrapping_add(more.as_nanos() as u64);
            area.publish(ram, steal_time::VERSION, 0, &sum.to_le_bytes());
        }
        asked & steal_time::FLUSH_TLB != 0
    }

    /// The processor runs no more for now.
    pub(super) fn leaves(&self, ram: &GuestRam) {
        self.mark(ram, steal_time::AWAY);
    }

    /// Puts `value` in the byte that others look at, and tells what was there.
    fn mark(&self, ram: &GuestRam, value: u8) -> u8 {
        let swap = |area: &Area| ram.swap_byte(area.at(steal_time::PREEMPTED), value);
        self.area.as_ref().and_then(swap).unwrap_or(0)
    }
}
