//! The recipe of a machine, top to bottom: RAM, processors, interrupt chips, devices, bus, boot
//! image.

use crate::clock::{ProcessorTsc, VmClock};
use crate::config::{BootConfig, Config, ConfigError, Hardware};
use crate::console::{Line, Pump};
use crate::control::Control;
use crate::cpu_io::ProcessorIo;
use crate::io_thread::Feed;
use crate::layout;
use crate::notifier::Notifier;
use crate::power::Stopper;
use crate::processor::Processor;
use crate::saved::{FileError, Header, MachineState, RestoreError, SavedMachine};
use crate::stats::Exits;
use crate::virtio::{self, Slotted};
use boot::{AcpiConfig, BootError, BootPlan, Module, Request};
use devices::bus::{Bus, BusError};
use devices::chipset::{
    AcpiPm, DebugExit, FastA20, I8042, Pit, PostPort, ResetPort, Rtc, RtcConfig, SystemWallClock,
    Uart, UartConfig,
};
use devices::irqchip::{IrqChips, Lapic, LapicConfig};
use devices::power::PowerSink;
use devices::time::TimerQueue;
use devices::virtio::blk::ImageError;
use memory::GuestRam;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vcpu::{Engine, EngineError, Signals, StateError, VmParts};
use x86::addr::{Port, VcpuId};
use x86::cpuid::CpuModel;

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The boot files.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A disk's image.
    #[error(transparent)]
    Disk(#[from] ImageError),
    /// The host has not enough memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The host has no descriptor or thread left.
    #[error(
        "cannot set the machine up: {0}; close other programs or raise the limits (ulimit -n, -u, \
         -v)"
    )]
    Host(#[from] io::Error),
    /// A defect of the layout.
    #[error("the machine's layout is wrong: {0}")]
    Layout(#[from] BusError),
    /// The engine cannot be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file of a saved machine.
    #[error(transparent)]
    Saved(#[from] FileError),
    /// The engine does not take the state with which the guest begins.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Processors of a machine.
const PROCESSORS: u32 = 1;
/// A saved guest goes on where the TSC's frequency differs by less than one part in so many: the
/// host's own clock drifts as much.
const TSC_TOLERANCE: u64 = 1000;

/// The serial lines' other ends.
#[derive(Debug, Default)]
pub struct Lines {
    /// COM1, the console.
    pub com1: Line,
    /// COM2.
    pub com2: Line,
    /// COM3.
    pub com3: Line,
}

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
    pub(crate) model: CpuModel,
    pub(crate) clock: Arc<VmClock>,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) irqchips: IrqChips,
    pub(crate) chipset: Chipset,
    pub(crate) virtio: Vec<Slotted>,
    /// Each is locked by the thread that runs it, for a turn.
    pub(crate) processors: Vec<Mutex<Processor>>,
    pub(crate) notifier: Notifier,
    pub(crate) control: Arc<Control>,
    /// Held during a command to the machine; taken before any other lock.
    pub(crate) commands: Mutex<()>,
    pub(crate) wall: Mutex<Duration>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus = self.processors.len();
        let mut out = f.debug_struct("Board");
        out.field("ram", &self.ram).field("cpu", &self.model.name).field("cpus", &cpus);
        out.finish_non_exhaustive()
    }
}

