//! The local APIC (SDM vol. 3, chapter 12 "Advanced Programmable Interrupt Controller").
//!
//! One per processor, owned by the machine, shared by all threads. The [`core::Core`] holds
//! registers and rules; this adapter adds the lock, the clock, the timer and the neighbours.
//! [`vcpu::Signal::Intr`] is written only here, with the lock held, after every change: it is up
//! exactly while an interrupt is deliverable, so none is lost whichever thread asks. IPIs, EOI
//! broadcasts and the 8259's INTA cycle happen after the lock is released.

mod access;
mod bits256;
mod core;
mod icr;
mod registers;
mod saved;
#[cfg(test)]
mod tests;
mod timer;

pub use saved::{CountDown, LapicState};
use x86::addr::{Gpa, VcpuId, Vector, Width};

use self::core::{Acknowledged, Action, ApicMode, Core};
use super::interconnect::{Interconnect, Receiver};
use super::message::{DeliveryMode, Message};
use crate::irq::IrqInputs;
use crate::saved::RestoreError;
use crate::time::{Clock, Expire, Instant, SECOND, Timer, TimerQueue, Tsc};
use access::Illegal;
use registers::*;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use sync::lock;
use timer::Deadline;
use vcpu::{MsrFault, Signal, Signals};

/// What a local APIC is built from.
#[derive(Clone)]
pub struct LapicConfig {
    /// The initial APIC id (also the x2APIC id).
    pub id: VcpuId,
    /// Whether it is the bootstrap processor's (IA32_APIC_BASE.BSP).
    pub bootstrap: bool,
    /// The processor's signals.
    pub signals: Arc<Signals>,
    /// VM time.
    pub clock: Arc<dyn Clock>,
    /// Where its timer is queued.
    pub timers: Arc<TimerQueue>,
    /// The timer's input frequency in Hz: CPUID leaf 15H's crystal frequency.
    pub timer_hz: u64,
    /// The guest's TSC, for TSC-deadline mode.
    pub tsc: Arc<dyn Tsc>,
}

/// One processor's local APIC. Shared; every method may be called from any thread.
pub struct Lapic {
    id: VcpuId,
    signals: Arc<Signals>,
    clock: Arc<dyn Clock>,
    tsc: Arc<dyn Tsc>,
    timer: Timer,
    interconnect: OnceLock<Weak<Interconnect>>,
    /// Where the register page is, or [`NO_PAGE`]: written with the lock held, read without.
    page: AtomicU64,
    /// See [`Lapic::take_stall`].
    stalled: AtomicBool,
    inner: Mutex<Inner>,
}

/// A timer's interrupt that is taken so late in VM nanoseconds shows that the host has not run the
/// processor: it was stopped, or slept.
const STALL: u64 = SECOND;

/// No page is at this address.
const NO_PAGE: u64 = u64::MAX;

struct Inner {
    core: Core,
    /// What the host timer is set to.
    armed: Option<Deadline>,
    /// That in VM nanoseconds.
    due: u64,
    /// When the timer was due whose interrupt has not been taken yet.
    overdue: Option<u64>,
}

impl Lapic {
    /// The input that the 8259's output is wired to.
    pub const LINT0: u8 = 0;
    /// The input for the platform's NMI.
    pub const LINT1: u8 = 1;

    /// As after a processor reset.
    pub fn new(config: LapicConfig) -> Arc<Self> {
        let LapicConfig { id, bootstrap, signals, clock, timers, timer_hz, tsc } = config;
        let core = Core::new(id.0, bootstrap, timer_hz);
        let lapic = Arc::new(Self {
            id,
            signals,
            clock,
            tsc,
            timer: timers.timer("lapic"),
            interconnect: OnceLock::new(),
            page: AtomicU64::new(page_of(&core)),
            stalled: AtomicBool::new(false),
            inner: Mutex::new(Inner { core, armed: None, due: 0, overdue: None }),
        });
        let owner: Arc<dyn Expire> = Arc::clone(&lapic) as _;
        lapic.timer.connect(Arc::downgrade(&owner));
        lapic
    }

    /// Names the interconnect that carries its IPIs, EOI broadcasts and INTA cycles. The first call
    /// counts.
    pub(crate) fn connect(&self, interconnect: Weak<Interconnect>) {
        let _ = self.interconnect.set(interconnect);
    }

    /// The initial APIC id.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// The guest-physical address of the register page, while the APIC is enabled in xAPIC mode.
    /// Takes no lock: asked at every access to device memory.
    pub fn mmio_base(&self) -> Option<Gpa> {
        Some(self.page.load(Ordering::Relaxed)).filter(|&page| page != NO_PAGE).map(Gpa)
    }

    /// A load of `width` at `offset` in the register page. Only the first four bytes of each
    /// sixteen are there.
    pub fn mmio_read(&self, offset: u64, width: Width) -> u64 {
        let shift = (offset & 15) * 8;
        if shift >= 32 {
            return 0;
        }
        let value = self.access(|core, at| match core.mode() {
            ApicMode::Xapic => core.read_xapic(register_at(offset), at),
            _ => u32::MAX,
        });
        let value = u64::from(value) >> shift;
        value & width.mask()
    }

