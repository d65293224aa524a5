//! Rust's side of entry.s.

use crate::process::Context;
use crate::{cpu, tables};

unsafe extern "C" {
    #[link_name = "resume"]
    fn resume_context(context: *mut Context);
    #[link_name = "woken_by"]
    static mut WOKEN_BY: u64;
    #[link_name = "xsave_enabled"]
    static mut XSAVE_ENABLED: u8;
}

/// The vector that ended [`cpu::wait_for_interrupt`].
///
/// # Safety
/// Only with interrupts off.
pub unsafe fn woken_by() -> u64 {
    // SAFETY: the only writer is entry.s, with interrupts off as well; volatile, as it writes
    // behind the compiler's back.
    unsafe { (&raw const WOKEN_BY).read_volatile() }
}

/// Whether the processor state is saved by XSAVE rather than FXSAVE.
pub fn use_xsave(on: bool) {
    // SAFETY: the bootstrap calls this before the first process runs, so no entry code reads the
    // word yet.
    unsafe { (&raw mut XSAVE_ENABLED).write_volatile(on.into()) };
}

/// Runs the process of `context` with the address space at `root` until it is interrupted; the
/// context then holds its state, the vector among it.
pub fn resume(context: &mut Context, root: u64, fsgsbase: bool) {
    tables::set_rsp0(context.frame_end());
    if cpu::cr3() != root {
        cpu::set_cr3(root);
    }
    cpu::wrmsr(cpu::FS_BASE, context.fs_base);
    cpu::wrmsr(cpu::GS_BASE, context.gs_base);
    // SAFETY: the context's frame was made by `Context::new` or saved by entry.s: user selectors, a
    // canonical return address, interrupts on. `root` maps the nucleus. The callee-saved registers
    // are kept on the nucleus's stack.
    unsafe { resume_context(context) };
    if fsgsbase {
        context.fs_base = cpu::rdmsr(cpu::FS_BASE);
        context.gs_base = cpu::rdmsr(cpu::GS_BASE);
    }
}
