//! Where translated code finds a processor's state: bytes from the beginning of [`Cpu`], which the
//! host's GS base holds while it runs.

use super::context::Context;
use crate::cpu::Cpu;
use std::mem::{offset_of, size_of};
use x86::state::{CpuState, Flags, Segment, X87, gpr};

pub(super) const STATE: usize = offset_of!(Cpu, core.state);
pub(super) const RIP: usize = STATE + offset_of!(CpuState, rip);
pub(super) const PAGE: usize = STATE + offset_of!(CpuState, gpr) + 8 * gpr::BLOCK_IP;
pub(super) const ARITH: usize = STATE + offset_of!(CpuState, flags) + offset_of!(Flags, arith);
pub(super) const SYSTEM_FLAGS: usize =
    STATE + offset_of!(CpuState, flags) + offset_of!(Flags, system);
pub(super) const MXCSR: usize = STATE + offset_of!(CpuState, x87) + offset_of!(X87, mxcsr);
pub(super) const VIEW: usize = Cpu::VIEW_OFFSET;
pub(super) const JIT: usize = offset_of!(Cpu, jit);
pub(super) const LEFT: usize = JIT + offset_of!(Context, left);
pub(super) const ENTERED: usize = JIT + offset_of!(Context, entered);
pub(super) const LOOKED_UP: usize = JIT + offset_of!(Context, looked_up);
pub(super) const TMP_FLAGS: usize = JIT + offset_of!(Context, flags);
pub(super) const POLL: usize = JIT + offset_of!(Context, poll);
pub(super) const SCRATCH: usize = JIT + offset_of!(Context, scratch);
pub(super) const EXIT: usize = JIT + offset_of!(Context, exit);
pub(super) const TARGETS: usize = JIT + offset_of!(Context, targets);
pub(super) const SLOTS: usize = JIT + offset_of!(Context, slots);
pub(super) const VECTORS_OUT: usize = JIT + offset_of!(Context, vectors_out);

pub(super) fn spill_slot(register: u8) -> usize {
    STATE + offset_of!(CpuState, gpr) + 8 * usize::from(register)
}

pub(super) fn ymm_slot(register: u8) -> usize {
    STATE + offset_of!(CpuState, ymm) + 32 * usize::from(register)
}

/// Where the base of segment `number` lies.
pub(super) fn segment_base(number: u8) -> usize {
    STATE
        + offset_of!(CpuState, seg)
        + usize::from(number) * size_of::<Segment>()
        + offset_of!(Segment, base)
}

/// Where the selector of segment `number` lies.
pub(super) fn segment_selector(number: u8) -> usize {
    segment_base(number) - offset_of!(Segment, base) + offset_of!(Segment, selector)
}