/// A whole computer, ready to run.
pub struct Machine {
    pub(crate) board: Arc<Board>,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pumps: Vec<Pump>,
    pub(crate) timeout: Option<Duration>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Machine {
    /// Builds the machine of `config` with processors of `engine`, loads what it boots, and leaves
    /// it stopped at the boot image's first instruction.
    ///
    /// # Errors
    /// The configuration, the boot files, the engine, or the host.
    pub fn build(config: &Config, lines: Lines, engine: &dyn Engine) -> Result<Self, BuildError> {
        config.validate()?;
        let hardware = config.hardware();
        let acpi = acpi(PROCESSORS, config.devices.len());
        let plan = plan(&config.boot, &layout::ram(config.memory), &acpi)?;
        let model = processor_model(&config.cpu, PROCESSORS);
        let machine =
            Self { timeout: config.timeout, ..Self::assemble(&hardware, model, lines, engine)? };
        place(&machine.board.ram, &plan)?;
        machine.board.begin(&plan.cpu)?;
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
        let mut machine =
            Self::assemble(&hardware, saved_model(&state).map_err(refused)?, lines, engine)?;
        saved.load(&machine.board.ram)?;
        machine.restore(&state).map_err(refused)?;
        Ok(machine)
    }

    /// The machine with nothing in its memory, and processors that wait.
    fn assemble(
        config: &Hardware,
        model: CpuModel,
        lines: Lines,
        engine: &dyn Engine,
    ) -> Result<Self, BuildError> {
        let cpus = PROCESSORS;
        let ram = GuestRam::new(&layout::ram(config.memory))?;
        let notifier = Notifier::new()?;
        let timers = TimerQueue::new();
        let wake = notifier.clone();
        timers.on_wake(move || wake.notify());
        let clock = Arc::new(VmClock::new(model.tsc_hz, 0, 0));

        let vm = engine.create_vm(VmParts { ram: ram.clone(), model: model.clone() })?;
        let vcpus = (0..cpus).map(|id| vm.add_vcpu(VcpuId(id))).collect::<Result<Vec<_>, _>>()?;
        let signals: Vec<_> = vcpus.iter().map(|vcpu| vcpu.signals()).collect();
        let tscs: Vec<_> = signals.iter().map(|_| ProcessorTsc::new(&clock)).collect();
        let lapics = lapics(&signals, &clock, &tscs, &timers, &model);
        let irqchips = IrqChips::new(lapics.clone(), layout::IOAPIC_ID);
        if let Some(bootstrap) = lapics.first() {
            // Firmware's part: a kernel that ignores the APICs still gets the 8259's interrupts.
            bootstrap.set_virtual_wire();
        }
        let control = Arc::new(Control::new(signals.clone(), notifier.clone()));
        let stopper = Stopper(Arc::clone(&control));

        let mut wiring = Wiring {
            clock: &clock,
            timers: &timers,
            irqchips: &irqchips,
            power: power_sink(&stopper),
            notifier: &notifier,
            stopper,
            feeds: Vec::new(),
            pumps: Vec::new(),
        };
        let chipset = wiring.chipset(config, lines)?;
        let Wiring { feeds, pumps, power, .. } = wiring;
        let virtio = virtio::build(&config.devices, &ram, &irqchips)?;
        let bus = Arc::new(bus(&irqchips, &chipset, &virtio, power, config.debug_exit)?);

        let sides = signals.into_iter().zip(lapics).zip(tscs);
        let processor = |(vcpu, ((signals, lapic), tsc))| {
            let io = ProcessorIo { bus: Arc::clone(&bus), lapic, tsc };
            let (exits, busy) = (Exits::default(), Duration::ZERO);
            Mutex::new(Processor { vcpu, signals, io, exits, busy })
        };
        let processors = vcpus.into_iter().zip(sides).map(processor).collect();
        let board = Board {
            ram,
            model,
            clock,
            timers,
            bus,
            irqchips,
            chipset,
            virtio,
            processors,
            notifier,
            control,
            commands: Mutex::default(),
            wall: Mutex::default(),
        };
        Ok(Self { board: Arc::new(board), feeds, pumps, timeout: None })
    }

    /// Its memory.
    pub fn ram(&self) -> &GuestRam {
        &self.board.ram
    }

    /// Ends the run from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.board.control))
    }

    /// Wakes the I/O thread, so that it asks the inputs again.
    pub fn notifier(&self) -> Notifier {
        self.board.notifier.clone()
    }
}

/// The boot image's plan, and the tables that tell it about this machine.
fn plan(config: &BootConfig, ram: &[boot::Run], acpi: &AcpiConfig) -> Result<BootPlan, BootError> {
    let modules: Vec<_> =
        config.modules.iter().map(|(file, args)| Module { source: file.source(), args }).collect();
    boot::plan(&Request {
        image: config.kernel.source(),
        initrd: config.initrd.as_ref().map(|file| file.source()),
        cmdline: &config.cmdline,
        modules: &modules,
        ram,
        acpi,
    })
}

