//! What a machine has that the tables tell of. Guest-physical addresses are below 4 GiB.

use std::ops::RangeInclusive;
use x86::addr::{Gpa, Gsi, Port};

/// What the tables tell about the machine. Ports and addresses are the machine's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Processors; their APIC ids are 0 to `cpus - 1`. At the most [`AcpiConfig::MAX_CPUS`].
    pub cpus: u32,
    /// Guest-physical address of the local APICs.
    pub lapic_address: Gpa,
    /// Guest-physical address of the I/O APIC, whose first input is GSI 0.
    pub ioapic_address: Gpa,
    /// The I/O APIC's id.
    pub ioapic_id: u8,
    /// Port of PM1a_STS (2 bytes), followed by PM1a_EN (2 bytes).
    pub pm1a_event: Port,
    /// Port of PM1a_CNT (2 bytes); SCI_EN reads as one.
    pub pm1a_control: Port,
    /// Port of PM_TMR (4 bytes).
    pub pm_timer: Port,
    /// Whether PM_TMR counts 32 bits rather than 24.
    pub pm_timer_32bit: bool,
    /// The system control interrupt, an ISA one: level triggered, active low.
    pub sci: Gsi,
    /// Port of the reset register (1 byte).
    pub reset_port: Port,
    /// What to write there.
    pub reset_value: u8,
    /// SLP_TYPa of soft off (S5), 0 to 7.
    pub s5_sleep_type: u8,
    /// Whether COM1 (3F8H, IRQ 4) is there.
    pub com1: bool,
    /// Whether the MC146818 clock (70H, IRQ 8) is there.
    pub rtc: bool,
    /// Whether the 8042 keyboard controller (60H, 64H, IRQ 1) is there.
    pub i8042: bool,
    /// The PCI host bridge.
    pub pci: PciHost,
    /// The edge-triggered interrupt that says that the VM generation ID has changed. Whoever raises
    /// it puts the ID at [`crate::GENERATION_ID`].
    pub generation: Gsi,
    /// The virtio devices on the MMIO transport; 256 at the most.
    pub virtio: Vec<VirtioMmio>,
}

/// A virtio device on the MMIO transport (virtio 1.2, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Guest-physical address of its registers, 4 KiB.
    pub address: Gpa,
    /// Its interrupt: level triggered, active high.
    pub gsi: Gsi,
}

impl VirtioMmio {
    /// Bytes of its registers.
    pub(crate) const SIZE: u32 = 0x1000;

    /// What tells a guest without ACPI of it: Linux's module parameter, which others read too.
    pub(crate) fn parameter(&self) -> String {
        format!("virtio_mmio.device=4K@{:#x}:{}", self.address, self.gsi)
    }
}

impl AcpiConfig {
    /// Processors that the table area has room for.
    pub const MAX_CPUS: u32 = 1024;

    /// Some PC of one processor, for tests. A machine tells its own layout.
    pub fn example() -> Self {
        Self {
            cpus: 1,
            lapic_address: Gpa(x86::apic::DEFAULT_BASE),
            ioapic_address: Gpa(0xfec0_0000),
            ioapic_id: 0,
            pm1a_event: Port(0x600),
            pm1a_control: Port(0x604),
            pm_timer: Port(0x608),
            pm_timer_32bit: true,
            sci: Gsi(9),
            reset_port: Port(0xcf9),
            reset_value: 6,
            s5_sleep_type: 5,
            com1: true,
            rtc: true,
            i8042: true,
            pci: PciHost::example(),
            generation: Gsi(10),
            virtio: Vec::new(),
        }
    }
}

/// A PCI host bridge with one bus, of number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// Guest-physical address of the enhanced configuration window, [`PciHost::ECAM_SIZE`] bytes.
    pub ecam: Gpa,
    /// The guest-physical addresses that BARs may have.
    pub memory: RangeInclusive<Gpa>,
    /// The interrupt that INTA# of each device is wired to, by device number: level triggered,
    /// active low, shared.
    pub interrupts: Vec<(u8, Gsi)>,
}

impl PciHost {
    /// Bytes of a bus's configuration window.
    pub const ECAM_SIZE: u32 = 1 << 20;

    /// Some host bridge, for tests.
    fn example() -> Self {
        let interrupts = (1..32).map(|device| (device, Gsi(16 + u32::from(device) % 8)));
        Self {
            ecam: Gpa(0xE000_0000),
            memory: Gpa(0xC000_0000)..=Gpa(0xDFFF_FFFF),
            interrupts: interrupts.collect(),
        }
    }
}
