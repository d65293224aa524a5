//! Every address, port and interrupt of the machine.
//!
//! ```text
//! guest-physical                           ports
//! 0000_0000  RAM, 640 KiB                  0020 0021 00A0 00A1 04D0 04D1  8259 pair
//! 000A_0000  hole (where a PC has its VGA) 0040-0043 0061                 8254, port B
//! 000C_0000  RAM; 000E_0000 firmware       0060 0064                      i8042
//! 0010_0000  RAM, up to 3 GiB              0070 0071                      RTC and CMOS
//! C000_0000  hole: PCI devices' BARs       0080                           POST code
//! E000_0000    PCI configuration, 1 MiB    0092                           fast A20, reset
//! FEB0_0000    virtio on MMIO, a page each 00F4                           debug exit (on demand)
//! FEC0_0000    IOAPIC                      02F8-02FF, 03F8-03FF           COM2, COM1
//! FEE0_0000    local APIC                  03E8-03EF                      COM3
//! 1_0000_0000  the rest of RAM             0600-060F                      ACPI PM1a, PM timer
//!                                          0CF8-0CFF                      PCI configuration
//!                                          0CF9                           reset control
//! IRQ 0 PIT · 1 keyboard · 3 COM2 · 4 COM1 and COM3 · 8 RTC · 9 ACPI SCI · 10 generation ID
//! GSI 16-23 PCI devices' INTA#, or virtio devices on MMIO
//! ```
//! What a boot image is given (boot_params, page tables, firmware tables) is laid out by
//! `boot::layout`.

use boot::Run;
use std::ops::RangeInclusive;
use x86::addr::{Gpa, Gsi, Port};

/// End of conventional memory; the PC's display adapter follows.
const CONVENTIONAL_END: Gpa = Gpa(0xA_0000);
/// Where RAM goes on after the display adapter's hole.
const UPPER_MEMORY: Gpa = Gpa(0xC_0000);
/// RAM below 4 GiB ends here at the latest; what is more continues at [`HIGH_RAM`].
pub const LOW_RAM_END: Gpa = Gpa(0xC000_0000);
/// Where RAM goes on above the device hole.
const HIGH_RAM: Gpa = Gpa(1 << 32);

/// The addresses that PCI devices' BARs may have.
pub const PCI_MEMORY: RangeInclusive<Gpa> = Gpa(0xC000_0000)..=Gpa(0xDFFF_FFFF);
/// PCI's enhanced configuration window, of bus 0.
pub const PCI_ECAM: Gpa = Gpa(0xE000_0000);
/// The IOAPIC's pin that INTA# of PCI device `number` is wired to: device 1 has the first.
pub const fn pci_gsi(number: u8) -> Gsi {
    Gsi(16 + (number as u32 + 7) % 8)
}

/// The registers of virtio devices on MMIO, a page each.
const VIRTIO: Gpa = Gpa(0xFEB0_0000);
/// Bytes from one virtio device to the next.
const VIRTIO_STEP: u64 = 0x1000;
/// The first virtio device's interrupt, level triggered; the others' follow up to the IOAPIC's last
/// pin.
const VIRTIO_GSI: Gsi = Gsi(16);
/// As many virtio devices on MMIO as there are interrupts for them.
pub const VIRTIO_MAX: usize = 8;

/// Where a virtio device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Guest-physical address of its registers.
    pub address: Gpa,
    /// Its pin of the IOAPIC.
    pub gsi: Gsi,
}

/// The slot of device `number`, below [`VIRTIO_MAX`].
pub const fn virtio_slot(number: u8) -> VirtioSlot {
    VirtioSlot {
        address: VIRTIO.wrapping_add(number as u64 * VIRTIO_STEP),
        gsi: Gsi(VIRTIO_GSI.0 + number as u32),
    }
}

/// The IOAPIC's page (82093AA, 3.0).
pub const IOAPIC: Gpa = Gpa(0xFEC0_0000);
/// The IOAPIC's APIC id. It may equal a processor's: no message is sent to an IOAPIC.
pub const IOAPIC_ID: u8 = 0;
/// The local APICs' page at reset (SDM vol. 3, 12.4.1).
pub const LAPIC: Gpa = Gpa(x86::apic::DEFAULT_BASE);
/// Its length.
pub const LAPIC_SIZE: u64 = 0x1000;

