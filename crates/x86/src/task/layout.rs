//! Where a task's state lies in its TSS (SDM vol. 3, figures 7-2 and 7-10), read and written as a
//! whole.

use crate::addr::{La, Width};
use crate::bus::{Privilege, SystemBus};
use crate::descriptor::system;
use crate::exception::Exception;
use crate::state::{CpuState, Segment};

/// The two formats as data. Offsets in bytes; registers follow each other in encoding order.
pub(super) struct Layout {
    /// Bytes of a register: 2 or 4.
    pub(super) width: Width,
    /// The least limit a TSS of this format may have.
    pub(super) least_limit: u32,
    ip: u64,
    flags: u64,
    gpr: u64,
    seg: u64,
    seg_count: usize,
    /// First byte after the part that a switch saves.
    saved_end: u64,
    ldt: u64,
    cr3: Option<u64>,
    trap: Option<u64>,
}

const BITS16: Layout = Layout {
    width: Width::B2,
    least_limit: 0x2b,
    ip: 0x0e,
    flags: 0x10,
    gpr: 0x12,
    seg: 0x22,
    seg_count: 4,
    saved_end: 0x2a,
    ldt: 0x2a,
    cr3: None,
    trap: None,
};

const BITS32: Layout = Layout {
    width: Width::B4,
    least_limit: 0x67,
    ip: 0x20,
    flags: 0x24,
    gpr: 0x28,
    seg: 0x48,
    seg_count: 6,
    saved_end: 0x60,
    ldt: 0x60,
    cr3: Some(0x1c),
    trap: Some(0x64),
};

/// A task's state as its TSS holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskState {
    pub(super) ip: u64,
    pub(super) flags: u64,
    pub(super) gpr: [u64; 8],
    pub(super) seg: [u16; 6],
    pub(super) ldt: u16,
    /// A 16-bit TSS has none.
    pub(super) cr3: Option<u64>,
    /// The T flag.
    pub(super) trap: bool,
}

impl Layout {
    /// The format of a TSS.
    pub(super) const fn of(tss: &Segment) -> &'static Self {
        match tss.kind() {
            system::TSS16_AVAILABLE | system::TSS16_BUSY => &BITS16,
            _ => &BITS32,
        }
    }

    /// Whether the TSS of the outgoing task can take its state.
    pub(super) fn holds_saved(&self, limit: u32) -> bool {
        u64::from(limit) + 1 >= self.saved_end
    }

    /// Verifies that the state could be saved at `base`.
    pub(super) fn probe<B: SystemBus + ?Sized>(
        &self,
        bus: &mut B,
        base: u64,
    ) -> Result<(), Exception> {
        bus.probe_write(
            La(base.wrapping_add(self.ip) & 0xffff_ffff),
            self.saved_end - self.ip,
            Privilege::Implicit,
        )
    }

    /// Reads a whole state.
    pub(super) fn read<B: SystemBus + ?Sized>(
        &self,
        bus: &mut B,
        base: u64,
    ) -> Result<TaskState, Exception> {
        let mut get = |offset: u64, size: Width| {
            bus.read(La(base.wrapping_add(offset) & 0xffff_ffff), size, Privilege::Implicit)
        };
        let mut task = TaskState {
            ip: get(self.ip, self.width)?,
            flags: get(self.flags, self.width)?,
            ldt: get(self.ldt, Width::B2)? as u16,
            ..TaskState::default()
        };
        for (i, register) in (0u64..).zip(&mut task.gpr) {
            *register = get(self.gpr + i * u64::from(self.width), self.width)?;
        }
        for (i, selector) in (0u64..).zip(task.seg.iter_mut().take(self.seg_count)) {
            *selector = get(self.seg + i * u64::from(self.width), Width::B2)? as u16;
        }
        task.cr3 = self.cr3.map(|offset| get(offset, Width::B4)).transpose()?;
        task.trap = self.trap.map_or(Ok(0), |offset| get(offset, Width::B1))? & 1 != 0;
        Ok(task)
    }

    /// Saves the running task's state with `ip` and `flags`; the rest of the TSS is the system's.
    pub(super) fn save<B: SystemBus + ?Sized>(
        &self,
        state: &CpuState,
        bus: &mut B,
        ip: u64,
        flags: u64,
    ) -> Result<(), Exception> {
        let base = state.tr.base;
        let mut put = |offset: u64, size: Width, value: u64| {
            bus.write(La(base.wrapping_add(offset) & 0xffff_ffff), size, value, Privilege::Implicit)
        };
        put(self.ip, self.width, ip)?;
        put(self.flags, self.width, flags)?;
        for (i, register) in (0u64..).zip(state.gpr.iter().take(8)) {
            put(self.gpr + i * u64::from(self.width), self.width, *register)?;
        }
        for (i, segment) in (0u64..).zip(state.seg.iter().take(self.seg_count)) {
            put(self.seg + i * u64::from(self.width), Width::B2, segment.selector.into())?;
        }
        Ok(())
    }
}
