//! KVM's paravirtual interface (Linux `Documentation/virt/kvm/x86/`): MSRs, hypercalls, and records
//! in guest memory that tell a guest what no hardware could.
//!
//! [`Paravirt`] is one processor's part, and used by the thread that runs it; while the processor
//! stands still, by others. [`Common`] is what the processors share. What the model does not offer
//! is not there: its MSRs fault, its calls are unknown.
//!
//! Pure: [`clock`], which has the clock's arithmetic.

mod area;
mod async_pf;
mod clock;
mod ipi;
mod registers;
mod saved;
mod steal;
#[cfg(test)]
mod tests;

pub use saved::{AsyncPfState, CommonState, ParavirtState};

use crate::chipset::WallClock;
use crate::irqchip::{DeliveryMode, DestinationMode, Interconnect, Message, Trigger};
use crate::time::Tsc;
use area::Area;
use async_pf::AsyncPf;
use clock::{Moment, Rate};
use memory::GuestRam;
use registers::{ENABLED, PAIRING_WALL_CLOCK, WALL_CLOCK_SIZE, call, msr, time_info};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use steal::Steal;
use vcpu::{Hypercall, HypercallError, Interruptible, MsrFault, Signals};
use x86::addr::{Gpa, La, VcpuId};
use x86::cpuid::{CpuModel, Feature, FeatureSet};

/// How often a moment on two clocks is looked for.
const LOOKS: u32 = 3;

/// What the processors of a machine have in common.
pub struct Common {
    features: FeatureSet,
    rate: Rate,
    ram: GuestRam,
    wall: Arc<dyn WallClock>,
    interconnect: Arc<Interconnect>,
    signals: Vec<Arc<Signals>>,
    /// MSR_KVM_WALL_CLOCK, which all processors share.
    wall_clock: AtomicU64,
}

/// What the interface is built from.
pub struct CommonConfig<'a> {
    /// What is offered.
    pub model: &'a CpuModel,
    /// Where guests put records.
    pub ram: &'a GuestRam,
    /// The time that guests are told.
    pub wall: Arc<dyn WallClock>,
    /// Carries interrupts to the processors.
    pub interconnect: Arc<Interconnect>,
    /// How the processors are reached, by APIC id.
    pub signals: Vec<Arc<Signals>>,
}

impl fmt::Debug for CommonConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonConfig").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Common {
    /// With no record registered.
    pub fn new(config: CommonConfig<'_>) -> Arc<Self> {
        let CommonConfig { model, ram, wall, interconnect, signals } = config;
        Arc::new(Self {
            features: model.features,
            rate: Rate::of(model.tsc_hz),
            ram: ram.clone(),
            wall,
            interconnect,
            signals,
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
    id: VcpuId,
    tsc: Arc<dyn Tsc>,
    /// MSR_KVM_SYSTEM_TIME, and the record that it asks for.
    system_time: u64,
    area: Option<Area>,
    steal: Steal,
    async_pf: AsyncPf,
    /// The next HLT has been ended already.
    unhalted: bool,
    /// The guest wants another processor to run rather than this one.
    yields: Option<VcpuId>,
}

impl fmt::Debug for Paravirt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Paravirt");
        out.field("system_time", &self.system_time).field("steal", &self.steal);
        out.field("unhalted", &self.unhalted).finish_non_exhaustive()
    }
}

/// What is behind an MSR.
#[derive(Clone, Copy)]
enum Register {
    WallClock,
    SystemTime,
    StealTime,
    AsyncPfEnable,
    AsyncPfVector,
    AsyncPfAcknowledge,
}

impl Paravirt {
    /// The part of processor `id`, which has `tsc`.
    pub fn new(common: &Arc<Common>, id: VcpuId, tsc: Arc<dyn Tsc>) -> Self {
        Self {
            common: Arc::clone(common),
            id,
            tsc,
            system_time: 0,
            area: None,
            steal: Steal::default(),
            async_pf: AsyncPf::default(),
            unhalted: false,
            yields: None,
        }
    }

    /// The register with this number, where the model has it.
    fn register(&self, number: u32) -> Option<Register> {
        let (register, feature) = match number {
            msr::WALL_CLOCK_OLD => (Register::WallClock, Feature::KvmClockOld),
            msr::SYSTEM_TIME_OLD => (Register::SystemTime, Feature::KvmClockOld),
            msr::WALL_CLOCK => (Register::WallClock, Feature::KvmClock),
            msr::SYSTEM_TIME => (Register::SystemTime, Feature::KvmClock),
            msr::STEAL_TIME => (Register::StealTime, Feature::KvmStealTime),
            msr::ASYNC_PF_EN => (Register::AsyncPfEnable, Feature::KvmAsyncPf),
            msr::ASYNC_PF_INT => (Register::AsyncPfVector, Feature::KvmAsyncPfInt),
            msr::ASYNC_PF_ACK => (Register::AsyncPfAcknowledge, Feature::KvmAsyncPfInt),
            _ => return None,
        };
        self.offers(feature).then_some(register)
    }

    fn offers(&self, feature: Feature) -> bool {
        self.common.features.contains(feature)
    }

