//! KVM's paravirtual interface (Linux `Documentation/virt/kvm/x86/`): MSRs, hypercalls, and records
//! in guest memory that tell a guest what no hardware could.
//!
//! [`Paravirt`] is one processor's part, and used by the thread that runs it; while the processor
//! stands still, by others. [`Common`] is what the processors share. What the model does not offer
//! is not there: its MSRs fault, its calls are unknown.
//!
//! Pure: [`clock`], which has the clock's arithmetic.

mod area;
mod clock;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use saved::{CommonState, ParavirtState};

use crate::chipset::WallClock;
use crate::time::Tsc;
use area::Area;
use clock::{Moment, Rate};
use memory::GuestRam;
use registers::{ENABLED, PAIRING_WALL_CLOCK, WALL_CLOCK_SIZE, call, msr, time_info};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vcpu::{Hypercall, HypercallError, MsrFault};
use x86::addr::Gpa;
use x86::cpuid::{CpuModel, Feature, FeatureSet};

/// How often a moment on two clocks is looked for.
const LOOKS: u32 = 3;

/// What the processors of a machine have in common.
pub struct Common {
    features: FeatureSet,
    rate: Rate,
    ram: GuestRam,
    wall: Arc<dyn WallClock>,
    /// MSR_KVM_WALL_CLOCK, which all processors share.
    wall_clock: AtomicU64,
}

impl Common {
    /// The interface that `model` offers to the guest in `ram`; `wall` is the time that it tells.
    pub fn new(model: &CpuModel, ram: &GuestRam, wall: Arc<dyn WallClock>) -> Arc<Self> {
        Arc::new(Self {
            features: model.features,
            rate: Rate::of(model.tsc_hz),
            ram: ram.clone(),
            wall,
            wall_clock: AtomicU64::new(0),
        })
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("wall_clock", &self.wall_clock).finish_non_exhaustive()
    }
}

/// One processor's part.
pub struct Paravirt {
    common: Arc<Common>,
    tsc: Arc<dyn Tsc>,
    /// MSR_KVM_SYSTEM_TIME, and the record that it asks for.
    system_time: u64,
    area: Option<Area>,
}

impl fmt::Debug for Paravirt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Paravirt");
        out.field("system_time", &self.system_time).finish_non_exhaustive()
    }
}

/// What is behind an MSR.
#[derive(Clone, Copy)]
enum Register {
    WallClock,
    SystemTime,
}

impl Paravirt {
    /// The part of the processor with `tsc`.
    pub fn new(common: &Arc<Common>, tsc: Arc<dyn Tsc>) -> Self {
        Self { common: Arc::clone(common), tsc, system_time: 0, area: None }
    }

    /// The register with this number, where the model has it.
    fn register(&self, number: u32) -> Option<Register> {
        let (register, feature) = match number {
            msr::WALL_CLOCK_OLD => (Register::WallClock, Feature::KvmClockOld),
            msr::SYSTEM_TIME_OLD => (Register::SystemTime, Feature::KvmClockOld),
            msr::WALL_CLOCK => (Register::WallClock, Feature::KvmClock),
            msr::SYSTEM_TIME => (Register::SystemTime, Feature::KvmClock),
            _ => return None,
        };
        self.common.features.contains(feature).then_some(register)
    }

    /// RDMSR; `None`: the register is not of this interface.
    pub fn msr_read(&self, number: u32) -> Option<Result<u64, MsrFault>> {
        Some(Ok(match self.register(number)? {
            Register::WallClock => self.common.wall_clock.load(Ordering::SeqCst),
            Register::SystemTime => self.system_time,
        }))
    }

    /// WRMSR; `None`: the register is not of this interface.
    pub fn msr_write(&mut self, number: u32, value: u64) -> Option<Result<(), MsrFault>> {
        match self.register(number)? {
            Register::WallClock => self.tell_wall_clock(value),
            Register::SystemTime => {
                self.place_time(value);
                self.tell_time(0);
            }
        }
        Some(Ok(()))
    }

    /// A hypercall of this processor.
    ///
    /// # Errors
    /// There is no such call, or it makes no sense.
    pub fn hypercall(&mut self, call: Hypercall) -> Result<u64, HypercallError> {
        let [a0, a1, ..] = call.arguments;
        match call.number {
            call::VAPIC_POLL_IRQ => Ok(0),
            call::CLOCK_PAIRING => self.pair_clocks(Gpa(a0), a1),
            _ => Err(HypercallError::Unknown),
        }
    }

    /// The guest has moved this processor's TSC.
    pub fn tsc_changed(&self) {
        self.tell_time(0);
    }

    /// The machine goes on after it stood still, or was saved: the guest's watchdogs are to hear of
    /// it.
    pub fn was_stopped(&self) {
        self.tell_time(time_info::GUEST_STOPPED);
    }

    /// INIT: no record is kept up to date any more, as with KVM.
    pub fn init(&mut self) {
        self.place_time(0);
    }

    fn place_time(&mut self, value: u64) {
        self.system_time = value;
        let place = || Area::new(&self.common.ram, Gpa(value & !ENABLED), time_info::SIZE);
        self.area = if value & ENABLED == 0 { None } else { place() };
    }

    /// Brings the time's record up to date, with `flags` among its flags.
    fn tell_time(&self, flags: u8) {
        let Some(area) = &self.area else { return };
        let (common, moved) = (&*self.common, self.tsc.moved());
        // Only the guest clears this one.
        let mut flags = flags | area.byte(&common.ram, time_info::FLAGS) & time_info::GUEST_STOPPED;
        // Processors whose TSCs the guest has moved apart cannot read each other's record.
        if moved == 0 && common.features.contains(Feature::KvmClockStable) {
            flags |= time_info::TSC_STABLE;
        }
        area.publish(&common.ram, &clock::time_record(common.rate, moved, flags));
    }

    fn tell_wall_clock(&self, value: u64) {
        let common = &*self.common;
        common.wall_clock.store(value, Ordering::SeqCst);
        if let Some(area) = Area::new(&common.ram, Gpa(value), WALL_CLOCK_SIZE) {
            area.publish(&common.ram, &self.moment().wall_record(common.rate));
        }
    }

    /// KVM_HC_CLOCK_PAIRING.
    fn pair_clocks(&self, gpa: Gpa, clock: u64) -> Result<u64, HypercallError> {
        if clock != PAIRING_WALL_CLOCK {
            return Err(HypercallError::NotSupported);
        }
        let record = self.moment().pairing_record(self.tsc.moved());
        let (ram, len) = (&self.common.ram, record.len() as u64);
        let fault = |_| HypercallError::Fault;
        let _pin = ram.hold(gpa, len).map_err(fault)?;
        ram.write(gpa, &record).map_err(fault)?;
        ram.wrote(gpa, len);
        Ok(0)
    }

    /// Now, on both clocks: the closest of a few looks.
    fn moment(&self) -> Moment {
        let look = |_| {
            let before = self.tsc.guest_tsc();
            let wall = self.common.wall.unix_ns();
            let passed = self.tsc.guest_tsc().wrapping_sub(before);
            let tsc = before.wrapping_add(passed / 2).wrapping_sub(self.tsc.moved());
            (passed, Moment { wall, tsc })
        };
        let looks = (0..LOOKS).map(look).min_by_key(|&(passed, _)| passed);
        looks.map_or(Moment { wall: 0, tsc: 0 }, |(_, moment)| moment)
    }
}
