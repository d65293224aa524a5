//! The root bus, and the three ways to it: configuration mechanism #1 (PCI Local Bus 3.0,
//! 3.2.2.3.2), the enhanced one (PCI Firmware 3.2, 4.1; PCI Express 5.0, 7.2.2), and memory.

use super::decoder::Decoder;
use super::function::PciFunction;
use super::host_bridge::{HostBridge, HostBridgeState};
use crate::bus::{Bus, BusError, SharedMmio, SharedPio};
use crate::saved::{Check, RestoreError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use sync::lock;
use x86::addr::{Gpa, Port, PortWidth, Width};

/// CONFIG_ADDRESS.
const ADDRESS: Port = Port(0xCF8);
/// CONFIG_DATA.
const DATA: Port = Port(0xCFC);
/// CONFIG_ADDRESS: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: what can be written.
pub(super) const ADDRESS_BITS: u32 = ENABLE | 0x00FF_FFFC;
/// Slots of a bus.
const SLOTS: usize = 32;

/// Where the bus is, for the processors.
#[derive(Clone, Debug)]
pub struct PciLayout {
    /// The enhanced configuration window of bus 0, 1 MiB.
    pub ecam: Gpa,
    /// The addresses that the host bridge passes on.
    pub memory: RangeInclusive<Gpa>,
}

impl PciLayout {
    /// Bytes of the configuration window.
    pub const ECAM_SIZE: u64 = 1 << 20;
}

/// The state of the bus without its functions, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciBusState {
    /// [`PciBusState::VERSION`] of the writer.
    pub version: u32,
    /// CONFIG_ADDRESS.
    pub address: u32,
    /// The host bridge.
    pub host_bridge: HostBridgeState,
}

impl PciBusState {
    /// The version that this build writes.
    pub const VERSION: u32 = 1;
}

/// A function in its slot.
struct Slot {
    function: Arc<Mutex<dyn PciFunction>>,
    decoders: Vec<Arc<Decoder>>,
}

impl Slot {
    fn new(function: Arc<Mutex<dyn PciFunction>>) -> Self {
        let decoders = lock(&function).decoders();
        Self { function, decoders }
    }
}

/// Bus 0 with its functions, the host bridge among them.
pub struct PciBus {
    host_bridge: Arc<Mutex<HostBridge>>,
    /// In the order of their device numbers.
    slots: Vec<Slot>,
    /// CONFIG_ADDRESS. Its users take turns; it needs no lock.
    address: AtomicU32,
}

impl PciBus {
    /// How many functions there can be besides the host bridge.
    pub const FUNCTIONS_MAX: usize = SLOTS - 1;

    /// A bus with `functions`, which get the device numbers from 1 on.
    pub fn new(functions: impl IntoIterator<Item = Arc<Mutex<dyn PciFunction>>>) -> Arc<Self> {
        let host_bridge = Arc::new(Mutex::new(HostBridge::new()));
        let first = Arc::clone(&host_bridge) as Arc<Mutex<dyn PciFunction>>;
        let all = std::iter::once(first).chain(functions);
        let slots: Vec<_> = all.take(SLOTS).map(Slot::new).collect();
        Arc::new(Self { host_bridge, slots, address: AtomicU32::new(0) })
    }

    /// Puts the bus at its ports and addresses.
    ///
    /// # Errors
    /// Something is there already.
    pub fn attach(self: &Arc<Self>, bus: &mut Bus, layout: &PciLayout) -> Result<(), BusError> {
        let PciLayout { ecam, memory } = layout;
        let ports = Arc::new(Ports(Arc::clone(self)));
        bus.add_pio("pci address", ADDRESS..=ADDRESS.wrapping_add(3), Arc::clone(&ports) as _)?;
        bus.add_pio("pci data", DATA..=DATA.wrapping_add(3), ports)?;
        let last = ecam.saturating_add(PciLayout::ECAM_SIZE - 1);
        bus.add_mmio("pci ecam", *ecam..=last, Arc::new(Ecam(Arc::clone(self))))?;
        let window = Window { bus: Arc::clone(self), base: *memory.start() };
        bus.add_mmio("pci memory", memory.clone(), Arc::new(window))
    }