fn acpi(cpus: u32, devices: usize) -> AcpiConfig {
    AcpiConfig {
        cpus,
        lapic_address: layout::LAPIC.0 as u32,
        ioapic_address: layout::IOAPIC.0 as u32,
        ioapic_id: layout::IOAPIC_ID,
        pm1a_event: Port(layout::ACPI_PM.0 + AcpiPm::PM1A_EVT),
        pm1a_control: Port(layout::ACPI_PM.0 + AcpiPm::PM1A_CNT),
        pm_timer: Port(layout::ACPI_PM.0 + AcpiPm::PM_TMR),
        pm_timer_32bit: true,
        sci_irq: layout::IRQ_SCI,
        reset_port: layout::RESET_REGISTER,
        reset_value: layout::RESET_VALUE,
        s5_sleep_type: AcpiPm::SLP_TYP_S5,
        com1: true,
        rtc: true,
        i8042: true,
        virtio: virtio::acpi(devices),
    }
}

/// The model with what this host and this machine decide.
fn processor_model(wanted: &CpuModel, cpus: u32) -> CpuModel {
    let frequency = crate::frequency::host_tsc_frequency();
    tracing::debug!(target: "cpu", ?frequency, "TSC");
    CpuModel { tsc_hz: frequency.hz, cpus, ..wanted.clone() }
}

/// The model that a saved machine had.
fn saved_model(state: &MachineState) -> Result<CpuModel, RestoreError> {
    let (found, expected) = (state.tsc_hz, crate::frequency::host_tsc_frequency().hz);
    if found.abs_diff(expected) > expected / TSC_TOLERANCE {
        return Err(RestoreError::Frequency { found, expected });
    }
    let model = CpuModel::parse(&state.cpu).map_err(|error| RestoreError::Machine {
        what: "processor",
        found: state.cpu.clone(),
        expected: error.to_string(),
    })?;
    Ok(CpuModel { tsc_hz: found, crystal_hz: state.crystal_hz, cpus: PROCESSORS, ..model })
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
            id,
            bootstrap: id == 0,
            signals: Arc::clone(signals),
            clock: Arc::clone(clock) as _,
            timers: Arc::clone(timers),
            timer_hz: u64::from(model.crystal_hz),
            tsc: Arc::clone(tsc) as _,
        })
    };
    (0..).zip(signals.iter().zip(tscs)).map(lapic).collect()
}

fn power_sink(stopper: &Stopper) -> PowerSink {
    let stopper = stopper.clone();
    PowerSink::new(move |event| stopper.power(event))
}

/// What the chipset is wired to.
struct Wiring<'a> {
    clock: &'a Arc<VmClock>,
    timers: &'a Arc<TimerQueue>,
    irqchips: &'a IrqChips,
    power: PowerSink,
    notifier: &'a Notifier,
    stopper: Stopper,
    feeds: Vec<Feed>,
    pumps: Vec<Pump>,
}

