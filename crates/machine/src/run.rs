//! **The run loop**: a processor runs until something needs the machine, and the machine sees to it.
//!
//! ```text
//!            ┌────────────── kick, budget ───────────────┐
//!            ▼                                           │
//!   Vcpu::run(io) ──► Exit ─┬─ Halted ──► Signals::wait ─┤
//!            ▲              ├─ Reset ───► INIT, SIPI ────┘
//!            │              └─ Shutdown, Fatal ──► End
//!        ended? ──► End
//! ```
//! Each processor has its thread; the I/O thread serves timers and consoles beside them.

use crate::build::{Machine, Processor};
use crate::io_thread::EventLoop;
use crate::power::{End, Stopper};
use crate::report;
use crate::reset;
use devices::virtio::VirtioMmio;
use memory::GuestRam;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};
use vcpu::{Budget, Exit, Signal};
use x86::regs::Rflags;
use x86::state::Activity;

/// How long a console that takes nothing may hold up the end of a run that the user ended.
const PATIENCE: Duration = Duration::from_millis(500);

impl Machine {
    /// Runs the machine until it ends, with its processors and I/O on threads of their own.
    pub fn run(&mut self) -> End {
        let began = Instant::now();
        self.start_clock();
        let service = EventLoop {
            bell: self.bell.clone(),
            clock: self.clock.clone(),
            timers: self.timers.clone(),
            feeds: std::mem::take(&mut self.feeds),
            stopper: self.stopper.clone(),
            deadline: self.timeout.map(|limit| began + limit),
        };
        self.each_disk(VirtioMmio::resume);
        let (processors, ram, stopper) = (&mut self.processors, &self.ram, &self.stopper);
        self.feeds = thread::scope(|scope| {
            let io = scope.spawn(|| service.run());
            for processor in processors {
                scope.spawn(move || processor.run_until_end(ram, stopper));
            }
            io.join().unwrap_or_default()
        });
        self.each_disk(VirtioMmio::pause);
        self.clock.stop();
        let end = self.stopper.ended().unwrap_or(End::Interrupted);
        self.finish_output(&end);
        self.wall += began.elapsed();
        end
    }

    /// Starts time, and tells the processors what that does to their TSC.
    fn start_clock(&mut self) {
        let change = self.clock.start();
        for Processor { vcpu, .. } in &mut self.processors {
            let mut state = vcpu.state().clone();
            state.tsc_offset = state.tsc_offset.wrapping_add(change);
            vcpu.set_state(&state);
        }
    }

    /// A machine that does not run has disks that do not either: its memory stands still.
    fn each_disk(&self, change: impl Fn(&mut VirtioMmio)) {
        for disk in &self.disks {
            change(&mut disk.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Lets the consoles' last words out.
    fn finish_output(&self, end: &End) {
        let limit = match end {
            End::OutputClosed => Some(Duration::ZERO),
            End::Interrupted | End::TimedOut => Some(PATIENCE),
            _ => None,
        };
        for pump in &self.pumps {
            pump.drain(limit);
        }
    }
}

impl Processor {
    /// Runs this processor until the machine's run ends.
    fn run_until_end(&mut self, ram: &GuestRam, stopper: &Stopper) {
        // A panic here is a defect of gemello's, which must not leave the machine running without this processor.
        let _guard = StopOnPanic(stopper);
        while !stopper.is_ended() {
            let entered = Instant::now();
            let exit = self.vcpu.run(&mut self.io, Budget::UNLIMITED);
            self.busy += entered.elapsed();
            self.exits.count(&exit);
            match exit {
                Exit::BudgetSpent | Exit::Kicked => {}
                Exit::Halted => self.sleep(),
                Exit::Reset => self.reset(),
                Exit::Shutdown => {
                    stopper.stop(End::TripleFault(report::triple_fault(self.vcpu.state(), ram)));
                }
                Exit::Fatal(text) => {
                    let state = report::registers(self.vcpu.state());
                    stopper.stop(End::EngineFailed(format!("{text}\n{state}")));
                }
            }
        }
        self.signals.clear(Signal::Kick);
    }

    /// Waits for what ends the processor's halt: HLT with interrupts masked ends only by NMI, INIT or a kick, and
    /// the wait for a start-up IPI by nothing else (SDM vol. 3, 9.4.4).
    fn sleep(&self) {
        let state = self.vcpu.state();
        let mut mask = Signal::Kick as u32 | Signal::Init as u32;
        match state.activity {
            Activity::WaitForSipi => mask |= Signal::Sipi as u32,
            _ if state.flags.has(Rflags::IF) => mask |= Signal::Nmi as u32 | Signal::Intr as u32,
            _ => mask |= Signal::Nmi as u32,
        }
        self.signals.wait(mask, None);
    }

    /// INIT and start-up IPIs.
    fn reset(&mut self) {
        if self.signals.is_raised(Signal::Init) {
            self.signals.clear(Signal::Init);
            self.io.lapic.init();
            let bootstrap = self.io.lapic.id() == 0;
            self.vcpu.set_state(&reset::after_init(self.vcpu.state(), bootstrap));
        } else if let Some(page) = self.io.lapic.take_sipi()
            && let Some(state) = reset::after_sipi(self.vcpu.state(), page)
        {
            self.vcpu.set_state(&state);
        }
    }
}

/// Ends the run if the thread that holds it panics.
struct StopOnPanic<'a>(&'a Stopper);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(End::EngineFailed("a processor's thread panicked".into()));
        }
    }
}
