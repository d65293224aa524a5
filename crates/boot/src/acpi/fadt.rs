//! Fixed ACPI description table (ACPI 6.4, table 5.9), revision 6.4.

use super::config::AcpiConfig;
use super::parts::table;
use acpi_tables::sdt::{GenericAddress, Sdt};

/// Bytes of a revision 6.4 FADT.
const LENGTH: u32 = 276;
/// Preferred_PM_Profile: enterprise server.
const PROFILE_SERVER: u8 = 4;
/// Latencies above 100 and 1000 µs say that there is no C2 and C3.
const NO_C_STATE: u16 = 0x0fff;
/// Index of the century in CMOS memory.
const CENTURY: u8 = 0x32;

// IAPC_BOOT_ARCH (table 5.11).
const LEGACY_DEVICES: u16 = 1 << 0;
const HAS_8042: u16 = 1 << 1;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const NO_ASPM: u16 = 1 << 4;
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

// Flags (table 5.10).
const WBINVD: u32 = 1 << 0;
const PROC_C1: u32 = 1 << 2;
const NO_FIXED_SLEEP_BUTTON: u32 = 1 << 5;
const NO_FIXED_RTC_WAKE: u32 = 1 << 6;
const TMR_VAL_EXT: u32 = 1 << 8;
const RESET_REG_SUP: u32 = 1 << 10;

/// The table; FACS and DSDT lie at `facs` and `dsdt`, below 4 GiB.
pub(super) fn fadt(config: &AcpiConfig, facs: u64, dsdt: u64) -> Vec<u8> {
    let mut t = table(*b"FACP", LENGTH, 6);
    t.write_u32(36, facs as u32);
    t.write_u32(40, dsdt as u32);
    t.write_u64(140, dsdt);
    t.write_u8(45, PROFILE_SERVER);
    t.write_u16(46, config.sci.0 as u16);
    block(&mut t, config.pm1a_event.0, 56, 88, 148, 4);
    block(&mut t, config.pm1a_control.0, 64, 89, 172, 2);
    block(&mut t, config.pm_timer.0, 76, 91, 208, 4);
    t.write_u16(96, NO_C_STATE);
    t.write_u16(98, NO_C_STATE);
    t.write_u8(108, if config.rtc { CENTURY } else { 0 });
    t.write_u16(109, boot_architecture(config));
    t.write_u32(112, flags(config));
    address(&mut t, 116, config.reset_port.0, 1);
    t.write_u8(128, config.reset_value);
    t.write_u8(131, 4); // minor version
    t.as_slice().to_vec()
}

/// A register block of `len` bytes at `port`: its 32-bit address, its length, its extended address.
fn block(t: &mut Sdt, port: u16, address_at: usize, len_at: usize, extended_at: usize, len: u8) {
    t.write_u32(address_at, port.into());
    t.write_u8(len_at, len);
    address(t, extended_at, port, len);
}

/// A generic address structure (5.2.3.2) for `len` bytes of I/O space.
fn address(t: &mut Sdt, at: usize, port: u16, len: u8) {
    let gas = match len {
        1 => GenericAddress::io_port_address::<u8>(port),
        2 => GenericAddress::io_port_address::<u16>(port),
        _ => GenericAddress::io_port_address::<u32>(port),
    };
    t.write_u8(at, gas.address_space_id);
    t.write_u8(at + 1, gas.register_bit_width);
    t.write_u8(at + 2, gas.register_bit_offset);
    t.write_u8(at + 3, gas.access_size);
    t.write_u64(at + 4, gas.address);
}

fn boot_architecture(config: &AcpiConfig) -> u16 {
    let when = |on: bool, bit: u16| if on { bit } else { 0 };
    VGA_NOT_PRESENT
        | NO_ASPM
        | when(config.com1 || config.i8042, LEGACY_DEVICES)
        | when(config.i8042, HAS_8042)
        | when(!config.rtc, CMOS_RTC_NOT_PRESENT)
}

fn flags(config: &AcpiConfig) -> u32 {
    let timer = if config.pm_timer_32bit { TMR_VAL_EXT } else { 0 };
    WBINVD | PROC_C1 | NO_FIXED_SLEEP_BUTTON | NO_FIXED_RTC_WAKE | RESET_REG_SUP | timer
}
