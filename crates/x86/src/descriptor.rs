//! Descriptors and gates: decoding, and reading them from the GDT and LDT (SDM vol. 3, 3.4.5, 3.5,
//! 6.11, 6.14.1).
//!
//! A descriptor is judged as the [`Segment`] it would become. Table reads are the processor's own
//! accesses (supervisor, implicit); a selector beyond its table's limit raises what the caller
//! names.

use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus};
use crate::exception::Exception;
use crate::state::{CpuState, Segment};

/// Types of system descriptors (SDM vol. 3, table 3-2). The 32-bit ones are 64-bit in IA-32e mode.
#[allow(missing_docs)]
pub mod system {
    pub const TSS16_AVAILABLE: u8 = 1;
    pub const LDT: u8 = 2;
    pub const TSS16_BUSY: u8 = 3;
    pub const CALL_GATE16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    pub(super) const INTERRUPT_GATE16: u8 = 6;
    pub(super) const TRAP_GATE16: u8 = 7;
    pub const TSS_AVAILABLE: u8 = 9;
    pub const TSS_BUSY: u8 = 11;
    pub const CALL_GATE: u8 = 12;
    pub const INTERRUPT_GATE: u8 = 14;
    pub const TRAP_GATE: u8 = 15;
    /// The bit that makes an available TSS busy.
    pub const BUSY: u8 = 2;
}

/// A segment selector (SDM vol. 3, 3.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector(pub u16);

impl Selector {
    /// Requested privilege level.
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Whether it names the LDT.
    pub const fn local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Entry 0 of the GDT, whatever the RPL.
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// The same with another RPL.
    pub const fn with_rpl(self, rpl: u8) -> u16 {
        (self.0 & !3) | rpl as u16
    }

    /// The exception `vector` with this selector as error code (SDM vol. 3, 6.13).
    pub const fn fault(self, vector: Vector) -> Exception {
        Exception::with_code(vector, (self.0 & !3) as u32)
    }
}

impl Segment {
    /// No segment: any access through it faults outside 64-bit mode.
    pub const fn null(selector: u16) -> Self {
        Self { base: 0, limit: 0, selector, access: 0 }
    }

    /// From the eight bytes of a descriptor (the low half of a system descriptor in IA-32e mode).
    pub const fn decode(selector: u16, raw: u64) -> Self {
        let base = ((raw >> 16) & 0xff_ffff) | ((raw >> 32) & 0xff00_0000);
        let access = ((raw >> 40) & 0xf0ff) as u16;
        let pages = ((raw & 0xffff) | ((raw >> 32) & 0xf_0000)) as u32;
        let limit = if access & Self::G != 0 { (pages << 12) | 0xfff } else { pages };
        Self { base, limit, selector, access }
    }

    /// LDT, TSS or gate.
    pub const fn is_system(self) -> bool {
        self.access & Self::S == 0
    }

    /// Code.
    pub const fn is_code(self) -> bool {
        !self.is_system() && self.kind() & 8 != 0
    }

    /// Data or stack.
    pub const fn is_data(self) -> bool {
        !self.is_system() && self.kind() & 8 == 0
    }

    /// Code that runs at its caller's level.
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }

    /// Data, or code that may be read.
    pub const fn is_readable(self) -> bool {
        self.is_data() || (self.is_code() && self.kind() & 2 != 0)
    }

    /// Data that may be written.
    pub const fn is_writable(self) -> bool {
        self.is_data() && self.kind() & 2 != 0
    }

    /// Data whose limit is its lower end.
    pub const fn is_expand_down(self) -> bool {
        self.is_data() && self.kind() & 4 != 0
    }

    /// D/B: 32-bit code, or a stack addressed through ESP.
    pub const fn is_big(self) -> bool {
        self.access & Self::DB != 0
    }

    /// L: 64-bit code (in IA-32e mode).
    pub const fn is_long(self) -> bool {
        self.access & Self::L != 0
    }

    /// TSS, available or busy.
    pub const fn is_tss(self) -> bool {
        self.is_system() && matches!(self.kind(), 1 | 3 | 9 | 11)
    }

    /// TSS whose task runs or is linked to.
    pub const fn is_busy_tss(self) -> bool {
        self.is_tss() && self.kind() & system::BUSY != 0
    }
}

/// A descriptor as found in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its linear address.
    pub la: La,
    /// Its (lower) eight bytes.
    pub raw: u64,
    /// The selector that led here.
    pub selector: Selector,
    /// What it decodes to.
    pub segment: Segment,
}

/// The linear address of `selector`'s descriptor of `len` bytes, `None` beyond the table.
pub fn locate(state: &CpuState, selector: Selector, len: u64) -> Option<La> {
    let (base, limit) = if !selector.local() {
        (state.gdtr.base, u64::from(state.gdtr.limit))
    } else if state.ldtr.present() {
        (state.ldtr.base, u64::from(state.ldtr.limit))
    } else {
        return None;
    };
    let offset = u64::from(selector.0 & !7);
    if offset + len - 1 > limit {
        return None;
    }
    table_address(state, base, offset, len)
}

