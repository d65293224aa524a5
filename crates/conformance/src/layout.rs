//! Where a case finds things in guest-physical memory; linear addresses are the same below 2 MiB.

/// Bytes of RAM from address 0.
pub(crate) const RAM: u64 = 16 << 20;
/// Global descriptor table.
pub(crate) const GDT: u64 = 0x1000;
/// Interrupt descriptor table.
pub(crate) const IDT: u64 = 0x2000;
/// The task-state segment in TR.
pub(crate) const TSS: u64 = 0x3000;
/// Another one.
pub(crate) const TSS2: u64 = 0x3400;
/// I/O permission bitmap's offset in [`TSS`].
pub(crate) const IO_MAP: u64 = 0x68;
/// Last offset in [`TSS`]: a bitmap for ports 0 to FFH, and its final byte.
pub(crate) const TSS_LIMIT: u32 = 0x68 + 0x20;
/// A local descriptor table.
pub(crate) const LDT: u64 = 0x4000;
/// Stubs that halt, 16 bytes each, one for every vector.
pub(crate) const STUBS: u64 = 0x6000;
/// Supervisor code.
pub(crate) const CODE: u64 = 0x8000;
/// Handlers that a case supplies.
pub(crate) const HANDLERS: u64 = 0xa000;
/// Supervisor stack, growing down.
pub(crate) const STACK: u64 = 0xf000;
/// User code.
pub(crate) const USER_CODE: u64 = 0x1_0000;
/// A user page for data.
pub(crate) const USER_DATA: u64 = 0x1_8000;
/// User stack, growing down.
pub(crate) const USER_STACK: u64 = 0x1_f000;
/// Stack of IST1.
pub(crate) const IST1: u64 = 0x2_7000;
/// Stack for interrupts from user code.
pub(crate) const STACK0: u64 = 0x2_f000;
/// Supervisor data.
pub(crate) const DATA: u64 = 0x3_0000;
/// Page tables, the root first.
pub(crate) const TABLES: u64 = 0x10_0000;
/// Page frames for cases to map.
pub(crate) const FRAME: u64 = 0x20_0000;
/// Linear addresses for cases to map.
pub(crate) const PLAY: u64 = 0x4000_0000;

/// What OUT reports to.
pub(crate) const REPORT: u16 = 0xe9;
/// OUT here raises an external interrupt with [`INTERRUPT`].
pub(crate) const RAISE_INTERRUPT: u16 = 0xe0;
/// OUT here raises an NMI.
pub(crate) const RAISE_NMI: u16 = 0xe1;
/// A hypercall that there is not.
pub(crate) const NO_CALL: u64 = 0x999;
/// The external interrupt's vector.
pub(crate) const INTERRUPT: u8 = 0x40;
/// A vector whose gate has DPL 3: user code ends by it.
pub(crate) const EXIT: u8 = 0x80;

/// Selectors in the GDT. SYSCALL, SYSRET, SYSENTER and SYSEXIT want the first six in this order.
pub(crate) mod sel {
    pub(crate) const CODE64: u16 = 0x08;
    pub(crate) const DATA: u16 = 0x10;
    pub(crate) const USER_CODE32: u16 = 0x1b;
    pub(crate) const USER_DATA: u16 = 0x23;
    pub(crate) const USER_CODE64: u16 = 0x2b;
    pub(crate) const CODE32: u16 = 0x30;
    pub(crate) const CODE16: u16 = 0x38;
    pub(crate) const DATA16: u16 = 0x40;
    /// Conforming 32-bit code, DPL 0.
    pub(crate) const CONFORMING: u16 = 0x48;
    /// Data, not present.
    pub(crate) const ABSENT: u16 = 0x50;
    pub(crate) const READ_ONLY: u16 = 0x58;
    /// 32-bit code that cannot be read.
    pub(crate) const EXECUTE_ONLY: u16 = 0x60;
    pub(crate) const LDT: u16 = 0x68;
    /// Free for a case: 16 bytes.
    pub(crate) const SPARE: u16 = 0x78;
    pub(crate) const TSS: u16 = 0x88;
    pub(crate) const TSS2: u16 = 0x98;
    pub(crate) const GATE: u16 = 0xa8;
    /// Writable data, DPL 0, not yet accessed.
    pub(crate) const FRESH: u16 = 0xb8;
    /// Expand-down data, limit FFFH, B set.
    pub(crate) const DOWN: u16 = 0xc0;
    /// Data of 100H bytes.
    pub(crate) const SHORT: u16 = 0xc8;
    /// The first selector beyond the GDT's limit.
    pub(crate) const BEYOND: u16 = 0x100;
}