    /// The saved state: all but the functions'.
    pub fn save(&self) -> PciBusState {
        PciBusState {
            version: PciBusState::VERSION,
            address: self.address.load(Ordering::Relaxed),
            host_bridge: lock(&self.host_bridge).save(),
        }
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// The state is another version's, or not one of a bus; nothing was changed.
    pub fn restore(&self, state: &PciBusState) -> Result<(), RestoreError> {
        let PciBusState { version, address, host_bridge } = state;
        let check = Check::version("PCI bus", *version, PciBusState::VERSION)?;
        check.bits("address", *address, ADDRESS_BITS)?;
        lock(&self.host_bridge).restore(host_bridge)?;
        self.address.store(*address, Ordering::Relaxed);
        Ok(())
    }

    /// The function whose configuration space `at` lies in, and the register there: the offset in
    /// the enhanced configuration window, so a routing ID and a register of 12 bits.
    fn register(&self, at: u32) -> Option<(&Mutex<dyn PciFunction>, u16)> {
        let (device, function) = (at >> 15, at >> 12 & 7);
        let slot = self.slots.get(device as usize).filter(|_| function == 0)?;
        Some((&*slot.function, at as u16 & 0xFFF))
    }

    fn config_read(&self, at: u32, width: PortWidth) -> u32 {
        if let Some(half) = unaligned(at.into(), width) {
            let low = self.config_read(at, half);
            return low | self.config_read(at + half.bytes() as u32, half) << half.bits();
        }
        self.register(at).map_or(width.mask(), |(function, register)| {
            lock(function).config_read(register, width) & width.mask()
        })
    }

    fn config_write(&self, at: u32, width: PortWidth, value: u32) {
        if let Some(half) = unaligned(at.into(), width) {
            self.config_write(at, half, value & half.mask());
            return self.config_write(at + half.bytes() as u32, half, value >> half.bits());
        }
        if let Some((function, register)) = self.register(at) {
            lock(function).config_write(register, width, value & width.mask());
        }
    }

    /// The function, BAR and offset at `gpa`. Where several BARs claim it, the first one.
    fn find(&self, gpa: Gpa) -> Option<(&Mutex<dyn PciFunction>, usize, u32)> {
        self.slots.iter().find_map(|slot| {
            let mut bars = slot.decoders.iter().enumerate();
            let (bar, offset) = bars.find_map(|(bar, at)| Some((bar, at.offset_of(gpa)?)))?;
            Some((&*slot.function, bar, offset))
        })
    }

    fn load(&self, gpa: Gpa, width: PortWidth) -> u32 {
        if let Some(half) = unaligned(gpa.0, width) {
            let low = self.load(gpa, half);
            return low | self.load(gpa.wrapping_add(half.bytes() as u64), half) << half.bits();
        }
        match self.find(gpa) {
            Some((function, bar, offset)) => lock(function).read(bar, offset, width) & width.mask(),
            None => width.mask(),
        }
    }

    fn store(&self, gpa: Gpa, width: PortWidth, value: u32) {
        if let Some(half) = unaligned(gpa.0, width) {
            self.store(gpa, half, value & half.mask());
            let next = gpa.wrapping_add(half.bytes() as u64);
            return self.store(next, half, value >> half.bits());
        }
        if let Some((function, bar, offset)) = self.find(gpa) {
            lock(function).write(bar, offset, width, value & width.mask());
        }
    }
}

/// Half of `width`, unless an access of `width` at `place` is naturally aligned.
fn unaligned(place: u64, width: PortWidth) -> Option<PortWidth> {
    width.half().filter(|_| !place.is_multiple_of(width.bytes() as u64))
}

/// The bus takes no access wider than four bytes: the widest that a port has, too.
fn narrow(width: Width) -> PortWidth {
    PortWidth::try_from(width.bytes()).unwrap_or(PortWidth::B4)
}

/// CONFIG_ADDRESS and CONFIG_DATA.
struct Ports(Arc<PciBus>);

impl Ports {
    /// What CONFIG_ADDRESS selects, for the byte at `port`: see [`PciBus::register`].
    fn selected(&self, port: Port) -> Option<u32> {
        let address = self.0.address.load(Ordering::Relaxed);
        let (bus, place) = (address >> 16 & 0xFF, address >> 8 & 0xFF);
        let register = address & 0xFC | u32::from(port.0 & 3);
        (address & ENABLE != 0 && bus == 0).then_some(place << 12 | register)
    }
}

impl SharedPio for Ports {
    fn read(&self, port: Port, width: PortWidth) -> u32 {
        if port >= DATA {
            return self.selected(port).map_or(width.mask(), |at| self.0.config_read(at, width));
        }
        // CONFIG_ADDRESS is nothing but a doubleword.
        match width {
            PortWidth::B4 => self.0.address.load(Ordering::Relaxed),
            _ => width.mask(),
        }
    }

    fn write(&self, port: Port, width: PortWidth, value: u32) {
        if port >= DATA {
            if let Some(at) = self.selected(port) {
                self.0.config_write(at, width, value);
            }
        } else if width == PortWidth::B4 {
            self.0.address.store(value & ADDRESS_BITS, Ordering::Relaxed);
        }
    }

    fn max_width(&self) -> PortWidth {
        PortWidth::B4
    }
}

/// The enhanced configuration window of bus 0.
struct Ecam(Arc<PciBus>);

impl SharedMmio for Ecam {
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.0.config_read(offset as u32, narrow(width)).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.0.config_write(offset as u32, narrow(width), value as u32);
    }

    fn max_width(&self) -> Width {
        Width::B4
    }
}

/// The addresses that the host bridge passes on.
struct Window {
    bus: Arc<PciBus>,
    base: Gpa,
}

impl SharedMmio for Window {
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.bus.load(self.base.wrapping_add(offset), narrow(width)).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.bus.store(self.base.wrapping_add(offset), narrow(width), value as u32);
    }

    fn claims(&self, offset: u64) -> bool {
        self.bus.find(self.base.wrapping_add(offset)).is_some()
    }

    fn max_width(&self) -> Width {
        Width::B4
    }
}

impl fmt::Debug for PciBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciBus")
            .field("address", &format_args!("{:#x}", self.address.load(Ordering::Relaxed)))
            .field("functions", &self.slots.len())
            .finish_non_exhaustive()
    }
}
