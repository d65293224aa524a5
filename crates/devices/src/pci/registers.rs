//! Configuration registers of a type 0 header, and their bits (PCI Local Bus 3.0, chapter 6).

/// Bytes of a conventional function's configuration space.
pub(crate) const SPACE: u16 = 256;

/// Vendor ID.
pub(crate) const VENDOR: u16 = 0x00;
/// Device ID.
pub(crate) const DEVICE: u16 = 0x02;
/// Command.
pub(crate) const COMMAND: u16 = 0x04;
/// Status.
pub(crate) const STATUS: u16 = 0x06;
/// Revision ID, and the class code above it.
pub(crate) const REVISION: u16 = 0x08;
/// Cache line size.
pub(crate) const CACHE_LINE: u16 = 0x0C;
/// The first base address register.
pub(crate) const BAR0: u16 = 0x10;
/// Base address registers.
pub(crate) const BARS: usize = 6;
/// Subsystem vendor ID.
pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x2C;
/// Subsystem ID.
pub(crate) const SUBSYSTEM: u16 = 0x2E;
/// Where the list of capabilities begins.
pub(crate) const CAPABILITIES: u16 = 0x34;
/// Interrupt line: the firmware's and the system's notebook.
pub(crate) const INTERRUPT_LINE: u16 = 0x3C;
/// Interrupt pin: 1 is INTA#.
pub(crate) const INTERRUPT_PIN: u16 = 0x3D;
/// The header ends here.
pub(crate) const HEADER_END: u16 = 0x40;

/// Command: BARs in memory space decode.
pub(crate) const MEMORY_SPACE: u16 = 1 << 1;
/// Command: the function may write to memory by itself, messages included.
pub(crate) const BUS_MASTER: u16 = 1 << 2;
/// Command: INTA# is off.
pub(crate) const INTX_DISABLE: u16 = 1 << 10;
/// Command: what a function without I/O space, bridge or error signalling lets be written.
pub(crate) const COMMAND_BITS: u16 = MEMORY_SPACE | BUS_MASTER | INTX_DISABLE;

/// Status: the function asks for INTA#.
pub(crate) const INTERRUPT_STATUS: u16 = 1 << 3;
/// Status: there is a list of capabilities.
pub(crate) const CAPABILITY_LIST: u16 = 1 << 4;

/// Capability: vendor specific.
pub(crate) const CAP_VENDOR: u8 = 0x09;
/// Capability: MSI-X.
pub(crate) const CAP_MSIX: u8 = 0x11;

/// MSI-X message control: all vectors are masked (6.8.2.3).
pub(crate) const MSIX_MASKED: u16 = 1 << 14;
/// MSI-X message control: the function interrupts by MSI-X.
pub(crate) const MSIX_ENABLED: u16 = 1 << 15;