/// The 8254's counters and control word.
pub const PIT: RangeInclusive<Port> = Port(0x40)..=Port(0x43);
/// Port B: speaker gate and refresh toggle.
pub const PORT_B: RangeInclusive<Port> = Port(0x61)..=Port(0x61);
/// The i8042's data port.
pub const I8042_DATA: RangeInclusive<Port> = Port(0x60)..=Port(0x60);
/// The i8042's command port.
pub const I8042_COMMAND: RangeInclusive<Port> = Port(0x64)..=Port(0x64);
/// The RTC's index and data ports.
pub const RTC: RangeInclusive<Port> = Port(0x70)..=Port(0x71);
/// The POST code latch.
pub const POST: RangeInclusive<Port> = Port(0x80)..=Port(0x80);
/// System control port A.
pub const FAST_A20: RangeInclusive<Port> = Port(0x92)..=Port(0x92);
/// The debug-exit port (QEMU's isa-debug-exit at its customary port).
pub const DEBUG_EXIT: RangeInclusive<Port> = Port(0xF4)..=Port(0xF4);
/// The second serial line.
pub const COM2: Port = Port(0x2F8);
/// The third serial line.
pub const COM3: Port = Port(0x3E8);
/// The first serial line: the console.
pub const COM1: Port = Port(0x3F8);
/// Ports of a 16550.
const COM_PORTS: u16 = 8;
/// ACPI fixed hardware: PM1a event and control blocks, PM timer.
pub const ACPI_PM: Port = Port(0x600);
/// The reset control register, a byte inside the dword of PCI's configuration address; also the
/// FADT's RESET_REG.
pub const RESET_REGISTER: Port = Port(0xCF9);
/// What to write there for a full reset.
pub const RESET_VALUE: u8 = 0x06;

/// The 8254's counter 0.
pub const IRQ_PIT: u8 = 0;
/// COM2.
pub const IRQ_COM2: u8 = 3;
/// The i8042's keyboard.
pub const IRQ_KEYBOARD: u8 = 1;
/// COM1.
pub const IRQ_COM1: u8 = 4;
/// COM3 shares COM1's, as PCs have it and kernels expect without asking.
pub const IRQ_COM3: u8 = 4;
/// The RTC.
pub const IRQ_RTC: u8 = 8;
/// ACPI's system control interrupt.
pub const IRQ_SCI: u8 = 9;
/// The VM generation ID has changed.
pub const IRQ_GENERATION: u8 = 10;

/// RAM of `bytes` as runs, ascending and disjoint.
///
/// The display adapter's hole takes no RAM away from a PC's first megabyte count: `bytes` counts it
/// as if it were there.
pub fn ram(bytes: u64) -> Vec<Run> {
    let low = bytes.min(LOW_RAM_END.0);
    let mut ranges =
        vec![(Gpa(0), CONVENTIONAL_END.0), (UPPER_MEMORY, low.saturating_sub(UPPER_MEMORY.0))];
    if bytes > low {
        ranges.push((HIGH_RAM, bytes - low));
    }
    ranges
}

/// The ports of the 16550 at `base`.
pub const fn com_ports(base: Port) -> RangeInclusive<Port> {
    base..=base.wrapping_add(COM_PORTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_virtio_device_has_a_page_and_an_interrupt_of_its_own() {
        let slots: Vec<_> = (0..VIRTIO_MAX as u8).map(virtio_slot).collect();
        assert_eq!(slots[0], VirtioSlot { address: Gpa(0xFEB0_0000), gsi: Gsi(16) });
        assert_eq!(slots[7], VirtioSlot { address: Gpa(0xFEB0_7000), gsi: Gsi(23) });
    }

    #[test]
    fn pci_devices_share_the_pins_beyond_the_isa_interrupts() {
        let pins: Vec<_> = [1, 2, 8, 9, 31].map(|number| pci_gsi(number).0).into();
        assert_eq!(pins, [16, 17, 23, 16, 22]);
    }

    #[test]
    fn ram_leaves_the_holes_free() {
        assert_eq!(ram(512 << 20), [(Gpa(0), 0xA_0000), (Gpa(0xC_0000), 0x1FF4_0000)]);
        let large = ram(8 << 30);
        assert_eq!(large[1], (Gpa(0xC_0000), 0xC000_0000 - 0xC_0000));
        assert_eq!(large[2], (Gpa(1 << 32), 5 << 30));
    }
}
