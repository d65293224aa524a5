//! A deterministic machine's processors: in turn, each for so many instructions.
//!
//! The scheduler has all of them as one task, so they share a thread. Between two slices stands an
//! exact instruction: there timers expire and input is given, and nowhere else. A slice ends with
//! the quantum, where the soonest timer is due (even if that is set meanwhile), and when a line
//! takes input again ([`end_slice`]).
//!
//! While all processors are halted time jumps to the next deadline; as long as more input may come,
//! the host's time decides whether that is first.

use crate::board::Board;
use crate::clock::nanoseconds;
use crate::end::End;
use crate::io_thread::{self, Feed, Waited};
use crate::processor::Turn;
use devices::time::Clock as _;
use host::Owner;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sync::lock;
use vcpu::{Kick, Residence, Signals, Slice};
use x86::addr::VcpuId;

/// Instructions that a processor runs while others could.
const QUANTUM: u64 = 100_000;
/// How long the reader of the guest's output is waited for until the machine is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A timer is due before any that was known, or a line takes input again: whichever processor runs
/// has too long a slice.
pub(crate) fn end_slice(processors: &[Arc<Signals>]) {
    let running = |signals: &&Arc<Signals>| matches!(signals.residence(), Residence::Running(_));
    processors.iter().find(running).inspect(|signals| signals.kick(Kick::Quantum));
}

/// See the module.
pub(crate) struct Turns {
    board: Arc<Board>,
    /// The serial lines' inputs.
    feeds: Arc<Mutex<Vec<Feed>>>,
    /// What kicks the task.
    signals: Arc<Signals>,
    /// Those of each processor.
    processors: Vec<Arc<Signals>>,
    /// Which has the thread.
    current: usize,
    /// It knows that it has.
    arrived: bool,
    /// Instructions that its quantum has left.
    left: u64,
    /// Whom it wants to run instead.
    wanted: Option<usize>,
    /// VM time at which the machine ends.
    timeout: Option<u64>,
    /// Ends the machine where a turn panics: others of the process go on.
    owner: Owner,
}

impl Turns {
    /// The processors of `board`, which get what `feeds` take in; they end after `timeout`. A panic
    /// is told to `owner`.
    pub(crate) fn new(
        board: &Arc<Board>,
        feeds: &Arc<Mutex<Vec<Feed>>>,
        timeout: Option<Duration>,
        owner: Owner,
    ) -> Self {
        let signals = Arc::<Signals>::default();
        let notifier = board.notifier.clone();
        signals.set_interrupt(Arc::new(move |_| notifier.notify()));
        Self {
            processors: board.processors.iter().map(|p| Arc::clone(&lock(p).signals)).collect(),
            timeout: timeout.map(|limit| board.clock.now().saturating_add(nanoseconds(limit))),
            board: Arc::clone(board),
            feeds: Arc::clone(feeds),
            signals,
            current: 0,
            arrived: false,
            left: QUANTUM,
            wanted: None,
            owner,
        }
    }

