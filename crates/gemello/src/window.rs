//! The size of the user's window, told to the guest whenever it changes.
//!
//! The guest's init reads lines `ROWS COLS` on the second serial line, from when it has said
//! that it is ready (`debian/init.sh`).

use crate::input::Gate;
use crate::terminal;
use machine::console::Input;
use machine::{End, Notifier};
use rustix::fd::BorrowedFd;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

static CHANGED: AtomicBool = AtomicBool::new(false);
static NOTIFIER: OnceLock<Notifier> = OnceLock::new();

/// The window may have another size: SIGWINCH, or back from the background.
pub(crate) fn changed() {
    CHANGED.store(true, Ordering::SeqCst);
    if let Some(notifier) = NOTIFIER.get() {
        notifier.notify();
    }
}

/// Notifies this at each change.
pub(crate) fn notify_through(notifier: Notifier) {
    let _ = NOTIFIER.set(notifier);
}

/// The second serial line's input. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    ready: Gate,
    state: Arc<Mutex<WindowState>>,
}

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
        CHANGED.store(true, Ordering::SeqCst); // look once when it is ready
        Self { ready, state: Arc::new(Mutex::new(state)) }
    }

    /// Another guest begins, which knows no size that it can be sure of.
    pub(crate) fn begin_anew(&self) {
        *sync::lock(&self.state) = WindowState::default();
        CHANGED.store(true, Ordering::SeqCst);
    }

    /// What is saved with the machine.
    pub(crate) fn state(&self) -> WindowState {
        sync::lock(&self.state).clone()
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
        let mut state = sync::lock(&self.state);
        if self.ready.is_open() && CHANGED.swap(false, Ordering::SeqCst) {
            state.look(terminal::window());
        }
        let count = room.min(state.line.len());
        state.line.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_size_is_a_line_however_little_room_there_is() {
        let mut window = Window::new(WindowState::told((24, 80)), Gate::closed());
        let mut state = sync::lock(&window.state);
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
            window = Window::new(window.state(), Gate::closed()); // saved and restored
        }
        assert!(pieces.iter().all(|piece| piece.len() <= 4));
        assert_eq!(pieces.concat(), b"50 132\n24 80\n");
    }
}
