//! The hardware task switch (SDM vol. 3, 7.3).
//!
//! Everything that can fault in the old task's context is tried first; then comes the commit point.
//! What fails after it (LDTR, CR3 and segment loads, the error code's push) is raised in the new
//! task's context: the state returned with such an error is the new task's, its faulty segment
//! registers unusable.

use super::layout::{Layout, TaskState};
use crate::addr::{La, Vector, Width};
use crate::bus::{Privilege, SystemBus, TlbEffect};
use crate::descriptor::{self, Entry, Selector, system};
use crate::exception::Exception;
use crate::paging::load_pdptes;
use crate::regs::{Cr0, Cr4, Rflags};
use crate::segment::{self, Stack, check_ip};
use crate::state::{CpuState, Flags, Seg, Segment};

/// DR6: the task switched to has its T flag set.
const DR6_BT: u64 = 1 << 15;
/// DR7: L0–L3 and LE, which are the task's own (SDM vol. 3, 17.2.4).
const DR7_LOCAL: u64 = 0x155;
/// The bits of EFLAGS that exist.
const EFLAGS: u64 = 0x003f_7fd5;

/// What switches tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// JMP.
    Jump,
    /// CALL.
    Call,
    /// IRET with NT set.
    Return,
    /// An interrupt or exception through a task gate; the error code goes onto the new task's
    /// stack.
    Interrupt {
        /// What to push.
        error_code: Option<u32>,
    },
}

impl Cause {
    const fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Interrupt { .. })
    }

    /// Whether the old task ends here rather than waiting busy for a return.
    const fn leaves(self) -> bool {
        matches!(self, Self::Jump | Self::Return)
    }
}

/// Switches to the task whose TSS `selector` names, saving `return_rip` and `image` (EFLAGS) for
/// the old one.
///
/// Privilege checks (DPL of the TSS or task gate) are the caller's.
///
/// # Errors
/// Before the commit point, with the state unchanged: #GP (IRET: #TS), #NP, #TS, #PF. After it:
/// #TS, #NP, #SS, #GP,
/// #PF, and #DB with BT if the new task's T flag is set, all in the new task's context.
pub fn switch<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    selector: Selector,
    cause: Cause,
    return_rip: u64,
    image: u64,
) -> Result<(), Exception> {
    let entry = find(state, bus, selector, cause)?;
    let layout = Layout::of(&entry.segment);
    let task = prepare(state, bus, &entry, layout, cause)?;
    save_old(state, bus, &entry, cause, return_rip, image)?;

    let mut tr = entry.segment;
    tr.access |= u16::from(system::BUSY);
    state.tr = tr;
    state.paging.cr0 |= Cr0::TS;
    state.dr.dr7 &= !DR7_LOCAL;
    load_registers(state, &task, cause);
    load_context(state, bus, &task)?;
    if let Cause::Interrupt { error_code: Some(code) } = cause {
        let mut stack = Stack::current(state);
        stack.push(bus, layout.width, code.into())?;
        stack.store_pointer(state);
    }
    if task.trap { Err(Exception::db(DR6_BT)) } else { Ok(()) }
}

/// Reads and judges the new TSS's descriptor.
fn find<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: Selector,
    cause: Cause,
) -> Result<Entry, Exception> {
    let returns = cause == Cause::Return;
    let invalid = if returns { Vector::TS } else { Vector::GP };
    if selector.local() {
        return Err(selector.fault(invalid));
    }
    let entry = descriptor::read(state, bus, selector, invalid)?;
    if !entry.segment.is_tss() || entry.segment.is_busy_tss() != returns {
        return Err(selector.fault(invalid));
    }
    if !entry.segment.present() {
        return Err(selector.fault(Vector::NP));
    }
    if entry.segment.limit < Layout::of(&entry.segment).least_limit {
        return Err(selector.fault(Vector::TS));
    }
    Ok(entry)
}

/// Reads the new task's state and tries everything that will be written.
fn prepare<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    entry: &Entry,
    layout: &Layout,
    cause: Cause,
) -> Result<TaskState, Exception> {
    let old = Layout::of(&state.tr);
    if !old.holds_saved(state.tr.limit) {
        return Err(Selector(state.tr.selector).fault(Vector::TS));
    }
    old.probe(bus, state.tr.base)?;
    if cause.leaves()
        && let Some(la) = access_byte(state, state.tr.selector)
    {
        bus.probe_write(la, 1, Privilege::Implicit)?;
    }
    if cause.nests() {
        bus.probe_write(La(entry.segment.base), 2, Privilege::Implicit)?;
    }
    bus.probe_write(entry.la.wrapping_add(5), 1, Privilege::Implicit)?;
    layout.read(bus, entry.segment.base)
}

