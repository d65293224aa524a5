//! The local APIC.

use super::Interconnect;
use crate::time::{Clock, TimerQueue, Tsc};
use std::fmt;
use std::sync::{Arc, Weak};
use vcpu::{MsrFault, Signals};

/// What a local APIC is built from.
#[derive(Clone)]
pub struct LapicConfig {
    /// The initial APIC id (also the x2APIC id).
    pub id: u32,
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
    config: LapicConfig,
}

impl Lapic {
    /// As after a processor reset.
    pub fn new(config: LapicConfig) -> Arc<Self> {
        Arc::new(Self { config })
    }

    /// Names the interconnect that carries its IPIs, EOI broadcasts and INTA cycles.
    pub(crate) fn connect(&self, _interconnect: Weak<Interconnect>) {}

    /// The initial APIC id.
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// The guest-physical address of the register page, while the APIC is enabled in xAPIC mode.
    pub fn mmio_base(&self) -> Option<u64> {
        None
    }

    /// A load of `size` bytes at `offset` in the register page.
    pub fn mmio_read(&self, offset: u64, size: u8) -> u64 {
        let _ = (offset, size);
        0
    }

    /// A store.
    pub fn mmio_write(&self, offset: u64, size: u8, value: u64) {
        let _ = (offset, size, value);
    }

    /// RDMSR of `msr`; `None` if it is not the local APIC's.
    pub fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        let _ = msr;
        None
    }

    /// WRMSR of `msr`; `None` if it is not the local APIC's.
    pub fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        let _ = (msr, value);
        None
    }

    /// The interrupt-acknowledge cycle; see [`vcpu::CpuIo::ack_interrupt`].
    pub fn ack_interrupt(&self) -> Option<u8> {
        None
    }

    /// CR8.
    pub fn task_priority(&self) -> u8 {
        0
    }

    /// MOV to CR8.
    pub fn set_task_priority(&self, class: u8) {
        let _ = class;
    }

    /// What INIT does to the local APIC (SDM vol. 3, 12.4.7.3). The machine calls it when it resets the processor.
    pub fn init(&self) {}

    /// What a power-up reset does to it.
    pub fn reset(&self) {}

    /// The page number of the start-up IPI behind [`vcpu::Signal::Sipi`]; taking it clears the signal.
    pub fn take_sipi(&self) -> Option<u8> {
        None
    }
}

impl fmt::Debug for Lapic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lapic({})", self.config.id)
    }
}
