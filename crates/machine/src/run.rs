//! **The run loop**: a processor runs until something needs the machine, and the machine sees to
//! it.
//!
//! ```text
//!            ┌──────────────── kick, slice over ─────────────┐
//!            ▼                                               │
//!   Vcpu::run(io) ──► Exit ─┬─ Halted ──► Signals::wait ─────┤
//!            ▲              ├─ Reset ───► INIT, SIPI ────────┘
//!            │              └─ Shutdown, Fatal ──► End
//!   ended, paused? ──► Control::enter
//! ```
//! Each processor has its thread; the I/O thread serves timers and consoles beside them.

use crate::board::Board;
use crate::console::Pump;
use crate::control::{Control, Phase};
use crate::end::End;
use crate::io_thread::EventLoop;
use crate::machine::Machine;
use crate::processor::{Processor, Turn};
use crate::stats::{ProcessorStats, Stats};
use memory::Pager;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use sync::lock;
use vcpu::{Slice, StateError};

/// How long a console that takes nothing may hold up the end of a run that the user ended.
const PATIENCE: Duration = Duration::from_millis(500);

impl Machine {
    /// Runs the machine until it ends, with its processors and I/O on threads of their own.
    pub fn run(&mut self) -> End {
        let began = Instant::now();
        let board = Arc::clone(&self.board);
        let service = EventLoop {
            notifier: board.notifier.clone(),
            clock: board.clock.clone(),
            timers: board.timers.clone(),
            feeds: std::mem::take(&mut self.feeds),
            stopper: self.stopper(),
            serving: Arc::clone(&board.serving),
            deadline: self.timeout.map(|limit| began + limit),
        };
        board.control.begin(board.processors.len());
        if board.control.phase() != Phase::Paused {
            board.start_time();
        }
        self.feeds = thread::scope(|scope| {
            let stopper = self.stopper();
            let refused = |error: io::Error| {
                let what = "it has no thread left; raise the limits (ulimit -u, -v)";
                stopper.stop(End::NotStarted(format!("{what}: {error}")));
            };
            let io = named("I/O").spawn_scoped(scope, || service.run()).map_err(&refused);
            for processor in &board.processors {
                let board = &*board;
                // Whether it comes to run or not, it leaves.
                let leave = Leave(&board.control);
                let work = move || drive(board, processor, leave);
                if let Err(error) = named("processor").spawn_scoped(scope, work) {
                    refused(error);
                }
            }
            io.map(|io| io.join().unwrap_or_default()).unwrap_or_default()
        });
        board.stop_time();
        let end = board.control.ended().unwrap_or(End::Interrupted);
        self.finish_output(&end);
        let end = self.or_lost(self.or_panic(end));
        *lock(&board.wall) += began.elapsed();
        end
    }

    /// A guest that ends as one whose kernel panicked, and has said so, has panicked.
    fn or_panic(&self, end: End) -> End {
        match end {
            End::Reset | End::TripleFault(_) | End::TimedOut => {
                self.pumps.iter().find_map(Pump::panic).map_or(end, End::GuestPanic)
            }
            _ => end,
        }
    }

    /// A guest that came to its own end while the host did not take its last words has not
    /// succeeded.
    fn or_lost(&self, end: End) -> End {
        let failed = |lost: &End| matches!(lost, End::OutputFailed(_));
        match end {
            End::PowerOff | End::Reset | End::DebugExit(_) => {
                self.pumps.iter().filter_map(Pump::lost).find(failed).unwrap_or(end)
            }
            _ => end,
        }
    }

    /// Lets the consoles' last words out.
    fn finish_output(&self, end: &End) {
        let limit = match end {
            End::OutputClosed | End::OutputFailed(_) => Some(Duration::ZERO),
            End::Interrupted | End::TimedOut => Some(PATIENCE),
            _ => None,
        };
        for pump in &self.pumps {
            pump.drain(limit);
        }
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.into())
}

impl Board {
    /// Lets time and devices go on. No processor runs.
    pub(crate) fn start_time(&self) {
        self.clock.start();
        self.processors.iter().for_each(|processor| lock(processor).follow_clock());
        self.virtio.iter().for_each(|device| device.lock().resume());
        self.notifier.notify();
    }

    /// Has time and devices stand still, so that memory does. No processor runs.
    pub(crate) fn stop_time(&self) {
        self.virtio.iter().for_each(|device| device.lock().pause());
        self.clock.stop();
    }

    /// The counters up to now. No processor runs.
    pub(crate) fn counters(&self) -> Stats {
        let processor = |p: &Mutex<Processor>| {
            let p = lock(p);
            ProcessorStats { engine: p.vcpu.statistics(), exits: p.exits.clone(), busy: p.busy }
        };
        let processors = self.processors.iter().map(processor).collect();
        Stats {
            wall: *lock(&self.wall),
            processors,
            paging: self.pager.as_ref().map(Pager::stats),
            unclaimed: self.bus.unclaimed(),
        }
    }

    /// Each processor's state as it begins.
    pub(crate) fn begin(&self, boot: &x86::state::CpuState) -> Result<(), StateError> {
        self.processors.iter().try_for_each(|processor| lock(processor).begin(boot))
    }
}

/// Runs one processor until the machine ends.
fn drive(board: &Board, processor: &Mutex<Processor>, leave: Leave<'_>) {
    // A panic here is a defect of gemello's, which must not leave the machine running without this
    // processor.
    let _guard = leave;
    while board.control.enter() {
        let mut running = lock(processor);
        match running.turn(Slice::UNTIL_KICKED, &board.ram) {
            Turn::Again => {}
            Turn::Park(set) => {
                let signals = Arc::clone(&running.signals);
                drop(running);
                signals.wait(set, None);
            }
            Turn::Ended(end) => board.control.stop(end),
        }
    }
    lock(processor).signals.take_kicks();
}

/// The thread that holds it drives no processor any more; by a panic, the machine ends.
struct Leave<'a>(&'a Control);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(End::EngineFailed("a processor's thread panicked".into()));
        }
        self.0.leave();
    }
}