/// Steps 5 to 9 of the manual: busy bits, the old state, the back link.
fn save_old<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    entry: &Entry,
    cause: Cause,
    return_rip: u64,
    image: u64,
) -> Result<(), Exception> {
    if cause.leaves()
        && let Some(la) = access_byte(state, state.tr.selector)
    {
        let byte = bus.read(la, Width::B1, Privilege::Implicit)?;
        bus.write(la, Width::B1, byte & !u64::from(system::BUSY), Privilege::Implicit)?;
    }
    let image = if cause == Cause::Return { image & !Rflags::NT.bits() } else { image };
    Layout::of(&state.tr).save(state, bus, return_rip, image)?;
    if cause.nests() {
        bus.write(
            La(entry.segment.base),
            Width::B2,
            state.tr.selector.into(),
            Privilege::Implicit,
        )?;
    }
    if cause != Cause::Return {
        bus.fetch_or_u8(entry.la.wrapping_add(5), system::BUSY)?;
    }
    Ok(())
}

/// The linear address of the access byte of `selector`'s descriptor.
fn access_byte(state: &CpuState, selector: u16) -> Option<La> {
    let selector = Selector(selector);
    if selector.is_null() {
        return None;
    }
    descriptor::locate(state, selector, 8).map(|la| la.wrapping_add(5))
}

/// Everything that cannot fail; segment registers get their selectors and are unusable until
/// loaded.
fn load_registers(state: &mut CpuState, task: &TaskState, cause: Cause) {
    let nested = if cause.nests() { Rflags::NT.bits() } else { 0 };
    state.flags = Flags::from_bits((task.flags & EFLAGS) | nested);
    state.rip = task.ip;
    for (register, value) in state.gpr.iter_mut().zip(task.gpr) {
        *register = value;
    }
    let virtual_8086 = state.flags.has(Rflags::VM);
    for (segment, selector) in state.seg.iter_mut().zip(task.seg) {
        *segment =
            if virtual_8086 { segment::virtual_8086(selector) } else { Segment::null(selector) };
    }
    state.ldtr = Segment::null(task.ldt);
    state.cpl = if virtual_8086 { 3 } else { state.seg[Seg::Cs as usize].selector as u8 & 3 };
}

/// CR3, LDTR, then the segments (SDM vol. 3, table 7-1).
fn load_context<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    task: &TaskState,
) -> Result<(), Exception> {
    if let Some(cr3) = task.cr3
        && state.paging.cr0.contains(Cr0::PG)
    {
        load_cr3(state, bus, cr3)?;
    }
    state.ldtr = segment::ldt_segment(state, bus, task.ldt, Vector::TS)?;
    if !state.flags.has(Rflags::VM) {
        load_segments(state, bus, task)?;
    }
    check_ip(&state.seg[Seg::Cs as usize], false, state.rip)
}

fn load_cr3<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    cr3: u64,
) -> Result<(), Exception> {
    if state.paging.cr4.contains(Cr4::PAE) {
        state.paging.pdpte = load_pdptes(bus, cr3)?;
    }
    state.paging.cr3 = cr3;
    bus.paging_changed(&state.paging, TlbEffect::SwitchFlush);
    Ok(())
}

fn load_segments<B: SystemBus + ?Sized>(
    state: &mut CpuState,
    bus: &mut B,
    task: &TaskState,
) -> Result<(), Exception> {
    let selector = |seg: Seg| task.seg[seg as usize];
    let cpl = state.cpl;
    state.seg[Seg::Cs as usize] = code_segment(state, bus, selector(Seg::Cs))?;
    state.seg[Seg::Ss as usize] =
        segment::stack_segment(state, bus, cpl, selector(Seg::Ss), Vector::TS)?;
    for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
        state.seg[seg as usize] =
            segment::data_segment(state, bus, cpl, selector(seg), Vector::TS)?;
    }
    Ok(())
}

/// The new task's CS: its RPL is the level, which the descriptor must agree to.
fn code_segment<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<Segment, Exception> {
    let selector = Selector(selector);
    let entry = descriptor::read(state, bus, selector, Vector::TS)?;
    let (segment, rpl) = (entry.segment, selector.rpl());
    let level = if segment.is_conforming() { segment.dpl() <= rpl } else { segment.dpl() == rpl };
    if !segment.is_code() || !level {
        return Err(selector.fault(Vector::TS));
    }
    if !segment.present() {
        return Err(selector.fault(Vector::NP));
    }
    entry.accessed(bus)
}
