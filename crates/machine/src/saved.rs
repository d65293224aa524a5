//! The state of a whole machine, memory aside: what a snapshot holds, and a restored machine
//! continues from.
//!
//! It is taken and restored while the machine stands still. Guest memory is saved beside it
//! ([`file`]); the host's side (consoles, timeouts) is not state. A state that comes from a file
//! may hold anything: each part checks its own.

pub mod cpu;
pub mod file;
#[doc(hidden)]
pub mod fuzz;

pub use cpu::{CpuError, SavedCpu};
pub use file::{FileError, Header, SavedMachine};

use crate::build::{Board, Chipset, Machine, lock};
use crate::processor::Processor;
use devices::chipset::{AcpiPmState, I8042State, LatchState, PitState, RtcState, UartState};
use devices::irqchip::{IoApicState, LapicState, PicState};
use devices::time::Clock as _;
use devices::virtio::MmioState;
use serde::{Deserialize, Serialize};
use vcpu::{Elements, Signal, StateError};
use x86::state::CpuState;

/// The version that [`Machine::save`] writes.
pub const VERSION: u32 = 4;

/// VM time ends here, in nanoseconds: after 146 years.
const TIME_MAX: u64 = 1 << 62;

/// A machine's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The processor that the guest sees, as [`CpuModel::parse`] takes it.
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
    /// Each virtio device with its transport; disks' images are the host's files.
    pub virtio: Vec<MmioState>,
}

/// One processor's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessorState {
    /// The processor.
    pub cpu: SavedCpu,
    /// Its local APIC.
    pub lapic: LapicState,
    /// An NMI waits to be delivered.
    pub nmi: bool,
}

/// The chipset's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Board {
    /// Where RAM is.
    fn memory_map(&self) -> Vec<(u64, u64)> {
        self.ram.regions().iter().map(|region| (region.gpa.0, region.len)).collect()
    }

    /// The state, while nothing runs.
    pub(crate) fn save(&self) -> Result<MachineState, StateError> {
        // What raises interrupt lines comes before the chips, and these before the local APICs: a
        // line that a device raises while it is saved is up in the state, too.
        let virtio = self.virtio.iter().map(|device| device.lock().save()).collect();
        let chipset = self.chipset.save();
        let (pic, ioapic) = (self.irqchips.pic.save(), self.irqchips.ioapic.save());
        let processors = self.processors.iter().map(|p| lock(p).save());
        Ok(MachineState {
            version: VERSION,
            cpu: self.model.to_string(),
            tsc_hz: self.model.tsc_hz,
            crystal_hz: self.model.crystal_hz,
            memory: self.memory_map(),
            now: self.clock.now(),
            guest_tsc: self.clock.guest_tsc(),
            processors: processors.collect::<Result<_, _>>()?,
            pic,
            ioapic,
            chipset,
            virtio,
        })
    }
}

impl Machine {
    /// The state, while the machine does not run.
    ///
    /// # Errors
    /// The engine does not tell a processor's state.
    pub fn save(&self) -> Result<MachineState, StateError> {
        self.board.save()
    }

    /// Goes on from `state` at the next run. Guest memory must be as it was when the state was
    /// saved.
    ///
    /// # Errors
    /// The state is another version's or another machine's; nothing was changed. Or a device
    /// refuses its part of it: then drop the machine, some of whose devices have taken over theirs.
    pub fn restore(&mut self, state: &MachineState) -> Result<(), RestoreError> {
        let MachineState {
            version,
            cpu,
            tsc_hz,
            crystal_hz,
            memory,
            now,
            guest_tsc,
            processors,
            pic,
            ioapic,
            chipset,
            virtio,
        } = state;
        if *version != VERSION {
            return Err(RestoreError::Version { found: *version });
        }
        if *now > TIME_MAX {
            return Err(RestoreError::Time { found: *now });
        }
        let board = &*self.board;
        let model = |cpu: &str, tsc, crystal| format!("{cpu} ({tsc} Hz, crystal {crystal} Hz)");
        let found = model(cpu, *tsc_hz, *crystal_hz);
        let has = &board.model;
        let expected = model(&has.to_string(), has.tsc_hz, has.crystal_hz);
        if found != expected {
            return Err(RestoreError::Machine { what: "processor", found, expected });
        }
        if *memory != board.memory_map() {
            let (found, expected) = (format!("{memory:x?}"), format!("{:x?}", board.memory_map()));
            return Err(RestoreError::Machine { what: "memory", found, expected });
        }
        let (found, expected) = (processors.len(), board.processors.len());
        if found != expected {
            return Err(RestoreError::Processors { found, expected });
        }
        let (found, expected) = (virtio.len(), board.virtio.len());
        if found != expected {
            return Err(RestoreError::Devices { found, expected });
        }
        let cpus = processors.iter().map(|p| p.cpu.state(&board.model));
        let cpus = cpus.collect::<Result<Vec<_>, _>>()?;
        board.clock.set(*now, *guest_tsc);
        for ((processor, state), cpu) in board.processors.iter().zip(processors).zip(&cpus) {
            lock(processor).restore(state, cpu)?;
        }
        board.irqchips.pic.restore(pic)?;
        board.irqchips.ioapic.restore(ioapic)?;
        board.chipset.restore(chipset)?;
        for (device, state) in board.virtio.iter().zip(virtio) {
            device.lock().restore(state)?;
        }
        Ok(())
    }
}

impl Processor {
    fn save(&mut self) -> Result<ProcessorState, StateError> {
        let mut cpu = self.vcpu.state()?;
        cpu.tsc_offset = self.io.tsc.moved();
        let nmi = self.signals.is_raised(Signal::Nmi);
        Ok(ProcessorState { cpu: SavedCpu::from(&cpu), lapic: self.io.lapic.save(), nmi })
    }

    fn restore(&mut self, state: &ProcessorState, cpu: &CpuState) -> Result<(), RestoreError> {
        let ProcessorState { cpu: _, lapic, nmi } = state;
        self.vcpu.set(Elements::all(), cpu)?;
        self.io.tsc.set_moved(cpu.tsc_offset);
        self.follow_clock();
        self.io.lapic.restore(lapic)?;
        if *nmi {
            self.signals.raise(Signal::Nmi);
        } else {
            self.signals.clear(Signal::Nmi);
        }
        Ok(())
    }
}

impl Chipset {
    fn save(&self) -> ChipsetState {
        let Self { pit, rtc, i8042, acpi, post, fast_a20, reset, com1, com2, com3 } = self;
        ChipsetState {
            pit: lock(pit).save(),
            rtc: lock(rtc).save(),
            i8042: lock(i8042).save(),
            acpi: lock(acpi).save(),
            post: lock(post).save(),
            fast_a20: lock(fast_a20).save(),
            reset: lock(reset).save(),
            com1: lock(com1).save(),
            com2: lock(com2).save(),
            com3: lock(com3).save(),
        }
    }

    fn restore(&self, state: &ChipsetState) -> Result<(), devices::saved::RestoreError> {
        let ChipsetState { pit, rtc, i8042, acpi, post, fast_a20, reset, com1, com2, com3 } = state;
        lock(&self.pit).restore(pit)?;
        lock(&self.rtc).restore(rtc)?;
        lock(&self.i8042).restore(i8042)?;
        lock(&self.acpi).restore(acpi)?;
        lock(&self.post).restore(post)?;
        lock(&self.fast_a20).restore(fast_a20)?;
        lock(&self.reset).restore(reset)?;
        lock(&self.com1).restore(com1)?;
        lock(&self.com2).restore(com2)?;
        lock(&self.com3).restore(com3)
    }
}
