//! A virtio device as a PCI function: its configuration space and its BARs.

use super::interrupt::{Interrupt, Mode};
use super::layout::{self, NOTIFY_STEP, Places, Structure};
use crate::irq::IrqLine;
use crate::msi::MsiSink;
use crate::pci::registers::{BUS_MASTER, INTX_DISABLE, MSIX_ENABLED, MSIX_MASKED};
use crate::pci::{Config, Decoder, PciFunction};
use crate::virtio::device::VirtioDevice;
use crate::virtio::transport::common::Transport;
use memory::GuestRam;
use std::fmt;
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use x86::addr::PortWidth;

/// A virtio device on PCI.
pub struct VirtioPci {
    pub(super) config: Config,
    places: Places,
    pub(super) transport: Transport,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) select: Select,
}

/// The registers that say what others are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Select {
    pub(super) device_features: u32,
    pub(super) driver_features: u32,
    pub(super) queue: u16,
}

// Offsets in struct virtio_pci_cfg_cap (virtio 1.2, 4.1.4.9).
const WINDOW_BAR: u16 = 4;
const WINDOW_OFFSET: u16 = 8;
const WINDOW_LENGTH: u16 = 12;
const WINDOW_DATA: u16 = 16;
const WINDOW_END: u16 = 20;

/// The class code: what kind of device it is for those who do not know virtio.
fn class(kind: u32) -> [u8; 3] {
    match kind {
        VIRTIO_ID_BLOCK => [0x01, 0x80, 0x00], // other mass storage
        _ => [0xFF, 0x00, 0x00],
    }
}

impl VirtioPci {
    /// `device` after a reset, with its rings in `ram`, INTA# on `line`, and messages to `sink`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        line: IrqLine,
        sink: Arc<dyn MsiSink>,
    ) -> Arc<Mutex<Self>> {
        let (kind, queues) = (device.kind(), device.queues().len() as u16);
        let (config, places) = layout::config(kind, class(kind), queues);
        let interrupt = Arc::new(Interrupt::new(queues, line, sink));
        let mut transport = Transport::new(device, ram, Arc::clone(&interrupt) as _);
        transport.allow_memory(false);
        let select = Select::default();
        Arc::new(Mutex::new(Self { config, places, transport, interrupt, select }))
    }

    /// Gives each BAR its place, as firmware does: the next free one from `from` on. Returns where
    /// they end.
    pub fn assign(&mut self, from: u32) -> u32 {
        self.config.assign(from)
    }

    /// Finishes the requests in progress and takes up no more until [`VirtioPci::resume`]: guest
    /// memory stands still.
    pub fn pause(&mut self) {
        self.transport.pause();
    }

    /// Goes on with what the rings hold.
    pub fn resume(&mut self) {
        self.transport.resume();
    }

    /// Has the device and its interrupts do what the configuration space says.
    pub(super) fn follow_config(&mut self) {
        self.interrupt.set_mode(self.mode());
        self.transport.allow_memory(self.config.commands(BUS_MASTER));
    }

    /// How the configuration space has it interrupt.
    pub(super) fn mode(&self) -> Mode {
        let control = self.config.word(self.places.msix + 2);
        let may_write = self.config.commands(BUS_MASTER);
        match (control & MSIX_ENABLED != 0, self.config.commands(INTX_DISABLE)) {
            (true, _) if control & MSIX_MASKED == 0 && may_write => Mode::Messages,
            (true, _) => Mode::Held,
            (false, false) => Mode::Pin,
            (false, true) => Mode::Silent,
        }
    }

    /// Whether an access covers a part of pci_cfg_data.
    fn is_window_data(&self, register: u16, width: PortWidth) -> bool {
        let (first, end) = (self.places.window + WINDOW_DATA, self.places.window + WINDOW_END);
        register < end && register + width.bytes() as u16 > first
    }

    /// Where the window through the configuration space leads; `None` if the driver has not chosen
    /// a place that is there (4.1.4.9.1).
    fn window(&self) -> Option<(usize, u32, PortWidth)> {
        let at = self.places.window;
        let bar = usize::from(self.config.word(at + WINDOW_BAR) as u8);
        let offset = self.config.dword(at + WINDOW_OFFSET);
        let length = usize::try_from(self.config.dword(at + WINDOW_LENGTH)).ok()?;
        let width = PortWidth::try_from(length).ok()?;
        let there = self.config.bar_len(bar).is_some_and(|len| offset < len);
        let aligned = offset.is_multiple_of(length as u32);
        (there && aligned).then_some((bar, offset, width))
    }

    fn read_window(&mut self) {
        let Some((bar, offset, width)) = self.window() else { return };
        let data = self.places.window + WINDOW_DATA;
        let value = self.read(bar, offset, width) & width.mask();
        let kept = self.config.dword(data) & !width.mask();
        self.config.set(data, &(kept | value).to_le_bytes());
    }

    fn write_window(&mut self) {
        let Some((bar, offset, width)) = self.window() else { return };
        let value = self.config.dword(self.places.window + WINDOW_DATA) & width.mask();
        self.write(bar, offset, width, value);
    }

    fn read_structure(&mut self, offset: u32, width: PortWidth) -> u32 {
        match Structure::at(offset) {
            (Structure::Common, offset) => self.read_common(offset, width),
            (Structure::Isr, 0) if width == PortWidth::B1 => self.interrupt.take_isr().into(),
            (Structure::Device, offset) => {
                let mut bytes = [0; 4];
                let into = &mut bytes[..width.bytes()];
                self.transport.device.read_config(offset as usize, into);
                u32::from_le_bytes(bytes)
            }
            _ => u32::MAX,
        }
    }

    fn write_structure(&mut self, offset: u32, width: PortWidth, value: u32) {
        match Structure::at(offset) {
            (Structure::Common, offset) => self.write_common(offset, width, value),
            (Structure::Device, offset) => {
                let bytes = &value.to_le_bytes()[..width.bytes()];
                self.transport.device.write_config(offset as usize, bytes);
            }
            // Its place says which queue is meant.
            (Structure::Notify, offset) if offset.is_multiple_of(NOTIFY_STEP) => {
                self.transport.notify(offset / NOTIFY_STEP);
            }
            _ => {}
        }
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&mut self, register: u16, width: PortWidth) -> u32 {
        if self.is_window_data(register, width) {
            self.read_window();
        }
        self.config.set_interrupt_status(self.interrupt.asks());
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u16, width: PortWidth, value: u32) {
        self.config.write(register, width, value);
        if self.is_window_data(register, width) {
            self.write_window();
        }
        self.follow_config();
    }

    fn decoders(&self) -> Vec<Arc<Decoder>> {
        self.config.decoders()
    }

    fn read(&mut self, bar: usize, offset: u32, width: PortWidth) -> u32 {
        match u8::try_from(bar) {
            Ok(layout::STRUCTURES) => self.read_structure(offset, width),
            Ok(layout::MSIX) => self.interrupt.load(offset, width),
            _ => u32::MAX,
        }
    }

    fn write(&mut self, bar: usize, offset: u32, width: PortWidth, value: u32) {
        match u8::try_from(bar) {
            Ok(layout::STRUCTURES) => self.write_structure(offset, width, value),
            Ok(layout::MSIX) => self.interrupt.store(offset, width, value),
            _ => {}
        }
    }
}

impl fmt::Debug for VirtioPci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioPci")
            .field("config", &self.config)
            .field("transport", &self.transport)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}