    /// A store. Only aligned stores of four bytes (or the low four of eight) have an effect.
    pub fn mmio_write(&self, offset: u64, width: Width, value: u64) {
        if offset & 15 != 0 || width < Width::B4 {
            return;
        }
        let action = self.access(|core, at| match core.mode() {
            ApicMode::Xapic => core.write_xapic(register_at(offset), value as u32, at),
            _ => Action::None,
        });
        self.act(action);
    }

    /// RDMSR of `msr`; `None` if it is not the local APIC's.
    pub fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        Some(match msr {
            IA32_APIC_BASE => Ok(lock(&self.inner).core.base),
            IA32_TSC_DEADLINE => Ok(self.access(|core, at| {
                core.advance(at);
                core.timer.tsc_deadline
            })),
            X2APIC_MSR_BASE..=X2APIC_MSR_LAST => self
                .access(|core, at| match core.mode() {
                    ApicMode::X2apic => core.read_x2apic(register_of(msr), at),
                    _ => Err(Illegal),
                })
                .map_err(|Illegal| MsrFault),
            _ => return None,
        })
    }

    /// WRMSR of `msr`; `None` if it is not the local APIC's.
    pub fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        let result = match msr {
            IA32_APIC_BASE => {
                return Some(self.access(|core, _| core.write_base(value)).ok_or(MsrFault));
            }
            IA32_TSC_DEADLINE => self.access(|core, at| {
                core.advance(at);
                core.timer.set_tsc_deadline(value);
                core.advance(at);
                Ok(Action::None)
            }),
            X2APIC_MSR_BASE..=X2APIC_MSR_LAST => self.access(|core, at| match core.mode() {
                ApicMode::X2apic => core.write_x2apic(register_of(msr), value, at),
                _ => Err(Illegal),
            }),
            _ => return None,
        };
        Some(result.map(|action| self.act(action)).map_err(|Illegal| MsrFault))
    }

    /// The interrupt-acknowledge cycle; see [`vcpu::CpuIo::ack_interrupt`].
    pub fn ack_interrupt(&self) -> Option<Vector> {
        let mut inner = lock(&self.inner);
        let acknowledged = inner.core.acknowledge();
        self.publish(&inner);
        let overdue = inner.overdue.take();
        drop(inner);
        if overdue.is_some_and(|due| self.clock.now().saturating_sub(due) > STALL) {
            self.stalled.store(true, Ordering::Relaxed);
        }
        match acknowledged? {
            Acknowledged::Vector(vector) => Some(vector),
            Acknowledged::External => self.interconnect()?.acknowledge_external(),
        }
    }

    /// Whether the timer's interrupt was taken more than a second late since the last call: the
    /// guest must be told before it looks at its watchdogs. For the thread that acknowledges.
    pub fn take_stall(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) && self.stalled.swap(false, Ordering::Relaxed)
    }

    /// Whether an interrupt is deliverable: what [`Signal::Intr`] says.
    pub fn interrupt_pending(&self) -> bool {
        lock(&self.inner).core.interrupt_pending()
    }

    /// CR8: bits 7:4 of the task-priority register.
    pub fn task_priority(&self) -> u8 {
        lock(&self.inner).core.tpr >> 4
    }

    /// MOV to CR8; `class` is 0 to 15.
    pub fn set_task_priority(&self, class: u8) {
        let mut inner = lock(&self.inner);
        inner.core.tpr = class << 4;
        self.publish(&inner);
    }

    /// What INIT does to the local APIC (SDM vol. 3, 12.4.7.3). The machine calls it when it resets
    /// the processor.
    pub fn init(&self) {
        self.access(|core, _| core.init());
    }

    /// Leaves it as firmware does on the bootstrap processor: software-enabled with spurious vector
    /// FFH, LINT0 passing the 8259's interrupts (virtual wire mode), LINT1 the NMI.
    pub fn set_virtual_wire(&self) {
        self.access(|core, _| {
            core.write_svr(svr::RESET | svr::ENABLE);
            core.write_lvt(slot::LINT0, (DeliveryMode::ExtInt as u32) << lvt::DELIVERY_SHIFT);
            core.write_lvt(slot::LINT1, (DeliveryMode::Nmi as u32) << lvt::DELIVERY_SHIFT);
        });
    }

    /// The guest's TSC was moved (WRMSR of IA32_TIME_STAMP_COUNTER or IA32_TSC_ADJUST): a TSC
    /// deadline now lies elsewhere in VM time.
    pub fn tsc_changed(&self) {
        self.disarm();
        self.access(Core::advance);
    }

    /// Has the host timer set anew at the end of the next access, wherever its deadline now lies.
    fn disarm(&self) {
        lock(&self.inner).armed = None;
        self.timer.cancel();
    }

    /// The page number of the start-up IPI behind [`Signal::Sipi`]; taking it clears the signal.
    /// While INIT is pending there is none: what came after INIT is for the processor that it
    /// leaves behind.
    pub fn take_sipi(&self) -> Option<Vector> {
        let mut inner = lock(&self.inner);
        if self.signals.is_raised(Signal::Init) {
            return None;
        }
        self.signals.clear(Signal::Sipi);
        inner.core.sipi.take()
    }

    /// The saved state.
    pub fn save(&self) -> LapicState {
        lock(&self.inner).core.save()
    }

    /// Goes on from `state`; the signals and the host timer follow.
    ///
    /// # Errors
    /// The state is another version's, another local APIC's, or no local APIC's; nothing was
    /// changed.
    pub fn restore(&self, state: &LapicState) -> Result<(), RestoreError> {
        let restored = lock(&self.inner).core.restored(state, self.clock.now())?;
        self.disarm();
        self.access(|core, _| *core = restored);
        if state.sipi.is_some() {
            self.signals.raise(Signal::Sipi);
        }
        Ok(())
    }

    fn interconnect(&self) -> Option<Arc<Interconnect>> {
        self.interconnect.get()?.upgrade()
    }

    /// Runs `body` with the lock, then brings signal and host timer up to date.
    fn access<R>(&self, body: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let at = self.tsc.instant();
        let mut inner = lock(&self.inner);
        let result = body(&mut inner.core, at);
        self.page.store(page_of(&inner.core), Ordering::Relaxed);
        self.publish(&inner);
        self.set_host_timer(&mut inner);
        result
    }

    fn publish(&self, inner: &MutexGuard<'_, Inner>) {
        let pending = inner.core.interrupt_pending();
        if pending != self.signals.is_raised(Signal::Intr) {
            if pending {
                self.signals.raise(Signal::Intr);
            } else {
                self.signals.clear(Signal::Intr);
            }
        }
    }

    fn set_host_timer(&self, inner: &mut Inner) {
        let masked = inner.core.lvt[slot::TIMER] & lvt::MASKED != 0;
        let wanted = inner.core.timer.deadline().filter(|_| !masked);
        if wanted == inner.armed {
            return;
        }
        inner.armed = wanted;
        let due = wanted.map(|deadline| match deadline {
            Deadline::At(ns) => ns,
            Deadline::Tsc(tsc) => self.clock.now().saturating_add(self.tsc.ns_until(tsc)),
        });
        inner.due = due.unwrap_or(0);
        self.timer.set(due);
    }

    /// Does what an access asked of the neighbours. The lock is not held.
    fn act(&self, action: Action) {
        let Some(interconnect) = self.interconnect() else { return };
        match action {
            Action::None => {}
            Action::BroadcastEoi(vector) => interconnect.broadcast_eoi(vector),
            Action::Ipi(message, among) => interconnect.send_ipi(self.id, &message, among),
        }
    }
}

