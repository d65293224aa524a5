//! The firmware's part, which the machine plays: the boot image and the tables in memory.

use crate::config::{BootConfig, File};
use crate::layout;
use boot::{AcpiConfig, BootError, BootPlan, Module, PciHost, Request};
use devices::chipset::AcpiPm;
use devices::pci::PciBus;
use memory::GuestRam;
use std::borrow::Borrow;
use x86::addr::Gsi;

/// Bytes of a piece that are written at a time.
const CHUNK: usize = 1 << 20;

/// The boot image's plan, and the tables that tell it about a machine with `vcpus` processors, RAM
/// at `ram` (address and bytes of each region) and these virtio devices on MMIO.
///
/// # Errors
/// A boot file.
pub(crate) fn plan(
    config: &BootConfig<impl Borrow<File>>,
    vcpus: u32,
    ram: &[boot::Run],
    virtio: Vec<boot::VirtioMmio>,
) -> Result<BootPlan, BootError> {
    let module = |(file, args)| Module { source: Borrow::<File>::borrow(file).source(), args };
    let modules: Vec<_> = config.modules.iter().map(|(file, args)| module((file, args))).collect();
    boot::plan(&Request {
        image: config.kernel.borrow().source(),
        initrd: config.initrd.as_ref().map(|file| file.borrow().source()),
        cmdline: &config.cmdline,
        modules: &modules,
        ram,
        acpi: &acpi(vcpus, virtio),
    })
}

fn acpi(cpus: u32, virtio: Vec<boot::VirtioMmio>) -> AcpiConfig {
    let interrupts = (1..=PciBus::FUNCTIONS_MAX as u8).map(|n| (n, layout::pci_gsi(n)));
    let pci = PciHost {
        ecam: layout::PCI_ECAM,
        memory: layout::PCI_MEMORY,
        interrupts: interrupts.collect(),
    };
    AcpiConfig {
        cpus,
        lapic_address: layout::LAPIC,
        ioapic_address: layout::IOAPIC,
        ioapic_id: layout::IOAPIC_ID,
        pm1a_event: layout::ACPI_PM.wrapping_add(AcpiPm::PM1A_EVT),
        pm1a_control: layout::ACPI_PM.wrapping_add(AcpiPm::PM1A_CNT),
        pm_timer: layout::ACPI_PM.wrapping_add(AcpiPm::PM_TMR),
        pm_timer_32bit: true,
        sci: Gsi(layout::IRQ_SCI.into()),
        reset_port: layout::RESET_REGISTER,
        reset_value: layout::RESET_VALUE,
        s5_sleep_type: AcpiPm::SLP_TYP_S5,
        com1: true,
        rtc: true,
        i8042: true,
        pci,
        generation: Gsi(layout::IRQ_GENERATION.into()),
        virtio,
    }
}

/// Writes the boot image into RAM.
pub(crate) fn place(ram: &GuestRam, plan: &BootPlan) -> Result<(), memory::Error> {
    for piece in &plan.pieces {
        let (gpa, len) = (piece.gpa.0, piece.bytes.len());
        tracing::debug!(target: "boot", gpa, len, "{}", piece.what);
        for (n, bytes) in piece.bytes.chunks(CHUNK).enumerate() {
            ram.write(piece.gpa.wrapping_add((n * CHUNK) as u64), bytes)?;
            ram.settle();
        }
        ram.wrote(piece.gpa, piece.bytes.len() as u64);
    }
    Ok(())
}
