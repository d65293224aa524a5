//! What becomes of faults and events: delivery through the IDT (SDM vol. 3, 6.9).

use crate::core::{Core, Op};
use crate::fault::AccessFault;
use vcpu::{Exit, Interruptible};
use x86::addr::Gpa;
use x86::exception::Exception;
use x86::interrupt::{self, Event};
use x86::regs::Rflags;
use x86::state::{Activity, Seg};

/// An interrupt or trap between the iterations of a string instruction pushes RF set (SDM vol. 3,
/// 18.3.1.1).
pub(super) fn resume_flag(core: &mut Core) {
    if std::mem::take(&mut core.mid_repeat) {
        core.state.flags.system |= Rflags::RF.bits();
    }
}

/// Delivers the exception of `op`, which has faulted, at its RIP; or leaves `run` there, if it
/// needs an absent page.
#[cold]
pub(crate) fn fault(core: &mut Core, op: &Op) {
    core.state.rip = core.ip(op);
    core.data_hits = 0;
    let on_stack = op.seg == Seg::Ss as u8;
    fail(core, if on_stack { core.fault.on_stack() } else { core.fault });
}

/// Delivers `Core::fault` with the state as it is: RIP could not be fetched, or an operation set
/// RIP itself.
#[cold]
pub(crate) fn fault_here(core: &mut Core) {
    fail(core, core.fault);
}

fn fail(core: &mut Core, fault: AccessFault) {
    match fault.exception() {
        Ok(exception) => {
            core.stats.exceptions[exception.vector.0 as usize & 31] += 1;
            deliver(core, Event::Exception(exception));
        }
        Err(page) => core.exit = Some(Exit::Absent(page)),
    }
}

/// The instruction at RIP needs the absent page at `gpa`: its guest is told by an asynchronous page
/// fault, or it leaves `run`.
pub(super) fn absent(core: &mut Core, gpa: Gpa) -> Option<Exit> {
    let guest = Interruptible::of(&core.state);
    let token = core.machine.io().and_then(|io| io.page_absent(gpa, guest));
    let Some(token) = token else { return Some(Exit::Absent(gpa)) };
    deliver(core, Event::Exception(Exception::pf(token, 0)));
    None
}

/// Delivers through the IDT. A fault during delivery ends in a double fault or in shutdown.
pub(crate) fn deliver(core: &mut Core, event: Event) {
    if let Event::Exception(e) = event {
        tracing::trace!(target: "exceptions", vector = e.vector.name().unwrap_or("?"),
            error_code = ?e.error_code, payload = format_args!("{:#x}", e.payload),
            rip = format_args!("{:#x}", core.state.rip), cpl = core.state.cpl, "exception");
    }
    core.mmu.ac = core.state.flags.system & Rflags::AC.bits() != 0;
    let (_, state, mut bus) = core.parts();
    if interrupt::deliver_or_escalate(state, &mut bus, event).is_err() {
        core.state.activity = Activity::Shutdown;
    }
    if let Some(why) = core.mmu.ram.lost() {
        // The event is what became of an access to it, or was delivered by such.
        core.exit = Some(Exit::Fatal(format!("guest memory is lost: {why}")));
    }
    core.state.blocking.sti = false;
    core.state.blocking.mov_ss = false;
    core.refresh();
}
