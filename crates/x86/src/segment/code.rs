//! Code segments as targets of far transfers (SDM vol. 3, 5.8).

use crate::addr::{La, Vector};
use crate::bus::SystemBus;
use crate::descriptor::{self, Entry, Selector};
use crate::exception::Exception;
use crate::state::{CpuState, Seg, Segment, gpr};

/// A code segment that may be entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeTarget {
    /// CS as it will be, its RPL the new CPL.
    pub(crate) segment: Segment,
    /// The new CPL.
    pub(crate) cpl: u8,
    /// 64-bit code.
    pub(crate) long: bool,
    entry: Entry,
}

impl CodeTarget {
    fn new(state: &CpuState, entry: Entry, cpl: u8) -> Result<Self, Exception> {
        let mut segment = entry.segment;
        if state.long_mode() && segment.is_long() && segment.is_big() {
            return Err(entry.selector.fault(Vector::GP));
        }
        if !segment.present() {
            return Err(entry.selector.fault(Vector::NP));
        }
        segment.selector = entry.selector.with_rpl(cpl);
        segment.access |= 1;
        Ok(Self { segment, cpl, long: state.long_mode() && segment.is_long(), entry })
    }

    /// Checks `ip` against the segment: #GP(0).
    pub(crate) fn check_ip(&self, ip: u64) -> Result<(), Exception> {
        check_ip(&self.segment, self.long, ip)
    }

    /// Sets the descriptor's accessed bit.
    pub(crate) fn mark_accessed<B: SystemBus + ?Sized>(
        &self,
        bus: &mut B,
    ) -> Result<(), Exception> {
        self.entry.accessed(bus).map(|_| ())
    }

    /// Loads CS, CPL and RIP, after RSP: compatibility mode has 32 bits of it.
    pub(crate) const fn enter(&self, state: &mut CpuState, ip: u64) {
        if state.long_mode() && !self.long {
            state.gpr[gpr::RSP] &= 0xffff_ffff;
        }
        state.seg[Seg::Cs as usize] = self.segment;
        state.cpl = self.cpl;
        state.rip = ip;
    }
}

/// Whether `ip` lies in code segment `segment`: #GP(0) if not.
pub(crate) fn check_ip(segment: &Segment, long: bool, ip: u64) -> Result<(), Exception> {
    let inside = if long { La(ip).is_canonical() } else { ip <= u64::from(segment.limit) };
    if inside { Ok(()) } else { Err(Exception::gp(0)) }
}

/// The target of a direct far JMP or CALL: same level, or conforming.
pub(crate) fn jump_target(state: &CpuState, entry: Entry) -> Result<CodeTarget, Exception> {
    let segment = entry.segment;
    let allowed = if segment.is_conforming() {
        segment.dpl() <= state.cpl
    } else {
        segment.is_code() && entry.selector.rpl() <= state.cpl && segment.dpl() == state.cpl
    };
    if !allowed {
        return Err(entry.selector.fault(Vector::GP));
    }
    CodeTarget::new(state, entry, state.cpl)
}

/// The target of RET or IRET: same or outer level, chosen by the selector's RPL.
pub(crate) fn return_target<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: u16,
) -> Result<CodeTarget, Exception> {
    let selector = Selector(selector);
    let entry = descriptor::read(state, bus, selector, Vector::GP)?;
    let (segment, rpl) = (entry.segment, selector.rpl());
    let level = if segment.is_conforming() { segment.dpl() <= rpl } else { segment.dpl() == rpl };
    if !segment.is_code() || rpl < state.cpl || !level {
        return Err(selector.fault(Vector::GP));
    }
    CodeTarget::new(state, entry, rpl)
}

/// The target of a call, interrupt or trap gate: same or inner level; `inward` allows the latter
/// (JMP does not). In IA-32e mode it must be 64-bit code.
pub(crate) fn gate_target<B: SystemBus + ?Sized>(
    state: &CpuState,
    bus: &mut B,
    selector: Selector,
    inward: bool,
) -> Result<CodeTarget, Exception> {
    let entry = descriptor::read(state, bus, selector, Vector::GP)?;
    let segment = entry.segment;
    let outward = segment.dpl() > state.cpl;
    let inner = !segment.is_conforming() && segment.dpl() < state.cpl;
    let wrong_size = state.long_mode() && (!segment.is_long() || segment.is_big());
    if !segment.is_code() || outward || wrong_size || (inner && !inward) {
        return Err(selector.fault(Vector::GP));
    }
    CodeTarget::new(state, entry, if inner { segment.dpl() } else { state.cpl })
}
