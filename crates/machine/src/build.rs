//! The recipe of a machine, top to bottom: RAM, processors, interrupt chips, devices, bus, boot
//! image.

use crate::arrivals::Arrivals;
use crate::board::Board;
use crate::boot_files::BootFile;
use crate::clock::{self, ProcessorTsc, VmClock};
use crate::config::{BootConfig, Config, Hardware, VCPUS};
use crate::console::Pump;
use crate::control::Control;
use crate::cpu_io::ProcessorIo;
use crate::ends::{Ends, Wake};
use crate::error::BuildError;
use crate::firmware;
use crate::generation::Generation;
use crate::machine::Machine;
use crate::notifier::Notifier;
use crate::power::Stopper;
use crate::processor::Processor;
use crate::saved::file::{FileError, Header, SavedMachine};
use crate::saved::state::{MachineState, RestoreError};
use crate::stats::Exits;
use crate::virtio::Slotted;
use crate::wiring::{Devices, Lines, Wiring, bus, power_sink};
use crate::{deterministic, layout, paging, virtio};
use devices::bus::Bus;
use devices::chipset::WallClock;
use devices::irqchip::{IrqChips, Lapic, LapicConfig};
use devices::paravirt::{self, CommonConfig, Paravirt};
use devices::pci::PciBus;
use devices::time::TimerQueue;
use memory::GuestRam;
use sched::Share;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use vcpu::{Engine, EngineError, Signals, Vcpu, VmParts};
use x86::addr::VcpuId;
use x86::cpuid::{CpuModel, Feature};

/// A saved guest goes on where the TSC's frequency differs by less than one part in so many: the
/// host's own clock drifts as much.
const TSC_TOLERANCE: u64 = 1000;

impl Machine {
    /// Builds the machine of `config` with processors of `engine`, loads what it boots, and leaves
    /// it stopped at the boot image's first instruction.
    ///
    /// # Errors
    /// The configuration, the boot files, the engine, or the host.
    pub fn build(config: &Config, lines: Lines, engine: &dyn Engine) -> Result<Self, BuildError> {
        config.validate()?;
        let hardware = config.hardware();
        let ram = layout::ram(config.memory);
        let tables = virtio::acpi(config.transport, config.devices.len());
        let plan = firmware::plan(&config.boot, config.vcpus, &ram, tables)?;
        let model = processor_model(&config.cpu, config.vcpus, &hardware);
        let boot = BootConfig::current(&config.boot);
        let mut machine = assemble(&hardware, model, boot, lines, engine)?;
        machine.timeout = config.timeout;
        let board = &machine.board;
        firmware::place(&board.ram, &plan)?;
        board.generation.place(&board.ram)?;
        board.begin(&plan.cpu)?;
        Ok(machine)
    }

    /// Builds the machine that `saved` holds, with processors of `engine`, and leaves it stopped
    /// where it was saved.
    ///
    /// # Errors
    /// The file is damaged, the engine or the host cannot carry the machine, or the host's TSC runs
    /// at another frequency.
    pub fn from_saved(
        saved: &mut SavedMachine,
        lines: Lines,
        engine: &dyn Engine,
    ) -> Result<Self, BuildError> {
        let path = saved.path().to_owned();
        let refused = |source| FileError::State { path: path.clone(), source };
        let Header { hardware, state, .. } = saved.header.clone();
        hardware.validate()?;
        let model = saved_model(&state, &hardware).map_err(refused)?;
        let mut machine = assemble(&hardware, model, saved.boot()?, lines, engine)?;
        saved.load(&machine.board.ram, &machine.board.scratch())?;
        machine.restore(&state).map_err(refused)?;
        machine.board.generation.renew(&machine.board.ram)?;
        Ok(machine)
    }
}

