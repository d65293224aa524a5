//! What a machine is made of once it is built, as its processors, threads and handles share it.

use crate::boot_files::BootFile;
use crate::clock::VmClock;
use crate::config::{BootConfig, Transport};
use crate::console::Output;
use crate::control::Control;
use crate::generation::Generation;
use crate::notifier::Notifier;
use crate::processor::Processor;
use crate::saved::state::MachineState;
use crate::virtio::Slotted;
use devices::bus::Bus;
use devices::chipset::{AcpiPm, FastA20, I8042, Pit, PostPort, ResetPort, Rtc, Uart};
use devices::irqchip::IrqChips;
use devices::paravirt;
use devices::pci::PciBus;
use devices::time::TimerQueue;
use memory::{GuestRam, Pager};
use sched::Usage;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use x86::cpuid::CpuModel;

/// The chipset's devices.
pub(crate) struct Chipset {
    pub(crate) pit: Arc<Mutex<Pit>>,
    pub(crate) rtc: Arc<Mutex<Rtc>>,
    pub(crate) i8042: Arc<Mutex<I8042>>,
    pub(crate) acpi: Arc<Mutex<AcpiPm>>,
    pub(crate) post: Arc<Mutex<PostPort>>,
    pub(crate) fast_a20: Arc<Mutex<FastA20>>,
    pub(crate) reset: Arc<Mutex<ResetPort>>,
    pub(crate) com1: Arc<Mutex<Uart>>,
    pub(crate) com2: Arc<Mutex<Uart>>,
    pub(crate) com3: Arc<Mutex<Uart>>,
}

/// What processors, threads and handles of a machine share.
pub(crate) struct Board {
    pub(crate) ram: GuestRam,
    /// Keeps it within its budget, if it has one.
    pub(crate) pager: Option<Pager>,
    pub(crate) model: CpuModel,
    pub(crate) clock: Arc<VmClock>,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) irqchips: IrqChips,
    pub(crate) chipset: Chipset,
    pub(crate) paravirt: Arc<paravirt::Common>,
    pub(crate) pci: Arc<PciBus>,
    pub(crate) generation: Generation,
    /// How the guest reaches its virtio devices.
    pub(crate) transport: Transport,
    pub(crate) virtio: Vec<Slotted>,
    /// Each is locked by the thread that runs it, for a turn.
    pub(crate) processors: Vec<Mutex<Processor>>,
    pub(crate) notifier: Notifier,
    pub(crate) control: Arc<Control>,
    /// Held during a command to the machine; taken before any other lock.
    pub(crate) commands: Mutex<()>,
    pub(crate) wall: Mutex<Duration>,
    /// What each processor had of the host's when the run ended.
    pub(crate) usage: Mutex<Vec<Usage>>,
    /// Held by the I/O thread while it serves timers and inputs. A leaf, but for the devices' locks
    /// and the inputs' own.
    pub(crate) serving: Arc<Mutex<()>>,
    /// The output of each serial line that has a place for it.
    pub(crate) outputs: Vec<Output>,
    /// What it boots when it is reset.
    pub(crate) boot: BootConfig<BootFile>,
    /// Its state before anything was booted.
    pub(crate) fresh: OnceLock<MachineState>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus = self.processors.len();
        let mut out = f.debug_struct("Board");
        out.field("ram", &self.ram).field("cpu", &self.model.name).field("cpus", &cpus);
        out.finish_non_exhaustive()
    }
}