impl Wiring<'_> {
    fn chipset(&mut self, config: &Hardware, lines: Lines) -> Result<Chipset, BuildError> {
        let clock = || Arc::clone(self.clock) as _;
        let irq = |number| self.irqchips.isa_line(number);
        let low = config.memory.min(layout::LOW_RAM_END.0);
        let pit = Pit::new(clock(), self.timers, irq(layout::IRQ_PIT));
        let rtc = Rtc::new(RtcConfig {
            clock: clock(),
            timers: Arc::clone(self.timers),
            wall: Arc::new(SystemWallClock),
            irq8: irq(layout::IRQ_RTC),
            ram_below_4g: low,
            ram_above_4g: config.memory - low,
        });
        let (sci, power) = (irq(layout::IRQ_SCI), self.power.clone());
        let acpi = AcpiPm::new(layout::ACPI_PM, clock(), self.timers, sci, power, true);
        Ok(Chipset {
            pit,
            rtc,
            acpi,
            i8042: I8042::new(self.power.clone()),
            post: PostPort::new(),
            fast_a20: FastA20::new(self.power.clone()),
            reset: ResetPort::new(self.power.clone()),
            com1: self.uart(layout::COM1.0, layout::IRQ_COM1, lines.com1)?,
            com2: self.uart(layout::COM2.0, layout::IRQ_COM2, lines.com2)?,
            com3: self.uart(layout::COM3.0, layout::IRQ_COM3, lines.com3)?,
        })
    }

    /// A UART whose other end is `line`.
    fn uart(&mut self, base: u16, irq: u8, line: Line) -> Result<Arc<Mutex<Uart>>, BuildError> {
        let output = match line.output {
            None => Box::new(io::sink()) as Box<dyn io::Write + Send>,
            Some(place) => {
                let pump = Pump::start(place, self.stopper.clone())?;
                let writer = pump.writer();
                self.pumps.push(pump);
                writer
            }
        };
        let uart = Uart::new(UartConfig {
            base: Port(base),
            clock: Arc::clone(self.clock) as _,
            timers: Arc::clone(self.timers),
            irq: self.irqchips.isa_line(irq),
            output,
        });
        if let Some(input) = line.input {
            let notifier = self.notifier.clone();
            let mut locked = uart.lock().unwrap_or_else(PoisonError::into_inner);
            locked.on_drain(move || notifier.notify());
            drop(locked);
            self.feeds.push(Feed { input, uart: Arc::clone(&uart) });
        }
        Ok(uart)
    }
}

/// Puts every device at its place.
fn bus(
    irqchips: &IrqChips,
    chipset: &Chipset,
    virtio: &[Slotted],
    power: PowerSink,
    debug_exit: bool,
) -> Result<Bus, BusError> {
    let mut bus = Bus::new();
    irqchips.attach(&mut bus, layout::IOAPIC)?;
    bus.add_pio("pit", layout::PIT, Arc::clone(&chipset.pit) as _)?;
    bus.add_pio("pit", layout::PORT_B, Arc::clone(&chipset.pit) as _)?;
    bus.add_pio("i8042", layout::I8042_DATA, Arc::clone(&chipset.i8042) as _)?;
    bus.add_pio("i8042", layout::I8042_COMMAND, Arc::clone(&chipset.i8042) as _)?;
    bus.add_pio("rtc", layout::RTC, Arc::clone(&chipset.rtc) as _)?;
    bus.add_pio("post", layout::POST, Arc::clone(&chipset.post) as _)?;
    bus.add_pio("port 92", layout::FAST_A20, Arc::clone(&chipset.fast_a20) as _)?;
    bus.add_pio("com2", layout::com_ports(layout::COM2), Arc::clone(&chipset.com2) as _)?;
    bus.add_pio("com3", layout::com_ports(layout::COM3), Arc::clone(&chipset.com3) as _)?;
    bus.add_pio("com1", layout::com_ports(layout::COM1), Arc::clone(&chipset.com1) as _)?;
    let pm = layout::ACPI_PM..=Port(layout::ACPI_PM.0 + (AcpiPm::PORTS - 1));
    bus.add_pio("acpi", pm, Arc::clone(&chipset.acpi) as _)?;
    bus.add_byte_port("reset", layout::RESET_REGISTER, Arc::clone(&chipset.reset) as _)?;
    for device in virtio {
        device.attach(&mut bus)?;
    }
    if debug_exit {
        bus.add_pio("debug exit", layout::DEBUG_EXIT, DebugExit::new(power))?;
    }
    Ok(bus)
}

/// Writes the boot image into RAM.
fn place(ram: &GuestRam, plan: &BootPlan) -> Result<(), memory::Error> {
    for piece in &plan.pieces {
        tracing::debug!(target: "boot", gpa = piece.gpa.0, len = piece.bytes.len(), "{}", piece.what);
        ram.write(piece.gpa, &piece.bytes)?;
    }
    Ok(())
}

/// Locks what no panic can leave half changed.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
