//! Events between instructions: interrupts, NMIs, single step, breakpoints and halts (SDM vol. 3,
//! 6.9).

use super::deliver::{absent, deliver, fault, fault_here, resume_flag};
use super::fetch::{self, Extent};
use crate::core::Core;
use crate::op::{OWN_STEP, Step};
use vcpu::{Exit, Signal, SignalSet};
use x86::addr::La;
use x86::debug;
use x86::exception::Exception;
use x86::interrupt::Event;
use x86::regs::Rflags;
use x86::state::{Activity, Mode, Seg};

/// What the run loop does next.
pub(crate) enum Pending {
    /// Leave `run`.
    Exit(Exit),
    /// An event was delivered: poll again.
    Again,
    /// Run one instruction, then poll again.
    Step,
    /// Nothing special.
    Run,
}

/// Looks at everything that can happen between two instructions, in the order of its priority.
pub(crate) fn poll_events(core: &mut Core, limit: u64) -> Pending {
    match core.exit.take() {
        Some(Exit::Absent(gpa)) => return absent(core, gpa).map_or(Pending::Again, Pending::Exit),
        Some(exit) => return Pending::Exit(exit),
        None => {}
    }
    if core.signals.is_raised(Signal::Changes) {
        // The flag is cleared before its cause is read: a later post raises it again.
        core.signals.clear(Signal::Changes);
    }
    if core.mmu.behind() {
        core.mmu.catch_up();
    }
    if core.state.activity == Activity::Shutdown {
        return Pending::Exit(Exit::Shutdown);
    }
    let raised = core.signals.bits();
    if raised != 0
        && let Some(pending) = signals(core, raised)
    {
        return pending;
    }
    if core.state.activity != Activity::Running {
        return Pending::Exit(Exit::Halted(SignalSet::waking(&core.state)));
    }
    if core.instructions >= limit {
        return Pending::Exit(Exit::SliceOver);
    }
    if !core.attention && limit - core.instructions > 1 {
        return Pending::Run;
    }
    let suppressed = core.state.blocking.mov_ss || core.state.flags.system & Rflags::RF.bits() != 0;
    if !suppressed && let Some(dr6) = debug::code_breakpoint(&core.state, La(linear_ip(core))) {
        deliver(core, Event::Exception(Exception::db(dr6)));
        return Pending::Again;
    }
    Pending::Step
}

fn linear_ip(core: &Core) -> u64 {
    if core.mode == Mode::Long64 {
        core.state.rip
    } else {
        core.state.seg[Seg::Cs as usize].base.wrapping_add(core.state.rip) & 0xffff_ffff
    }
}

/// Kicks, resets, NMI, interrupts.
fn signals(core: &mut Core, raised: u32) -> Option<Pending> {
    let up = |signal: Signal| raised & signal as u32 != 0;
    if up(Signal::Kick) || up(Signal::Unhalt) || up(Signal::Arrival) {
        return Some(Pending::Exit(Exit::Kicked(core.signals.take_kicks())));
    }
    // A start-up IPI means nothing to a processor that does not wait for one; the machine takes it.
    if up(Signal::Init) || up(Signal::Sipi) {
        return Some(Pending::Exit(Exit::Reset));
    }
    if core.state.activity == Activity::WaitForSipi {
        return None;
    }
    let blocking = core.state.blocking;
    if up(Signal::Nmi) && !blocking.nmi && !blocking.mov_ss && !blocking.sti {
        core.signals.clear(Signal::Nmi);
        resume_flag(core);
        deliver(core, Event::Nmi);
        return Some(Pending::Again);
    }
    let open = core.state.flags.system & Rflags::IF.bits() != 0;
    if up(Signal::Intr) && open && !blocking.sti && !blocking.mov_ss {
        let vector = core.machine.io().and_then(vcpu::CpuIo::ack_interrupt)?;
        resume_flag(core);
        core.stats.interrupts += 1;
        tracing::trace!(target: "irq", vector = vector.0, rip = core.state.rip, "interrupt");
        deliver(core, Event::External(vector));
        return Some(Pending::Again);
    }
    None
}

/// Runs exactly one instruction, with the traps that follow it.
pub(crate) fn single_step(core: &mut Core) {
    if core.trace {
        crate::trace::instruction(core);
    }
    let Some(block) = fetch::block_at_rip(core, Extent::Instruction) else { return };
    let stepping = core.state.flags.system & Rflags::TF.bits() != 0;
    let resumed = core.state.flags.system & Rflags::RF.bits() != 0;
    let blocking = core.state.blocking;
    core.state.flags.system &= !Rflags::RF.bits();
    core.mid_repeat = false;
    core.state.blocking.sti = false;
    core.state.blocking.mov_ss = false;
    if resumed {
        // Without other events, a repeated instruction that a page fault interrupted goes on by
        // whole pages.
        core.refresh();
    }
    // SAFETY: `block` was found since the run loop last freed blocks, and only the run loop frees
    // any.
    #[allow(unsafe_code)]
    let block = unsafe { &*block };
    core.stats.blocks += 1;
    core.mmu.begin();
    core.state.gpr[x86::state::gpr::BLOCK_IP] = core.state.rip;
    let op = &block.ops[0];
    let step = (op.run.get())(core, op);
    match step {
        Step::Fault | Step::FaultHere => {
            match step {
                Step::Fault => fault(core, op),
                _ => fault_here(core),
            }
            if matches!(core.exit, Some(Exit::Absent(_))) {
                // It has not begun.
                core.state.blocking = blocking;
                core.state.flags.system |= if resumed { Rflags::RF.bits() } else { 0 };
                core.refresh();
            }
            return;
        }
        Step::Next => core.state.rip = core.next_ip(op),
        Step::Again if resumed => core.state.flags.system |= Rflags::RF.bits(),
        _ => {}
    }
    if step != Step::Again {
        core.instructions += 1;
    }
    core.refresh();
    // MOV SS holds traps back for one instruction.
    let trapped = stepping && (op.rep != OWN_STEP || step == Step::Next);
    let hits = std::mem::take(&mut core.data_hits);
    if core.state.blocking.mov_ss {
        core.data_hits = hits;
        return;
    }
    let dr6 = hits | if trapped { debug::BS } else { 0 };
    if dr6 != 0 && core.state.activity != Activity::Shutdown {
        resume_flag(core);
        deliver(core, Event::Exception(Exception::db(dr6)));
    }
}