/// The machine with nothing in its memory, and processors that wait.
pub(crate) fn assemble(
    hardware: &Hardware,
    model: CpuModel,
    boot: BootConfig<BootFile>,
    mut lines: Lines,
    engine: &dyn Engine,
) -> Result<Machine, BuildError> {
    let ram = paging::ram(hardware)?;
    let notifier = Notifier::new()?;
    let timers = TimerQueue::new();
    let clock = Arc::new(clock_of(hardware, engine, &model)?);
    let shown = shown(&model, hardware);
    let cpus = Cpus::new(engine, &ram, &shown, &clock, &timers)?;
    let (bell, running) = (notifier.clone(), cpus.signals.clone());
    let wake: Wake = match clock.instructions() {
        Some(_) => Arc::new(move || deterministic::end_slice(&running)),
        None => Arc::new(move || bell.notify()),
    };
    let sooner = Arc::clone(&wake);
    timers.on_wake(move || sooner());
    let irqchips = IrqChips::new(cpus.lapics.clone(), layout::IOAPIC_ID);
    cpus.connect_the_8259();
    let control = Arc::new(Control::new(cpus.signals.clone(), notifier.clone()));
    let stopper = Stopper(Arc::clone(&control));
    let pager = paging::start(hardware, &ram, &stopper)?;
    let owner = stopper.owner();
    let power = power_sink(&stopper);
    let (feeds, pumps) = (Vec::new(), Vec::new());
    let mut ends = Ends { wake, stopper, clock: Arc::clone(&clock) as _, feeds, pumps };
    let ports = std::mem::take(&mut lines.ports);
    let mut wiring = Wiring {
        clock: &clock,
        timers: &timers,
        irqchips: &irqchips,
        power: power.clone(),
        ends: &mut ends,
    };
    let chipset = wiring.chipset(hardware, lines)?;
    let paravirt = kvm_interface(engine, &shown, &ram, &irqchips, &cpus, clock.wall())?;
    // Their threads work in the machine's name, too.
    let queues = u16::try_from(cpus.vcpus.len()).unwrap_or(u16::MAX);
    let made = owner.run(|| virtio::build(hardware, &ram, &irqchips, queues, ports, &mut ends));
    let virtio = made.unwrap_or_else(|| Err(io::Error::other("a device panicked").into()))?;
    let Ends { feeds, pumps, .. } = ends;
    let pci = PciBus::new(virtio.iter().filter_map(Slotted::function));
    let generation = Generation::new(hardware, irqchips.isa_line(layout::IRQ_GENERATION))?;
    let devices = Devices { chipset: &chipset, pci: &pci, virtio: &virtio };
    let bus = Arc::new(bus(&irqchips, devices, power, hardware.debug_exit)?);
    let processors = cpus.on(&ram, &bus, &paravirt);
    let board = Board {
        ram,
        pager,
        model,
        clock,
        timers,
        irqchips,
        chipset,
        pci,
        generation,
        transport: hardware.transport,
        virtio,
        processors,
        paravirt,
        bus,
        notifier,
        control,
        commands: Mutex::default(),
        wall: Mutex::default(),
        usage: Mutex::default(),
        serving: Arc::default(),
        outputs: pumps.iter().map(Pump::output).collect(),
        boot,
        fresh: OnceLock::new(),
    };
    board.remember()?;
    let share = Share::default();
    Ok(Machine { board: Arc::new(board), feeds, pumps, timeout: None, pool: None, share })
}

/// Processors, and what belongs to each: one of each list has its number.
struct Cpus {
    vcpus: Vec<Box<dyn Vcpu>>,
    signals: Vec<Arc<Signals>>,
    tscs: Vec<Arc<ProcessorTsc>>,
    lapics: Vec<Arc<Lapic>>,
}

impl Cpus {
    fn new(
        engine: &dyn Engine,
        ram: &GuestRam,
        model: &CpuModel,
        clock: &Arc<VmClock>,
        timers: &Arc<TimerQueue>,
    ) -> Result<Self, BuildError> {
        let parts = VmParts {
            ram: ram.clone(),
            model: model.clone(),
            clock: clock.instructions().cloned(),
        };
        let vm = engine.create_vm(parts)?;
        let vcpus =
            (0..model.cpus).map(|id| vm.add_vcpu(VcpuId(id))).collect::<Result<Vec<_>, _>>()?;
        let signals: Vec<_> = vcpus.iter().map(|vcpu| vcpu.signals()).collect();
        let tscs: Vec<_> = signals.iter().map(|_| ProcessorTsc::new(clock)).collect();
        let lapics = lapics(&signals, clock, &tscs, timers, model);
        Ok(Self { vcpus, signals, tscs, lapics })
    }

    /// Firmware's part: a kernel that ignores the APICs still gets the 8259's interrupts.
    fn connect_the_8259(&self) {
        if let Some(bootstrap) = self.lapics.first() {
            bootstrap.set_virtual_wire();
        }
    }

    /// The processors, which have `ram`, reach devices over `bus`, and share `common` of KVM's
    /// interface.
    fn on(
        self,
        ram: &GuestRam,
        bus: &Arc<Bus>,
        common: &Arc<paravirt::Common>,
    ) -> Vec<Mutex<Processor>> {
        let Self { vcpus, signals, tscs, lapics } = self;
        let sides = signals.into_iter().zip(lapics).zip(tscs);
        let processor = |(id, (vcpu, ((signals, lapic), tsc)))| {
            let paravirt = Paravirt::new(common, VcpuId(id), Arc::clone(&tsc) as _);
            let arrivals = Arrivals::new(ram, &signals);
            let (bus, own) = (Arc::clone(bus), Arc::clone(&signals));
            let (rivals, spins) = (None, false);
            let io =
                ProcessorIo { bus, lapic, tsc, paravirt, signals: own, arrivals, rivals, spins };
            let (exits, busy) = (Exits::default(), Duration::ZERO);
            Mutex::new(Processor { vcpu, signals, io, exits, busy })
        };
        (0..).zip(vcpus.into_iter().zip(sides)).map(processor).collect()
    }
}

