//! One processor of a machine, a turn at a time: the only thing that a scheduler needs to know.

use crate::cpu_io::ProcessorIo;
use crate::end::End;
use crate::init::{self, Role};
use crate::report;
use crate::stats::Exits;
use memory::GuestRam;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vcpu::{Elements, Exit, Kick, Signal, SignalSet, Signals, Slice, StateError, Vcpu};
use x86::addr::VcpuId;
use x86::regs::Rflags;
use x86::state::{Activity, CpuState};

/// What comes after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another turn, now or when it is this processor's time again.
    Again,
    /// It spins for what another processor has to do: others run first, and above all this one.
    Yield(Option<VcpuId>),
    /// Nothing, until one of these signals is up.
    Park(SignalSet),
    /// The machine's end.
    Ended(End),
}

/// One processor and its side of the machine.
pub(crate) struct Processor {
    pub(crate) vcpu: Box<dyn Vcpu>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) io: ProcessorIo,
    pub(crate) exits: Exits,
    pub(crate) busy: Duration,
}

impl Processor {
    /// Runs the processor until it needs the machine or `slice` is over, and does what it needs.
    pub(crate) fn turn(&mut self, slice: Slice, ram: &GuestRam) -> Turn {
        let entered = Instant::now();
        let exit = self.vcpu.run(&mut self.io, slice);
        self.busy += entered.elapsed();
        self.exits.count(&exit);
        // A run that is the same each time knows nothing of the host's time.
        let timed = slice.instructions == Slice::UNTIL_KICKED.instructions;
        if timed && matches!(&exit, Exit::Kicked(kicks) if kicks.has(Kick::Away)) {
            self.io.paravirt.was_stopped();
        }
        self.after(exit, ram).unwrap_or_else(|why| Turn::Ended(End::EngineFailed(why.to_string())))
    }

    fn after(&mut self, exit: Exit, ram: &GuestRam) -> Result<Turn, StateError> {
        Ok(match exit {
            Exit::SliceOver | Exit::Kicked(_) => {
                self.take_unhalt_signal();
                self.take_arrivals();
                let to = self.io.paravirt.take_yield();
                let spins = std::mem::take(&mut self.io.spins);
                if spins || to.is_some() { Turn::Yield(to) } else { Turn::Again }
            }
            Exit::Halted(_) if self.goes_on()? => Turn::Again,
            Exit::Halted(set) => Turn::Park(set),
            Exit::Absent(gpa) if self.io.arrivals.request(gpa) => Turn::Park(self.interrupting()?),
            Exit::Absent(_) => Turn::Again,
            Exit::Reset => {
                self.reset()?;
                Turn::Again
            }
            Exit::Shutdown => {
                let state = self.vcpu.state()?;
                Turn::Ended(End::TripleFault(report::triple_fault(&state, ram)))
            }
            Exit::Fatal(text) => {
                let state = report::registers(&self.vcpu.state()?);
                Turn::Ended(End::EngineFailed(format!("{text}\n{state}")))
            }
        })
    }

    /// Acts on INIT and start-up IPIs that have come while the processor stood still.
    pub(crate) fn take_resets(&mut self) -> Result<(), StateError> {
        while self.signals.is_raised(Signal::Init) || self.signals.is_raised(Signal::Sipi) {
            self.reset()?;
        }
        Ok(())
    }

    /// It is about to run, after it has waited for `waited` in all; before the first turn and after
    /// each [`Processor::leaves`].
    pub(crate) fn arrives(&mut self, waited: Duration) -> Result<(), StateError> {
        self.take_arrivals();
        if self.io.paravirt.arrives(waited) {
            let mut state = CpuState::reset();
            self.vcpu.get(Elements::CONTROL, &mut state)?;
            // Which drops what the TLB holds.
            self.vcpu.set(Elements::CONTROL, &state)?;
        }
        Ok(())
    }

    /// It runs no more until [`Processor::arrives`].
    pub(crate) fn leaves(&mut self) {
        self.io.paravirt.leaves();
    }

    /// The signal is no state of the processor's: it must not stay up while it runs.
    pub(crate) fn take_unhalt_signal(&mut self) {
        if self.signals.is_raised(Signal::Unhalt) {
            self.signals.clear(Signal::Unhalt);
            self.io.paravirt.unhalt();
        }
    }

    /// Tells the guest of pages that have come. The signal is no state of the processor's.
    fn take_arrivals(&mut self) {
        for page in self.io.arrivals.take() {
            self.io.paravirt.page_came(page);
        }
    }

    /// What a processor runs for that waits for a page: its arrival, and what would interrupt it.
    fn interrupting(&mut self) -> Result<SignalSet, StateError> {
        let mut state = CpuState::reset();
        self.vcpu.get(Elements::GENERAL | Elements::EVENTS, &mut state)?;
        let open = !state.blocking.sti && !state.blocking.mov_ss;
        state.flags.set(Rflags::IF, open && state.flags.has(Rflags::IF));
        Ok(SignalSet::waking(&state))
    }

    /// The processor has halted. Whether another has ended that by hypercall, and it goes on.
    fn goes_on(&mut self) -> Result<bool, StateError> {
        self.take_unhalt_signal();
        if !self.io.paravirt.is_unhalted() {
            return Ok(false);
        }
        let mut state = CpuState::reset();
        self.vcpu.get(Elements::EVENTS, &mut state)?;
        if state.activity != Activity::Halted {
            return Ok(false);
        }
        self.io.paravirt.halted();
        state.activity = Activity::Running;
        self.vcpu.set(Elements::EVENTS, &state)?;
        Ok(true)
    }

    /// INIT and start-up IPIs.
    fn reset(&mut self) -> Result<(), StateError> {
        if self.signals.is_raised(Signal::Init) {
            self.signals.clear(Signal::Init);
            self.signals.clear(Signal::Nmi);
            self.signals.clear(Signal::Unhalt);
            self.io.lapic.init();
            self.io.paravirt.init();
            let state = init::after_init(&self.vcpu.state()?, self.role());
            return self.vcpu.set(Elements::all(), &state);
        }
        let Some(page) = self.io.lapic.take_sipi() else { return Ok(()) };
        match init::after_sipi(&self.vcpu.state()?, page) {
            Some(state) => self.vcpu.set(Elements::all(), &state),
            None => Ok(()),
        }
    }

    /// The state with which the machine begins: that of the boot image for the bootstrap processor,
    /// the wait for a start-up IPI for others.
    pub(crate) fn begin(&mut self, boot: &CpuState) -> Result<(), StateError> {
        let state = match self.role() {
            Role::Bootstrap => boot.clone(),
            role @ Role::Application => init::after_init(&CpuState::reset(), role),
        };
        self.vcpu.set(Elements::all(), &state)?;
        self.vcpu.set_tsc_offset(self.io.tsc.offset());
        Ok(())
    }

    fn role(&self) -> Role {
        Role::of(self.io.lapic.id())
    }

    /// The machine goes on after it stood still.
    pub(crate) fn go_on(&mut self) {
        self.follow_clock();
        self.io.paravirt.was_stopped();
    }

    /// Time has been started, or set.
    pub(crate) fn follow_clock(&mut self) {
        self.vcpu.set_tsc_offset(self.io.tsc.offset());
    }
}