    /// RDMSR; `None`: the register is not of this interface.
    pub fn msr_read(&self, number: u32) -> Option<Result<u64, MsrFault>> {
        Some(Ok(match self.register(number)? {
            Register::WallClock => self.common.wall_clock.load(Ordering::SeqCst),
            Register::SystemTime => self.system_time,
            Register::StealTime => self.steal.register(),
            Register::AsyncPfEnable => self.async_pf.control(),
            Register::AsyncPfVector => self.async_pf.vector().0.into(),
            Register::AsyncPfAcknowledge => 0,
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
            Register::StealTime => return Some(self.steal.write(&self.common.ram, value)),
            Register::AsyncPfEnable => return Some(self.enable_async_faults(value)),
            Register::AsyncPfVector => return Some(self.async_pf.set_vector(value)),
            Register::AsyncPfAcknowledge if value & 1 != 0 => self.tell_ready(),
            Register::AsyncPfAcknowledge => {}
        }
        Some(Ok(()))
    }

    /// A hypercall of this processor.
    ///
    /// # Errors
    /// There is no such call, or it makes no sense.
    pub fn hypercall(&mut self, call: Hypercall) -> Result<u64, HypercallError> {
        let [a0, a1, a2, a3] = call.arguments;
        match call.number {
            call::VAPIC_POLL_IRQ => Ok(0),
            call::CLOCK_PAIRING => self.pair_clocks(Gpa(a0), a1),
            call::KICK_CPU if self.offers(Feature::KvmPvUnhalt) => {
                self.common.kick(a1);
                Ok(0)
            }
            call::SEND_IPI if self.offers(Feature::KvmPvIpi) => {
                let map = u128::from(a1) << call.bits | u128::from(a0);
                self.common.send_ipis(map, a2, a3)
            }
            call::SCHED_YIELD if self.offers(Feature::KvmPvSchedYield) => {
                let id = u32::try_from(a0).ok().filter(|_| self.common.is_queued(a0));
                self.yields = id.map(VcpuId);
                Ok(0)
            }
            _ => Err(HypercallError::Unknown),
        }
    }

    /// The guest has moved this processor's TSC.
    pub fn tsc_changed(&self) {
        self.tell_time(0);
    }

    /// The machine goes on after it stood still, or was saved, or the host has not run it for a
    /// while: the guest's watchdogs are to hear of it.
    pub fn was_stopped(&self) {
        self.tell_time(time_info::GUEST_STOPPED);
    }

    /// INIT: no record is kept up to date any more, as with KVM.
    pub fn init(&mut self) {
        self.place_time(0);
        self.steal.place(&self.common.ram, 0);
        self.async_pf.init();
        self.unhalted = false;
    }

    fn enable_async_faults(&mut self, value: u64) -> Result<(), MsrFault> {
        if !AsyncPf::is_valid(value, self.offers(Feature::KvmAsyncPfInt)) {
            return Err(MsrFault);
        }
        self.async_pf.enable(&self.common.ram, value)?;
        self.tell_ready();
        Ok(())
    }

    /// Whether the guest, interrupted as `guest` says, can be told that a page is not present.
    pub fn takes_async_fault(&self, guest: Interruptible) -> bool {
        self.async_pf.can_tell(&self.common.ram, guest)
    }

    /// The guest is told that the page at `page` is not present, as [`Paravirt::takes_async_fault`]
    /// permits: by a page fault with this address. [`Paravirt::page_came`] must follow.
    pub fn async_fault(&mut self, page: Gpa) -> Option<La> {
        self.async_pf.not_present(&self.common.ram, self.id, page)
    }

    /// The page at `page` has come: the guest is told if it waits for it.
    pub fn page_came(&mut self, page: Gpa) {
        self.async_pf.came(page);
        self.tell_ready();
    }

    /// Asynchronous page faults up to now.
    pub fn async_faults(&self) -> u64 {
        self.async_pf.faults()
    }

    fn tell_ready(&mut self) {
        let (interconnect, destination) = (&self.common.interconnect, self.id.0);
        let (delivery, mode) = (DeliveryMode::Fixed, DestinationMode::Physical);
        self.async_pf.tell(&self.common.ram, |vector| {
            let trigger = Trigger::Edge;
            interconnect.deliver(&Message { vector, delivery, trigger, mode, destination })
        });
    }

    /// The processor is about to run, after it has waited for `waited` in all. True: all its
    /// translations of linear addresses must be dropped before it does.
    #[must_use]
    pub fn arrives(&mut self, waited: Duration) -> bool {
        self.tell_ready();
        self.steal.arrives(&self.common.ram, waited) && self.offers(Feature::KvmPvTlbFlush)
    }

    /// The processor runs no more until [`Paravirt::arrives`].
    pub fn leaves(&mut self) {
        self.steal.leaves(&self.common.ram);
    }

    /// [`vcpu::Signal::Unhalt`] was raised and cleared: the next HLT ends at once.
    pub fn unhalt(&mut self) {
        self.unhalted = true;
    }

    /// Whether the next HLT ends at once.
    pub fn is_unhalted(&self) -> bool {
        self.unhalted
    }

    /// It did.
    pub fn halted(&mut self) {
        self.unhalted = false;
    }

    /// Whether [`Paravirt::take_yield`] has something to tell: this processor is to leave `run`.
    pub fn wants_to_yield(&self) -> bool {
        self.yields.is_some()
    }

    /// Which processor the guest wants to run instead of this one, if it has said so since the last
    /// call.
    pub fn take_yield(&mut self) -> Option<VcpuId> {
        self.yields.take()
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
        area.publish(&common.ram, 0, 4, &clock::time_record(common.rate, moved, flags));
    }

    fn tell_wall_clock(&self, value: u64) {
        let common = &*self.common;
        common.wall_clock.store(value, Ordering::SeqCst);
        if let Some(area) = Area::new(&common.ram, Gpa(value), WALL_CLOCK_SIZE) {
            area.publish(&common.ram, 0, 4, &self.moment().wall_record(common.rate));
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