/// The register to which `offset` in the page belongs.
fn register_at(offset: u64) -> u32 {
    offset as u32 & 0xFF0
}

/// The register that is MSR `msr` in x2APIC mode.
fn register_of(msr: u32) -> u32 {
    (msr - X2APIC_MSR_BASE) << STEP_SHIFT
}

/// What [`Lapic::mmio_base`] says of `core`.
fn page_of(core: &Core) -> u64 {
    if core.mode() == ApicMode::Xapic { core.base & base::ADDRESS } else { NO_PAGE }
}

impl Receiver for Lapic {
    fn id(&self) -> VcpuId {
        self.id
    }

    fn deliver(&self, message: &Message) -> bool {
        let mut inner = lock(&self.inner);
        let accepted =
            inner.core.is_addressed(message) && inner.core.receive(message, &self.signals);
        self.publish(&inner);
        accepted
    }

    fn bid(&self, message: &Message) -> Option<u8> {
        let inner = lock(&self.inner);
        let accepts = inner.core.is_addressed(message) && inner.core.software_enabled();
        accepts.then(|| inner.core.ppr())
    }
}

/// Pins [`Lapic::LINT0`] and [`Lapic::LINT1`].
impl IrqInputs for Lapic {
    fn set_input(&self, pin: u8, level: bool) {
        let mut inner = lock(&self.inner);
        inner.core.set_lint(pin, level, &self.signals);
        self.publish(&inner);
    }
}

impl Expire for Lapic {
    fn expired(&self, _now: u64) {
        // The queue has disarmed the host timer. The guest's TSC may still be short of the deadline
        // by rounding; then the deadline stands and is armed anew.
        let mut inner = lock(&self.inner);
        inner.armed = None;
        inner.overdue = inner.overdue.or(Some(inner.due));
        drop(inner);
        self.access(Core::advance);
    }
}

impl fmt::Debug for Lapic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lapic({:?})", lock(&self.inner).core)
    }
}