/// The machine's time.
fn clock_of(
    hardware: &Hardware,
    engine: &dyn Engine,
    model: &CpuModel,
) -> Result<VmClock, BuildError> {
    if !hardware.deterministic {
        return Ok(VmClock::new(model.tsc_hz, 0, 0));
    }
    let counts = engine.probe().map_err(EngineError::from)?.counts_instructions;
    let engine = engine.name();
    if counts { Ok(VmClock::counted()) } else { Err(BuildError::CountsNothing { engine }) }
}

/// The model with what this host and this machine decide. Random numbers are no part of a
/// deterministic machine.
pub(crate) fn processor_model(wanted: &CpuModel, vcpus: u32, hardware: &Hardware) -> CpuModel {
    let mut model = CpuModel { tsc_hz: tsc_hz(hardware), cpus: vcpus, ..wanted.clone() };
    if hardware.deterministic {
        model.features = model.features.disable(Feature::Rdrand).disable(Feature::Rdseed);
    }
    model
}

/// Ticks of the TSC in a second.
fn tsc_hz(hardware: &Hardware) -> u64 {
    if hardware.deterministic {
        return clock::COUNTED_HZ;
    }
    let frequency = crate::frequency::host_tsc_frequency();
    tracing::debug!(target: "cpu", ?frequency, "TSC");
    frequency.hz
}

/// `model`, as the processors of a machine of `hardware` show it.
fn shown(model: &CpuModel, hardware: &Hardware) -> CpuModel {
    let mut shown = model.clone();
    if hardware.paging.is_none() {
        // No page is ever absent.
        shown.features = shown.features.disable(Feature::KvmAsyncPf);
    }
    shown
}

/// The model that a saved machine had.
pub(crate) fn saved_model(
    state: &MachineState,
    hardware: &Hardware,
) -> Result<CpuModel, RestoreError> {
    let (found, expected) = (state.tsc_hz, tsc_hz(hardware));
    if found.abs_diff(expected) > expected / TSC_TOLERANCE {
        return Err(RestoreError::Frequency { found, expected });
    }
    let vcpus = u32::try_from(state.processors.len()).unwrap_or(u32::MAX);
    if !VCPUS.contains(&vcpus) {
        let (found, expected) =
            (vcpus.to_string(), format!("{} to {}", VCPUS.start(), VCPUS.end()));
        return Err(RestoreError::Machine { what: "this many processors:", found, expected });
    }
    let model = CpuModel::parse(&state.cpu).map_err(|error| RestoreError::Machine {
        what: "processor",
        found: state.cpu.clone(),
        expected: error.to_string(),
    })?;
    Ok(CpuModel { tsc_hz: found, crystal_hz: state.crystal_hz, cpus: vcpus, ..model })
}

/// What the machine offers of KVM's interface: what the model says, unless the engine does it.
fn kvm_interface(
    engine: &dyn Engine,
    model: &CpuModel,
    ram: &GuestRam,
    irqchips: &IrqChips,
    cpus: &Cpus,
    wall: Arc<dyn WallClock>,
) -> Result<Arc<paravirt::Common>, BuildError> {
    let mut offered = model.clone();
    if engine.probe().map_err(EngineError::from)?.answers_hypercalls {
        offered.features = offered.features.disable(Feature::Kvm);
    }
    Ok(paravirt::Common::new(CommonConfig {
        model: &offered,
        ram,
        wall,
        interconnect: Arc::clone(&irqchips.interconnect),
        signals: cpus.signals.clone(),
    }))
}

fn lapics(
    signals: &[Arc<Signals>],
    clock: &Arc<VmClock>,
    tscs: &[Arc<ProcessorTsc>],
    timers: &Arc<TimerQueue>,
    model: &CpuModel,
) -> Vec<Arc<Lapic>> {
    let lapic = |(id, (signals, tsc)): (u32, (&Arc<Signals>, &Arc<ProcessorTsc>))| {
        Lapic::new(LapicConfig {
            id: VcpuId(id),
            bootstrap: VcpuId(id) == VcpuId::BOOT,
            signals: Arc::clone(signals),
            clock: Arc::clone(clock) as _,
            timers: Arc::clone(timers),
            timer_hz: u64::from(model.crystal_hz),
            tsc: Arc::clone(tsc) as _,
        })
    };
    (0..).zip(signals.iter().zip(tscs)).map(lapic).collect()
}