    /// What kicks it.
    pub(crate) fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.signals)
    }

    /// One slice, or a jump in time. `Err`: the machine's end.
    fn step(&mut self) -> Result<(), End> {
        self.serve()?;
        match self.next() {
            Some(number) => self.run(number),
            None => self.idle(),
        }
    }

    /// Has timers expire that are due, and gives the guest its input.
    fn serve(&self) -> Result<(), End> {
        let now = self.board.clock.now();
        if self.timeout.is_some_and(|at| now >= at) {
            return Err(End::TimedOut);
        }
        self.board.timers.expire(now);
        let mut feeds = lock(&self.feeds);
        if io_thread::may_read(&feeds) {
            io_thread::wait(&self.board.notifier, &mut feeds, Some(Duration::ZERO))?;
        }
        for feed in feeds.iter_mut().filter(|feed| feed.is_wanted()) {
            // What the guest has said may open an input.
            self.wait_for_output();
            feed.offer();
        }
        Ok(())
    }

    fn wait_for_output(&self) {
        let written = || {
            let deadline = Instant::now() + LOOK;
            self.board.outputs.iter().all(|output| output.is_written_by(deadline))
        };
        while !written() && !self.board.control.is_over() {}
    }

    /// Which processor runs next: the one that does, while its quantum lasts; then round robin.
    fn next(&mut self) -> Option<usize> {
        let (count, current) = (self.processors.len(), self.current);
        if self.left > 0 && self.is_runnable(current) {
            return Some(current);
        }
        let others = (1..=count).map(|distance| (current + distance) % count);
        let order = self.wanted.take().into_iter().chain(others);
        order.into_iter().find(|&number| self.is_runnable(number))
    }

    fn is_runnable(&self, number: usize) -> bool {
        let Some(signals) = self.processors.get(number) else { return false };
        match signals.residence() {
            Residence::Parked(set) => !signals.park(set),
            Residence::Queued | Residence::Running(_) => true,
        }
    }

    fn run(&mut self, number: usize) -> Result<(), End> {
        self.switch_to(number).map_err(|why| End::EngineFailed(why.to_string()))?;
        let now = self.board.clock.now();
        let due = self.due().map_or(u64::MAX, |at| at.saturating_sub(now).max(1));
        let slice = Slice { instructions: self.left.min(due) };
        let turn = lock(&self.board.processors[number]).turn(slice, &self.board.ram);
        self.left = self.left.saturating_sub(self.board.clock.now().saturating_sub(now));
        match turn {
            Turn::Again => {}
            Turn::Yield(to) => {
                (self.left, self.wanted) = (0, to.map(|VcpuId(number)| number as usize));
            }
            Turn::Park(set) => {
                if self.processors[number].park(set) {
                    self.leave();
                }
            }
            Turn::Ended(end) => return Err(end),
        }
        Ok(())
    }

    fn switch_to(&mut self, number: usize) -> Result<(), vcpu::StateError> {
        if number != self.current || !self.arrived {
            self.leave();
            (self.current, self.arrived) = (number, true);
            lock(&self.board.processors[number]).arrives(Duration::ZERO)?;
            self.left = QUANTUM;
        }
        if self.left == 0 {
            self.left = QUANTUM;
        }
        Ok(())
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.arrived) {
            lock(&self.board.processors[self.current]).leaves();
        }
    }

    /// When the next thing happens by itself.
    fn due(&self) -> Option<u64> {
        [self.board.timers.next_deadline(), self.timeout].into_iter().flatten().min()
    }

    /// All processors wait.
    fn idle(&self) -> Result<(), End> {
        let (now, due) = (self.board.clock.now(), self.due());
        let mut feeds = lock(&self.feeds);
        let left = due.map(|at| Duration::from_nanos(at.saturating_sub(now)));
        let left = if io_thread::may_read(&feeds) { left } else { left.map(|_| Duration::ZERO) };
        self.signals.settle(Residence::Running(0));
        let waited = match self.signals.bits() {
            0 => io_thread::wait(&self.board.notifier, &mut feeds, left),
            _ => Ok(Waited::Called),
        };
        self.signals.settle(Residence::Queued);
        if waited? == Waited::Through
            && let Some(at) = due
        {
            self.board.clock.skip_to(at);
        }
        Ok(())
    }
}

impl sched::Task for Turns {
    fn turn(&mut self) -> sched::Turn {
        let board = Arc::clone(&self.board);
        if board.control.is_over() {
            return sched::Turn::Ended;
        }
        self.signals.take_kicks();
        let owner = self.owner.clone();
        match owner.run(|| self.step()) {
            Some(Ok(())) => sched::Turn::Again,
            Some(Err(end)) => {
                board.control.stop(end);
                sched::Turn::Ended
            }
            None => sched::Turn::Ended,
        }
    }
}
