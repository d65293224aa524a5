//! The state of a whole machine, memory aside: what a snapshot holds, and a restored machine
//! continues from.
//!
//! It is taken and restored while the machine stands still. Guest memory is saved beside it
//! ([`file`]); the host's side (consoles, timeouts) is not state. A state that comes from a file
//! may hold anything: each part checks its own.

mod area;
pub mod cpu;
pub mod file;
#[doc(hidden)]
pub mod fuzz;
pub mod state;

pub use cpu::{CpuError, SavedCpu};
pub use state::{ChipsetState, MachineState, ProcessorState, RestoreError, VERSION, VirtioState};

use crate::board::{Board, Chipset};
use crate::machine::Machine;
use crate::processor::Processor;
use crate::virtio::Slotted;
use devices::time::{Clock as _, Tsc as _};
use sync::lock;
use vcpu::{Elements, Signal, StateError};
use x86::state::CpuState;

/// VM time ends here, in nanoseconds: after 146 years.
const TIME_MAX: u64 = 1 << 62;

impl Board {
    /// Where RAM is.
    pub(crate) fn memory_map(&self) -> Vec<(u64, u64)> {
        self.ram.regions().iter().map(|region| (region.gpa.0, region.len)).collect()
    }

    /// The state, while nothing runs.
    pub(crate) fn save(&self) -> Result<MachineState, StateError> {
        // What raises interrupt lines comes before the chips, and these before the local APICs: a
        // line that a device raises while it is saved is up in the state, too.
        let virtio = self.virtio.iter().map(Slotted::save).collect();
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
            paravirt: self.paravirt.save(),
            pci: self.pci.save(),
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
        self.board.restore(state)
    }
}

impl Board {
    /// Goes on from `state`; see [`Machine::restore`]. No processor runs.
    pub(crate) fn restore(&self, state: &MachineState) -> Result<(), RestoreError> {
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
            paravirt,
            pci,
            virtio,
        } = state;
        if *version != VERSION {
            return Err(RestoreError::Version { found: *version });
        }
        if *now > TIME_MAX {
            return Err(RestoreError::Time { found: *now });
        }
        let model = |cpu: &str, tsc, crystal| format!("{cpu} ({tsc} Hz, crystal {crystal} Hz)");
        let found = model(cpu, *tsc_hz, *crystal_hz);
        let has = &self.model;
        let expected = model(&has.to_string(), has.tsc_hz, has.crystal_hz);
        if found != expected {
            return Err(RestoreError::Machine { what: "processor", found, expected });
        }
        if *memory != self.memory_map() {
            let (found, expected) = (format!("{memory:x?}"), format!("{:x?}", self.memory_map()));
            return Err(RestoreError::Machine { what: "memory", found, expected });
        }
        let (found, expected) = (processors.len(), self.processors.len());
        if found != expected {
            return Err(RestoreError::Processors { found, expected });
        }
        let (found, expected) = (virtio.len(), self.virtio.len());
        if found != expected {
            return Err(RestoreError::Devices { found, expected });
        }
        let cpus = processors.iter().map(|p| p.cpu.state(&self.model));
        let cpus = cpus.collect::<Result<Vec<_>, _>>()?;
        self.clock.set(*now, *guest_tsc);
        for ((processor, state), cpu) in self.processors.iter().zip(processors).zip(&cpus) {
            lock(processor).restore(state, cpu)?;
        }
        self.irqchips.pic.restore(pic)?;
        self.irqchips.ioapic.restore(ioapic)?;
        self.chipset.restore(chipset)?;
        self.paravirt.restore(paravirt)?;
        self.pci.restore(pci)?;
        for (device, state) in self.virtio.iter().zip(virtio) {
            device.restore(state)?;
        }
        Ok(())
    }
}

impl Processor {
    fn save(&mut self) -> Result<ProcessorState, StateError> {
        self.take_resets()?;
        self.take_unhalt_signal();
        let mut cpu = self.vcpu.state()?;
        cpu.tsc_offset = self.io.tsc.moved();
        let nmi = self.signals.is_raised(Signal::Nmi);
        let (lapic, paravirt) = (self.io.lapic.save(), self.io.paravirt.save());
        Ok(ProcessorState { cpu: SavedCpu::from(&cpu), lapic, nmi, paravirt })
    }

    fn restore(&mut self, state: &ProcessorState, cpu: &CpuState) -> Result<(), RestoreError> {
        let ProcessorState { cpu: _, lapic, nmi, paravirt } = state;
        self.vcpu.set(Elements::all(), cpu)?;
        self.io.tsc.set_moved(cpu.tsc_offset);
        self.follow_clock();
        self.io.lapic.restore(lapic)?;
        self.io.paravirt.restore(paravirt)?;
        self.signals.clear(Signal::Unhalt);
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