/// The linear address of `len` bytes at `offset` in a system table at `base`: 32 bits wide outside
/// IA-32e mode, and `None` where it is not canonical within it.
pub(crate) fn table_address(state: &CpuState, base: u64, offset: u64, len: u64) -> Option<La> {
    let la = La(base.wrapping_add(offset));
    if !state.long_mode() {
        return Some(La(la.0 & 0xffff_ffff));
    }
    (la.is_canonical() && la.wrapping_add(len - 1).is_canonical()).then_some(la)
}

/// Reads `selector`'s descriptor.
///
/// # Errors
/// `invalid` with the selector if it is null or beyond its table; #PF.
pub fn read<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: Selector,
    invalid: Vector,
) -> Result<Entry, Exception> {
    if selector.is_null() {
        return Err(Exception::with_code(invalid, 0));
    }
    let la = locate(state, selector, 8).ok_or(selector.fault(invalid))?;
    let raw = bus.read(la, Width::B8, Privilege::Implicit)?;
    Ok(Entry { la, raw, selector, segment: Segment::decode(selector.0, raw) })
}

impl Entry {
    /// The upper eight bytes of a system descriptor in IA-32e mode, 0 otherwise.
    ///
    /// # Errors
    /// `invalid` with the selector beyond the table, or if the bits that would be a type there are
    /// set; #PF.
    pub fn upper<B: SystemBus + ?Sized>(
        &self,
        state: &CpuState,
        bus: &mut B,
        invalid: Vector,
    ) -> Result<u64, Exception> {
        if !state.long_mode() {
            return Ok(0);
        }
        locate(state, self.selector, 16).ok_or(self.selector.fault(invalid))?;
        let high = bus.read(self.la.wrapping_add(8), Width::B8, Privilege::Implicit)?;
        if high & 0x1f00_0000_0000 != 0 { Err(self.selector.fault(invalid)) } else { Ok(high) }
    }

    /// The segment, its descriptor's accessed bit set in memory too (SDM vol. 3, 3.4.5.1).
    ///
    /// # Errors
    /// #PF.
    pub fn accessed<B: SystemBus + ?Sized>(&self, bus: &mut B) -> Result<Segment, Exception> {
        if self.segment.access & 1 == 0 {
            bus.fetch_or_u8(self.la.wrapping_add(5), 1)?;
        }
        Ok(Segment { access: self.segment.access | 1, ..self.segment })
    }

    /// The gate this is, if it is one.
    pub fn gate(&self, high: u64, long_mode: bool) -> Option<Gate> {
        Gate::decode(self.raw, high, long_mode)
    }
}

/// What a gate leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// A procedure of another level.
    Call,
    /// A handler, with IF cleared.
    Interrupt,
    /// A handler, IF untouched.
    Trap,
    /// A task.
    Task,
}

/// A gate descriptor (SDM vol. 3, 5.8.3, 6.11, 6.14.1, 7.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its kind.
    pub kind: GateKind,
    /// Bytes per item on the stack: 2, 4 or 8.
    pub size: Width,
    /// Target code segment, or TSS.
    pub selector: Selector,
    /// Target instruction pointer.
    pub offset: u64,
    /// Who may use it.
    pub dpl: u8,
    /// Present.
    pub present: bool,
    /// Parameters to copy (call gates outside IA-32e mode), in items.
    pub parameters: u8,
    /// Interrupt stack table index (IA-32e mode), 0: none.
    pub ist: u8,
}

impl Gate {
    /// Decodes the two halves; `None` if the type is not a gate (in IA-32e mode: not a 64-bit
    /// gate).
    pub const fn decode(low: u64, high: u64, long_mode: bool) -> Option<Self> {
        let access = Segment::decode(0, low);
        if !access.is_system() {
            return None;
        }
        let (kind, small) = match access.kind() {
            system::CALL_GATE16 => (GateKind::Call, true),
            system::TASK_GATE => (GateKind::Task, true),
            system::INTERRUPT_GATE16 => (GateKind::Interrupt, true),
            system::TRAP_GATE16 => (GateKind::Trap, true),
            system::CALL_GATE => (GateKind::Call, false),
            system::INTERRUPT_GATE => (GateKind::Interrupt, false),
            system::TRAP_GATE => (GateKind::Trap, false),
            _ => return None,
        };
        if long_mode && small {
            return None;
        }
        let low_offset = low & 0xffff;
        let offset = if long_mode {
            low_offset | (low >> 32) & 0xffff_0000 | high << 32
        } else if small {
            low_offset
        } else {
            low_offset | (low >> 32) & 0xffff_0000
        };
        Some(Self {
            kind,
            size: if long_mode {
                Width::B8
            } else if small {
                Width::B2
            } else {
                Width::B4
            },
            selector: Selector((low >> 16) as u16),
            offset,
            dpl: access.dpl(),
            present: access.present(),
            parameters: if long_mode { 0 } else { ((low >> 32) & 0x1f) as u8 },
            ist: if long_mode { ((low >> 32) & 7) as u8 } else { 0 },
        })
    }
}
