//! Devices and what they are wired to: interrupt lines, the clock, the host's ends of the serial
//! lines, the bus.

use crate::board::Chipset;
use crate::clock::VmClock;
use crate::config::Hardware;
use crate::console::Line;
use crate::ends::Ends;
use crate::error::BuildError;
use crate::io_thread::{Feed, Receiver};
use crate::layout;
use crate::power::Stopper;
use crate::virtio::Slotted;
use devices::bus::{Bus, BusError};
use devices::chipset::{
    AcpiPm, DebugExit, FastA20, I8042, Pit, PostPort, ResetPort, Rtc, RtcConfig, Uart, UartConfig,
};
use devices::irqchip::IrqChips;
use devices::pci::{PciBus, PciLayout};
use devices::power::PowerSink;
use devices::time::TimerQueue;
use std::io;
use std::sync::{Arc, Mutex};
use x86::addr::Port;

/// The lines' other ends.
#[derive(Debug, Default)]
pub struct Lines {
    /// COM1, the console.
    pub com1: Line,
    /// COM2.
    pub com2: Line,
    /// COM3.
    pub com3: Line,
    /// Consoles and the ports of console devices, in their order.
    pub ports: Vec<Line>,
}

pub(crate) fn power_sink(stopper: &Stopper) -> PowerSink {
    let stopper = stopper.clone();
    PowerSink::new(move |event| stopper.power(event))
}

/// What the chipset is wired to.
pub(crate) struct Wiring<'a> {
    pub(crate) clock: &'a Arc<VmClock>,
    pub(crate) timers: &'a Arc<TimerQueue>,
    pub(crate) irqchips: &'a IrqChips,
    pub(crate) power: PowerSink,
    /// The lines' other ends.
    pub(crate) ends: &'a mut Ends,
}

impl Wiring<'_> {
    /// The chipset of `config`, its serial lines connected to `lines`.
    ///
    /// # Errors
    /// The host has no thread left.
    pub(crate) fn chipset(
        &mut self,
        config: &Hardware,
        lines: Lines,
    ) -> Result<Chipset, BuildError> {
        let clock = || Arc::clone(self.clock) as _;
        let irq = |number| self.irqchips.isa_line(number);
        let low = config.memory.min(layout::LOW_RAM_END.0);
        let pit = Pit::new(clock(), self.timers, irq(layout::IRQ_PIT));
        let rtc = Rtc::new(RtcConfig {
            clock: clock(),
            timers: Arc::clone(self.timers),
            wall: self.clock.wall(),
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
            i8042: I8042::new(self.power.clone(), irq(layout::IRQ_KEYBOARD)),
            post: PostPort::new(),
            fast_a20: FastA20::new(self.power.clone()),
            reset: ResetPort::new(self.power.clone()),
            com1: self.uart(layout::COM1, layout::IRQ_COM1, lines.com1)?,
            com2: self.uart(layout::COM2, layout::IRQ_COM2, lines.com2)?,
            com3: self.uart(layout::COM3, layout::IRQ_COM3, lines.com3)?,
        })
    }

    /// A UART whose other end is `line`.
    fn uart(&mut self, base: Port, irq: u8, line: Line) -> Result<Arc<Mutex<Uart>>, BuildError> {
        let output = match line.output {
            None => Box::new(io::sink()) as Box<dyn io::Write + Send>,
            Some(place) => self.ends.serial(place)?,
        };
        let uart = Uart::new(UartConfig {
            base,
            clock: Arc::clone(self.clock) as _,
            timers: Arc::clone(self.timers),
            irq: self.irqchips.isa_line(irq),
            output,
        });
        if let Some(input) = line.input {
            let wake = Arc::clone(&self.ends.wake);
            let mut locked = sync::lock(&uart);
            locked.on_drain(move || wake());
            drop(locked);
            self.ends.feeds.push(Feed { input, to: Receiver::Uart(Arc::clone(&uart)) });
        }
        Ok(uart)
    }
}

/// The devices of a machine.
#[derive(Clone, Copy)]
pub(crate) struct Devices<'a> {
    pub(crate) chipset: &'a Chipset,
    pub(crate) pci: &'a Arc<PciBus>,
    pub(crate) virtio: &'a [Slotted],
}

/// Puts every device at its place.
pub(crate) fn bus(
    irqchips: &IrqChips,
    devices: Devices<'_>,
    power: PowerSink,
    debug_exit: bool,
) -> Result<Bus, BusError> {
    let Devices { chipset, pci, virtio } = devices;
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
    let pm = layout::ACPI_PM..=layout::ACPI_PM.wrapping_add(AcpiPm::PORTS - 1);
    bus.add_pio("acpi", pm, Arc::clone(&chipset.acpi) as _)?;
    bus.add_byte_port("reset", layout::RESET_REGISTER, Arc::clone(&chipset.reset) as _)?;
    pci.attach(&mut bus, &PciLayout { ecam: layout::PCI_ECAM, memory: layout::PCI_MEMORY })?;
    for device in virtio {
        device.attach(&mut bus)?;
    }
    if debug_exit {
        bus.add_pio("debug exit", layout::DEBUG_EXIT, DebugExit::new(power))?;
    }
    Ok(bus)
}
