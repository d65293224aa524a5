//! Line editing: bytes from the terminal become lines (VT100 and readline's customary keys).

use crate::console::send;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

const HISTORY: usize = 32;
const LONGEST: usize = 200;

/// Where in an escape sequence the input is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    /// ESC [ or ESC O, and the number so far.
    Sequence(u8),
}

/// The line being typed, and the lines that wait for a reader.
#[derive(Default)]
pub struct Lines {
    text: Vec<u8>,
    cursor: usize,
    escape: Escape,
    history: Vec<String>,
    /// Which line of the history is shown; its length: the new one.
    shown: usize,
    ready: VecDeque<String>,
    /// Ctrl-C came in.
    pub interrupted: bool,
    /// The shell's prompt is on the screen, and a line is being typed after it.
    pub prompting: bool,
}

impl Lines {
    pub fn first(&self) -> Option<&String> {
        self.ready.front()
    }

    pub fn take(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// One byte from the terminal.
    pub fn feed(&mut self, byte: u8) {
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Sequence(0),
            (Escape::Begun, _) => self.escape = Escape::None,
            (Escape::Sequence(n), b'0'..=b'9') => {
                self.escape = Escape::Sequence(n.wrapping_mul(10).wrapping_add(byte - b'0'));
            }
            (Escape::Sequence(n), _) => {
                self.escape = Escape::None;
                self.sequence(n, byte);
            }
            (Escape::None, _) => self.key(byte),
        }
    }

    fn sequence(&mut self, number: u8, last: u8) {
        match (last, number) {
            (b'A', _) => self.show(self.shown.saturating_sub(1)),
            (b'B', _) => self.show(self.shown + 1),
            (b'C', _) => self.go_to(self.cursor + 1),
            (b'D', _) => self.go_to(self.cursor.saturating_sub(1)),
            (b'H', _) | (b'~', 1 | 7) => self.go_to(0),
            (b'F', _) | (b'~', 4 | 8) => self.go_to(self.text.len()),
            (b'~', 3) => self.delete(self.cursor..self.cursor + 1),
            _ => {}
        }
    }

    fn key(&mut self, byte: u8) {
        let (cursor, end) = (self.cursor, self.text.len());
        match byte {
            b'\r' | b'\n' => self.enter(),
            0x1B => self.escape = Escape::Begun,
            0x03 => self.interrupt(),
            0x01 => self.go_to(0),
            0x05 => self.go_to(end),
            0x02 => self.go_to(cursor.saturating_sub(1)),
            0x06 => self.go_to(cursor + 1),
            0x10 => self.show(self.shown.saturating_sub(1)),
            0x0E => self.show(self.shown + 1),
            0x04 => self.delete(cursor..cursor + 1),
            0x08 | 0x7F => self.delete(cursor.saturating_sub(1)..cursor),
            0x0B => self.delete(cursor..end),
            0x15 => self.delete(0..cursor),
            0x17 => self.delete(self.word_start()..cursor),
            0x0C => print!("\x1b[2J\x1b[H"),
            0x20..=0x7E if end < LONGEST => self.insert(byte),
            _ => {}
        }
    }

    fn word_start(&self) -> usize {
        let before = &self.text[..self.cursor];
        let word = before.iter().rposition(|&b| b != b' ').map_or(0, |i| i + 1);
        before[..word].iter().rposition(|&b| b == b' ').map_or(0, |i| i + 1)
    }

    fn enter(&mut self) {
        print!("\n");
        let line = String::from_utf8_lossy(&self.text).into_owned();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == HISTORY {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        self.clear();
        self.ready.push_back(line);
    }

    fn interrupt(&mut self) {
        print!("^C\n");
        self.clear();
        self.interrupted = true;
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.shown = self.history.len();
    }

    fn insert(&mut self, byte: u8) {
        self.text.insert(self.cursor, byte);
        send(&self.text[self.cursor..]);
        self.cursor += 1;
        back(self.text.len() - self.cursor);
    }

    fn delete(&mut self, range: core::ops::Range<usize>) {
        let range = range.start..range.end.min(self.text.len());
        if range.start >= range.end {
            return;
        }
        self.go_to(range.start);
        self.text.drain(range);
        send(&self.text[self.cursor..]);
        send(b"\x1b[K");
        back(self.text.len() - self.cursor);
    }

    fn go_to(&mut self, position: usize) {
        let position = position.min(self.text.len());
        if position < self.cursor {
            back(self.cursor - position);
        } else {
            send(&self.text[self.cursor..position]);
        }
        self.cursor = position;
    }

    /// Another line of the history in place of the one being typed.
    fn show(&mut self, which: usize) {
        if which > self.history.len() {
            return;
        }
        self.delete(0..self.text.len());
        self.text =
            self.history.get(which).map(|line| line.clone().into_bytes()).unwrap_or_default();
        self.shown = which;
        send(&self.text);
        self.cursor = self.text.len();
    }

    /// Something else is to be printed: takes prompt and line off the screen.
    pub fn hide(&self) {
        if self.prompting {
            print!("\r\x1b[K");
        }
    }

    /// Puts them back.
    pub fn unhide(&self) {
        if self.prompting {
            print!("{}", crate::shell::PROMPT);
            send(&self.text);
            back(self.text.len() - self.cursor);
        }
    }
}

fn back(columns: usize) {
    if columns > 0 {
        print!("\x1b[{columns}D");
    }
}
