//! The saved state of a machine as data, and why one is refused.

use super::cpu::{CpuError, SavedCpu};
use devices::chipset::{AcpiPmState, I8042State, LatchState, PitState, RtcState, UartState};
use devices::irqchip::{IoApicState, LapicState, PicState};
use devices::paravirt::{CommonState, ParavirtState};
use devices::pci::PciBusState;
use devices::virtio::{MmioState, PciState};
use serde::{Deserialize, Serialize};
use vcpu::StateError;

/// The version that [`crate::Machine::save`] writes.
pub const VERSION: u32 = 11;

/// A machine's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The processor that the guest sees, as [`x86::cpuid::CpuModel::parse`] takes it.
    pub cpu: String,
    /// Its TSC's frequency, hertz.
    pub tsc_hz: u64,
    /// Its core crystal clock, hertz.
    pub crystal_hz: u32,
    /// Where RAM is: guest-physical address and bytes of each region.
    pub memory: Vec<(u64, u64)>,
    /// VM time, nanoseconds.
    pub now: u64,
    /// The guest's TSC at that time.
    pub guest_tsc: u64,
    /// Each processor with its local APIC.
    pub processors: Vec<ProcessorState>,
    /// The 8259 pair.
    pub pic: PicState,
    /// The IOAPIC.
    pub ioapic: IoApicState,
    /// The chipset.
    pub chipset: ChipsetState,
    /// What the processors share of KVM's interface.
    pub paravirt: CommonState,
    /// The PCI bus with its host bridge.
    pub pci: PciBusState,
    /// Each virtio device with its transport; disks' images are the host's files.
    pub virtio: Vec<VirtioState>,
}

/// The state of a virtio device, on its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtioState {
    /// On MMIO.
    Mmio(MmioState),
    /// On PCI.
    Pci(PciState),
}

/// One processor's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorState {
    /// The processor.
    pub cpu: SavedCpu,
    /// Its local APIC.
    pub lapic: LapicState,
    /// An NMI waits to be delivered.
    pub nmi: bool,
    /// Its part of KVM's interface.
    pub paravirt: ParavirtState,
}

/// The chipset's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each is the device of that name
pub struct ChipsetState {
    pub pit: PitState,
    pub rtc: RtcState,
    pub i8042: I8042State,
    pub acpi: AcpiPmState,
    pub post: LatchState,
    pub fast_a20: LatchState,
    pub reset: LatchState,
    pub com1: UartState,
    pub com2: UartState,
    pub com3: UartState,
}

/// Why a state cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by another version.
    #[error(
        "the saved state has version {found}, and this gemello reads {VERSION}; use the gemello \
         that wrote it"
    )]
    Version {
        /// What was found.
        found: u32,
    },
    /// No machine has run so long.
    #[error(
        "the saved state is that of a machine that has run for {found} ns; the state is damaged"
    )]
    Time {
        /// In the state.
        found: u64,
    },
    /// A device's part of it.
    #[error(transparent)]
    Device(#[from] devices::saved::RestoreError),
    /// Another machine's.
    #[error(
        "the saved state has {found} virtio devices and this machine {expected}; \
         build the machine with the same ones"
    )]
    Devices {
        /// In the state.
        found: usize,
        /// In the machine.
        expected: usize,
    },
    /// A processor's part of it.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The engine refuses a processor's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another machine's.
    #[error(
        "the saved state is that of a machine with {what} {found}, and this one has {expected}; \
         build the machine alike"
    )]
    Machine {
        /// "processor" or "memory".
        what: &'static str,
        /// In the state.
        found: String,
        /// In the machine.
        expected: String,
    },
    /// The guest has been told another frequency.
    #[error(
        "the saved guest's clock counts {found} Hz and this host's {expected}; restore it on a \
         host whose TSC runs as fast"
    )]
    Frequency {
        /// In the state.
        found: u64,
        /// Of the host.
        expected: u64,
    },
    /// Another machine's.
    #[error(
        "the saved state has {found} processors and this machine {expected}; build the machine \
         with as many"
    )]
    Processors {
        /// In the state.
        found: usize,
        /// In the machine.
        expected: usize,
    },
}
