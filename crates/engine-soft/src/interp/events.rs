//! Events between instructions: interrupts, NMIs, single step, breakpoints and halts (SDM vol. 3,
//! 6.9).

use super::deliver::{deliver, fault, fault_here, resume_flag};
use super::fetch::{self, Extent};
use crate::cpu::Cpu;
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
pub(crate) fn poll_events(cpu: &mut Cpu, limit: u64) -> Pending {
    if let Some(exit) = cpu.exit.take() {
        return Pending::Exit(exit);
    }
    if cpu.signals.is_raised(Signal::Changes) {
        // The flag is cleared before its cause is read: a later post raises it again.
        cpu.signals.clear(Signal::Changes);
    }
    if cpu.mmu.behind() {
        cpu.mmu.catch_up();
    }
    if cpu.state.activity == Activity::Shutdown {
        return Pending::Exit(Exit::Shutdown);
    }
    let raised = cpu.signals.bits();
    if raised != 0
        && let Some(pending) = signals(cpu, raised)
    {
        return pending;
    }
    if cpu.state.activity != Activity::Running {
        return Pending::Exit(Exit::Halted(SignalSet::waking(&cpu.state)));
    }
    if cpu.instructions >= limit {
        return Pending::Exit(Exit::SliceOver);
    }
    if !cpu.attention && limit - cpu.instructions > 1 {
        return Pending::Run;
    }
    let suppressed = cpu.state.blocking.mov_ss || cpu.state.flags.system & Rflags::RF.bits() != 0;
    if !suppressed && let Some(dr6) = debug::code_breakpoint(&cpu.state, La(linear_ip(cpu))) {
        deliver(cpu, Event::Exception(Exception::db(dr6)));
        return Pending::Again;
    }
    Pending::Step
}

fn linear_ip(cpu: &Cpu) -> u64 {
    if cpu.mode == Mode::Long64 {
        cpu.state.rip
    } else {
        cpu.state.seg[Seg::Cs as usize].base.wrapping_add(cpu.state.rip) & 0xffff_ffff
    }
}

/// Kicks, resets, NMI, interrupts.
fn signals(cpu: &mut Cpu, raised: u32) -> Option<Pending> {
    let up = |signal: Signal| raised & signal as u32 != 0;
    if up(Signal::Kick) {
        return Some(Pending::Exit(Exit::Kicked(cpu.signals.take_kicks())));
    }
    if up(Signal::Init) || up(Signal::Sipi) && cpu.state.activity == Activity::WaitForSipi {
        return Some(Pending::Exit(Exit::Reset));
    }
    if cpu.state.activity == Activity::WaitForSipi {
        return None;
    }
    let blocking = cpu.state.blocking;
    if up(Signal::Nmi) && !blocking.nmi && !blocking.mov_ss && !blocking.sti {
        cpu.signals.clear(Signal::Nmi);
        resume_flag(cpu);
        deliver(cpu, Event::Nmi);
        return Some(Pending::Again);
    }
    let open = cpu.state.flags.system & Rflags::IF.bits() != 0;
    if up(Signal::Intr) && open && !blocking.sti && !blocking.mov_ss {
        let vector = cpu.machine.io().and_then(vcpu::CpuIo::ack_interrupt)?;
        resume_flag(cpu);
        cpu.stats.interrupts += 1;
        tracing::trace!(target: "irq", vector = vector.0, rip = cpu.state.rip, "interrupt");
        deliver(cpu, Event::External(vector));
        return Some(Pending::Again);
    }
    None
}

/// Runs exactly one instruction, with the traps that follow it.
pub(crate) fn single_step(cpu: &mut Cpu) {
    if cpu.trace {
        crate::trace::instruction(cpu);
    }
    let Some(block) = fetch::block_at_rip(cpu, Extent::Instruction) else { return };
    let stepping = cpu.state.flags.system & Rflags::TF.bits() != 0;
    let resumed = cpu.state.flags.system & Rflags::RF.bits() != 0;
    cpu.state.flags.system &= !Rflags::RF.bits();
    cpu.mid_repeat = false;
    cpu.state.blocking.sti = false;
    cpu.state.blocking.mov_ss = false;
    if resumed {
        // Without other events, a repeated instruction that a page fault interrupted goes on by
        // whole pages.
        cpu.refresh();
    }
    // SAFETY: `block` was found since the run loop last freed blocks, and only the run loop frees
    // any.
    #[allow(unsafe_code)]
    let block = unsafe { &*block };
    cpu.stats.blocks += 1;
    cpu.state.gpr[x86::state::gpr::BLOCK_IP] = cpu.state.rip;
    let op = &block.ops[0];
    let step = (op.run.get())(cpu, op);
    match step {
        Step::Fault => {
            fault(cpu, op);
            return;
        }
        Step::FaultHere => {
            fault_here(cpu);
            return;
        }
        Step::Next => cpu.state.rip = cpu.next_ip(op),
        Step::Again if resumed => cpu.state.flags.system |= Rflags::RF.bits(),
        _ => {}
    }
    if step != Step::Again {
        cpu.instructions += 1;
    }
    cpu.refresh();
    // MOV SS holds traps back for one instruction.
    let trapped = stepping && (op.rep != OWN_STEP || step == Step::Next);
    let hits = std::mem::take(&mut cpu.data_hits);
    if cpu.state.blocking.mov_ss {
        cpu.data_hits = hits;
        return;
    }
    let dr6 = hits | if trapped { debug::BS } else { 0 };
    if dr6 != 0 && cpu.state.activity != Activity::Shutdown {
        resume_flag(cpu);
        deliver(cpu, Event::Exception(Exception::db(dr6)));
    }
}
