//! The window that a guest is seen through, and how the guest hears of its size.
//!
//! The agent is told on the second serial line: its job, where it asks for that, and from when it
//! has said that it is ready (`crates/agent/src/lines.rs`), lines `ROWS COLS` whenever the user's
//! window has another size, `clock` and `seed SEED` after a restore, `serve` when somebody wants
//! the agent, and `poweroff`. The driver of a virtio console hears of it from the device
//! ([`SeenThrough`]).

use crate::gate::Gate;
use crate::input::ConsoleInput;
use crate::terminal;
use agent_job::{Briefing, Seed};
use machine::console::{ConsoleSize, Input};
use machine::{End, Notifier};
use rustix::fd::BorrowedFd;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// The one that follows this program's own terminal.
static OWN: Mutex<Option<Window>> = Mutex::new(None);

/// This program's terminal may have another size: SIGWINCH, or back from the background.
pub(crate) fn changed() {
    if let Some(window) = &*sync::lock(&OWN) {
        window.look_again();
    }
}

/// The second serial line's input. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    ready: Gate,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The size may be another than the guest was told.
    changed: AtomicBool,
    /// The size where it is not that of this program's terminal.
    size: Mutex<Option<(u16, u16)>>,
    notifier: OnceLock<Notifier>,
    state: Mutex<WindowState>,
    /// When the agent was asked to answer at its port.
    asked: Mutex<Option<Instant>>,
    /// What is told an agent that asks for its job.
    job: OnceLock<Vec<u8>>,
    /// What it has not been told of that yet.
    briefing: Mutex<Vec<u8>>,
}

/// Until the agent is asked again to answer: a system that comes up may forget what was typed.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks the guest to power off.
const POWER_OFF: &[u8] = b"poweroff\n";

/// Has the agent answer at its port.
const SERVE: &[u8] = b"serve\n";

/// Has the guest set its clock, which has stood still, by its RTC.
const SET_CLOCK: &[u8] = b"clock\n";

/// What a guest knows of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WindowState {
    /// What it believes, once it has the rest of the line.
    pub(crate) told: (u16, u16),
    /// The rest of the line.
    pub(crate) line: Vec<u8>,
}

impl WindowState {
    /// That of a guest that was told this size.
    pub(crate) fn told(told: (u16, u16)) -> Self {
        Self { told, line: Vec::new() }
    }

    fn look(&mut self, (rows, cols): (u16, u16)) {
        if self.told != (rows, cols) {
            self.told = (rows, cols);
            self.line.extend(format!("{rows} {cols}\n").bytes());
        }
    }
}

impl Window {
    /// For a guest that knows what `state` says, and hears more once it is `ready`.
    pub(crate) fn new(state: WindowState, ready: Gate) -> Self {
        let shared = Shared {
            changed: AtomicBool::new(true), // look once when it is ready
            size: Mutex::new(None),
            notifier: OnceLock::new(),
            state: Mutex::new(state),
            asked: Mutex::new(None),
            job: OnceLock::new(),
            briefing: Mutex::default(),
        };
        Self { ready, shared: Arc::new(shared) }
    }

    /// From now on it follows this program's own terminal.
    pub(crate) fn follow(&self) {
        *sync::lock(&OWN) = Some(self.clone());
    }

    /// Notifies this when there is something to tell.
    pub(crate) fn notify_through(&self, notifier: Notifier) {
        let _ = self.shared.notifier.set(notifier);
    }

