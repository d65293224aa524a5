//! **The run loop**: a processor runs until something needs the machine, and the machine sees to
//! it.
//!
//! ```text
//!            ┌──────────────── kick, slice over ─────────────┐
//!            ▼                                               │
//!   Vcpu::run(io) ──► Exit ─┬─ Halted ──► parked ────────────┤
//!            ▲              ├─ Reset ───► INIT, SIPI ────────┘
//!            │              └─ Shutdown, Fatal ──► End
//!   the scheduler's turn: crates/sched
//! ```
//! A pool of worker threads runs the processors ([`sched::Pool`]); the I/O thread serves timers and
//! consoles beside them. A deterministic machine's processors are one task, which does that itself
//! ([`crate::deterministic`]).

use crate::board::Board;
use crate::console::Pump;
use crate::control::Phase;
use crate::crew::Crew;
use crate::deterministic::Turns;
use crate::end::End;
use crate::io_thread::{EventLoop, Feed};
use crate::machine::Machine;
use crate::processor::Processor;
use crate::stats::{ProcessorStats, Stats};
use crate::task::ProcessorTask;
use crate::virtio::Slotted;
use devices::virtio::console::ConsolePort;
use devices::virtio::net::Watch;
use memory::Pager;
use sched::{Pool, QUANTUM, Usage};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use sync::lock;
use vcpu::StateError;

/// How long a console that takes nothing may hold up the end of a run that the user ended.
const PATIENCE: Duration = Duration::from_millis(500);

impl Machine {
    /// Runs the machine until it ends: its processors on its pool's workers, I/O on a thread of its
    /// own.
    pub fn run(&mut self) -> End {
        let began = Instant::now();
        let board = Arc::clone(&self.board);
        let feeds = std::mem::take(&mut self.feeds);
        self.feeds = match board.clock.instructions() {
            Some(_) => self.run_counted(feeds),
            None => self.run_timed(feeds, began),
        };
        board.stop_time();
        let end = board.control.ended().unwrap_or(End::Interrupted);
        self.finish_output(&end);
        let end = self.or_memory_lost(self.or_lost(self.or_panic(end)));
        *lock(&board.wall) += began.elapsed();
        end
    }

    /// Runs it by the host's time.
    fn run_timed(&self, feeds: Vec<Feed>, began: Instant) -> Vec<Feed> {
        let board = &self.board;
        let service = EventLoop {
            notifier: board.notifier.clone(),
            clock: board.clock.clone(),
            timers: board.timers.clone(),
            feeds,
            stopper: self.stopper(),
            serving: Arc::clone(&board.serving),
            deadline: self.timeout.map(|limit| began + limit),
            busy: false,
        };
        let owner = self.stopper().owner();
        thread::scope(|scope| {
            let refused = |error| board.control.stop(End::no_thread(&error));
            let serve = move || {
                let _counted = owner.count_thread();
                owner.run(|| service.run()).unwrap_or_default()
            };
            let io = named("I/O").spawn_scoped(scope, serve).map_err(&refused);
            if io.is_ok() {
                self.start(|crew| self.add_processors(crew)).unwrap_or_else(refused);
            }
            board.control.wait_for_end();
            board.finish();
            io.map(|io| io.join().unwrap_or_default()).unwrap_or_default()
        })
    }

    /// Runs it by its own time.
    fn run_counted(&self, feeds: Vec<Feed>) -> Vec<Feed> {
        let board = &self.board;
        let feeds = Arc::new(Mutex::new(feeds));
        let turns = Turns::new(board, &feeds, self.timeout, self.stopper().owner());
        let signals = turns.signals();
        self.start(|crew| crew.add(Box::new(turns), &signals))
            .unwrap_or_else(|error| board.control.stop(End::no_thread(&error)));
        board.control.wait_for_end();
        board.finish();
        std::mem::take(&mut *lock(&feeds))
    }

    fn add_processors(&self, crew: &Crew) {
        let board = &self.board;
        let several = board.processors.len() > 1;
        for (number, processor) in board.processors.iter().enumerate() {
            let signals = {
                let mut processor = lock(processor);
                processor.io.rivals = several.then(|| crew.group.rivals());
                Arc::clone(&processor.signals)
            };
            let owner = self.stopper().owner();
            let task = ProcessorTask { board: Arc::clone(board), number, owner };
            crew.add(Box::new(task), &signals);
        }
    }

    /// Has time go on, and what `add` adds, unless the machine is paused.
    fn start(&self, add: impl FnOnce(&Crew)) -> io::Result<()> {
        let board = &self.board;
        let own = || Pool::new(sched::workers(None, self.tasks()), QUANTUM);
        let pool = self.pool.clone().map_or_else(own, Ok)?;
        let service = board.control.service.clone();
        let group = pool.enlist(self.share);
        group.charge_for(move || service.total());
        let crew = Arc::new(Crew::new(group));
        let _turn = lock(&board.commands);
        board.control.begin(&crew);
        if board.control.phase() != Phase::Paused {
            board.start_time();
        }
        add(&crew);
        Ok(())
    }

    /// Whatever a guest does whose memory is lost, that is why.
    fn or_memory_lost(&self, end: End) -> End {
        self.board.ram.lost().map_or(end, |why| End::MemoryLost(why.into()))
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
        let go_on = match self.clock.instructions() {
            None => Processor::go_on,
            // It was not away in its own time.
            Some(_) => Processor::follow_clock,
        };
        self.processors.iter().for_each(|processor| go_on(&mut lock(processor)));
        self.virtio.iter().for_each(Slotted::resume);
        self.notifier.notify();
    }

    /// Has time and devices stand still, so that memory does. No processor runs.
    pub(crate) fn stop_time(&self) {
        self.virtio.iter().for_each(Slotted::pause);
        self.clock.stop();
    }

    /// The machine has ended: takes its processors from their workers.
    fn finish(&self) {
        let crew = self.control.crew();
        self.control.finish();
        crew.inspect(|crew| *lock(&self.usage) = crew.usage());
        self.virtio.iter().for_each(Slotted::leave);
    }

    /// The counters up to now. No processor runs.
    pub(crate) fn counters(&self) -> Stats {
        let crew = self.control.crew();
        let mut usage = crew.map_or_else(|| lock(&self.usage).clone(), |crew| crew.usage());
        usage.resize(self.processors.len(), Usage::default());
        let processor = |(p, usage): (&Mutex<Processor>, Usage)| {
            let p = lock(p);
            let (engine, exits, busy) = (p.vcpu.statistics(), p.exits.clone(), p.busy);
            let async_faults = p.io.paravirt.async_faults();
            ProcessorStats { engine, exits, async_faults, busy, usage }
        };
        let processors = self.processors.iter().zip(usage).map(processor).collect();
        Stats {
            wall: *lock(&self.wall),
            processors,
            paging: self.pager.as_ref().map(Pager::stats),
            shares: self.virtio.iter().filter_map(Slotted::share_stats).collect(),
            ports: self.virtio.iter().flat_map(Slotted::ports).map(ConsolePort::stats).collect(),
            service: self.control.service.total(),
            net: self.watch().map(Watch::stats),
            unclaimed: self.bus.unclaimed(),
        }
    }

    /// Each processor's state as it begins.
    pub(crate) fn begin(&self, boot: &x86::state::CpuState) -> Result<(), StateError> {
        self.processors.iter().try_for_each(|processor| lock(processor).begin(boot))
    }
}
