//! Every guest-physical address this crate chooses. All lie below 1 MiB, out of every protocol's
//! way.
//!
//! ```text
//! 00400 BIOS data area          20000 command line            9FC00 extended BIOS data area
//! 00500 GDT                     30000 start info (PVH,        A0000 VGA hole
//! 07000 boot_params                   Multiboot) + strings    E0000 RSDP and ACPI tables
//! 09000 page tables             80000 top of the boot stack  100000 kernels, modules, initrd
//! ```

use x86::addr::Gpa;

/// BIOS data area (IBM PC): COM1's port, EBDA segment, base memory size.
pub const BDA: Gpa = Gpa(0x400);

/// Boot GDT, 5 descriptors.
pub const GDT: Gpa = Gpa(0x500);

/// Linux's `boot_params` ("zero page"), 4096 bytes.
pub const BOOT_PARAMS: Gpa = Gpa(0x7000);

/// PML4, PDPT, then four page directories: the first 4 GiB mapped one to one by 2 MiB pages.
pub const PAGE_TABLES: Gpa = Gpa(0x9000);

/// Kernel command line, zero-terminated.
pub const CMDLINE: Gpa = Gpa(0x2_0000);

/// Room for the command line, its terminating zero included.
pub const CMDLINE_MAX: u64 = 0x1_0000;

/// hvm_start_info (PVH) or Multiboot information, with its tables and strings.
pub const START_INFO: Gpa = Gpa(0x3_0000);

/// Room for those.
pub const START_INFO_MAX: u64 = 0x4_0000;

/// Initial stack pointer where a protocol leaves it open: 64 KiB downwards are free.
pub const BOOT_STACK: u64 = 0x8_0000;

/// Extended BIOS data area, 1 KiB; conventional memory ends here.
pub const EBDA: Gpa = Gpa(0x9_fc00);

/// The VGA hole begins.
pub const VGA_HOLE: Gpa = Gpa(0xa_0000);

/// RSDP (inside the area that guests search, ACPI 5.2.5.1), then the other ACPI tables.
pub const ACPI_START: Gpa = Gpa(0xe_0000);

/// Extended memory: kernels go here or above.
pub const HIGH_MEMORY: Gpa = Gpa(0x10_0000);

/// Where 32-bit addresses end.
pub const FOUR_GIB: u64 = 1 << 32;

/// Boot GDT selector of the code segment (Linux's `__BOOT_CS`).
pub const BOOT_CS: u16 = 0x10;

/// Boot GDT selector of the data segments (Linux's `__BOOT_DS`).
pub const BOOT_DS: u16 = 0x18;

/// Boot GDT selector of a task-state segment.
pub const BOOT_TSS: u16 = 0x20;