    /// The window has this size, whatever that of this program's terminal.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        *sync::lock(&self.shared.size) = Some(size);
        self.look_again();
    }

    /// Asks the guest to power off.
    pub(crate) fn power_off(&self) {
        self.say(POWER_OFF);
    }

    /// Tells a guest that goes on where it was saved what time it is, and random bytes, which no
    /// other that does so has.
    pub(crate) fn tell_of_restore(&self) {
        self.say(SET_CLOCK);
        if let Some(seed) = seed() {
            self.say(format!("{}{}\n", agent_job::SEED, seed.to_text()).as_bytes());
        }
    }

    /// An agent that asks for its job is told this one.
    pub(crate) fn know_job(&self, job: Vec<u8>) {
        let _ = self.shared.job.set(job);
    }

    /// The agent has asked for its job.
    pub(crate) fn tell_job(&self) {
        let job = self.shared.job.get().cloned().unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = seed().unwrap_or(Seed([0; 32]));
        *sync::lock(&self.shared.briefing) = Briefing { now, seed, job }.encode();
        self.look_again();
    }

    /// Has the agent answer at its port, if it does not yet.
    pub(crate) fn serve(&self) {
        let mut asked = sync::lock(&self.shared.asked);
        if asked.is_none_or(|at| at.elapsed() > AGAIN) {
            *asked = Some(Instant::now());
            self.say(SERVE);
        }
    }

    fn say(&self, line: &[u8]) {
        let mut state = sync::lock(&self.shared.state);
        // Who asks again before the guest has heard it asks once.
        if !state.line.ends_with(line) {
            state.line.extend(line);
        }
        drop(state);
        self.look_again();
    }

    fn look_again(&self) {
        self.shared.changed.store(true, Ordering::SeqCst);
        if let Some(notifier) = self.shared.notifier.get() {
            notifier.notify();
        }
    }

    /// Another guest begins, which knows no size that it can be sure of.
    pub(crate) fn begin_anew(&self) {
        *sync::lock(&self.shared.state) = WindowState::default();
        *sync::lock(&self.shared.asked) = None;
        sync::lock(&self.shared.briefing).clear();
        self.shared.changed.store(true, Ordering::SeqCst);
    }

    /// Its size, if that may be news.
    fn news(&self) -> Option<(u16, u16)> {
        let changed = self.shared.changed.swap(false, Ordering::SeqCst);
        changed.then(|| sync::lock(&self.shared.size).unwrap_or_else(terminal::window))
    }

    /// What is saved with the machine.
    pub(crate) fn state(&self) -> WindowState {
        sync::lock(&self.shared.state).clone()
    }
}

impl Input for Window {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read(&mut self) -> Result<(), End> {
        Ok(())
    }

    fn take(&mut self, room: usize) -> Vec<u8> {
        let mut briefing = sync::lock(&self.shared.briefing);
        if !briefing.is_empty() {
            let count = room.min(briefing.len());
            return briefing.drain(..count).collect();
        }
        drop(briefing);
        let mut state = sync::lock(&self.shared.state);
        if !self.ready.is_open() {
            return Vec::new();
        }
        if let Some(size) = self.news() {
            state.look(size);
        }
        let count = room.min(state.line.len());
        state.line.drain(..count).collect()
    }
}

/// Random bytes of the host's, if it gives any.
fn seed() -> Option<Seed> {
    let mut bytes = [0; 32];
    // So few come at once or not at all (getrandom(2)).
    rustix::io::retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty())).ok()?;
    Some(Seed(bytes))
}

/// The input of a virtio console, which has a window's size.
#[derive(Debug)]
pub(crate) struct SeenThrough {
    pub(crate) window: Window,
    pub(crate) input: ConsoleInput,
}

impl Input for SeenThrough {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        self.input.source()
    }

    fn read(&mut self) -> Result<(), End> {
        self.input.read()
    }

    fn take(&mut self, room: usize) -> Vec<u8> {
        self.input.take(room)
    }

    fn size(&mut self) -> Option<ConsoleSize> {
        self.window.news().map(|(rows, columns)| ConsoleSize { rows, columns })
    }

    fn has_ended(&self) -> bool {
        self.input.has_ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_size_is_a_line_however_little_room_there_is() {
        let mut window = Window::new(WindowState::told((24, 80)), Gate::opened());
        window.resize((24, 80));
        let mut state = sync::lock(&window.shared.state);
        for size in [(24, 80), (50, 132), (50, 132), (24, 80)] {
            state.look(size);
        }
        drop(state);
        let mut pieces = Vec::new();
        loop {
            let piece = window.take(4);
            if piece.is_empty() {
                break;
            }
            pieces.push(piece);
            window = Window::new(window.state(), Gate::opened()); // saved and restored
            window.resize((24, 80));
        }
        assert!(pieces.iter().all(|piece| piece.len() <= 4));
        assert_eq!(pieces.concat(), b"50 132\n24 80\n");
    }
}
