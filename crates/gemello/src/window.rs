//! The size of the user's window, told to the guest whenever it changes.
//!
//! The guest's init reads lines `ROWS COLS` on the second serial line, from when it has said
//! that it is ready (`debian/init.sh`).

use crate::input::Gate;
use crate::terminal;
use machine::console::Input;
use machine::{End, Notifier};
use rustix::fd::BorrowedFd;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The second serial line's input.
#[derive(Debug)]
pub(crate) struct Window {
    ready: Gate,
    /// What the guest believes.
    told: (u16, u16),
    line: VecDeque<u8>,
}

impl Window {
    /// For a guest that was `told` this size, and hears of others once it is `ready`.
    pub(crate) fn new(told: (u16, u16), ready: Gate) -> Self {
        CHANGED.store(true, Ordering::SeqCst); // look once when it is ready
        Self { ready, told, line: VecDeque::new() }
    }

    fn look(&mut self, (rows, cols): (u16, u16)) {
        if self.told != (rows, cols) {
            self.told = (rows, cols);
            self.line.extend(format!("{rows} {cols}\n").bytes());
        }
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
        if self.ready.is_open() && CHANGED.swap(false, Ordering::SeqCst) {
            self.look(terminal::window());
        }
        let count = room.min(self.line.len());
        self.line.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_size_is_a_line_however_little_room_there_is() {
        let mut window = Window::new((24, 80), Gate::closed());
        window.look((24, 80));
        window.look((50, 132));
        window.look((50, 132));
        window.look((24, 80));
        let pieces: Vec<_> =
            std::iter::from_fn(|| Some(window.take(4)).filter(|piece| !piece.is_empty())).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= 4));
        assert_eq!(pieces.concat(), b"50 132\n24 80\n");
    }
}
