//! A machine's console as several users see it: where its output goes at first, and whoever looks
//! on.
//!
//! The last of the output is kept for who comes later. A viewer that is slow loses output, and is
//! told: it holds up neither the machine nor others.
//!
//! Written to by the line's output thread, looked at by a thread for each viewer. Both locks are
//! leaves.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// Bytes of the output that are kept.
const RECENT: usize = 64 << 10;
/// Bytes that a viewer may be behind.
const BEHIND: usize = 1 << 20;
/// What a viewer sees in place of what it has lost.
const LOST: &[u8] = b"\r\n[gemello: some output is left out]\r\n";

/// A console. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    recent: VecDeque<u8>,
    viewers: Vec<Weak<Ahead>>,
    /// Each viewer has a copy; none is left once it is closed.
    looks: Option<Sender<Infallible>>,
    /// Ends with the last viewer; taken by who waits for that.
    all_gone: Option<Receiver<Infallible>>,
}

impl Default for Shared {
    fn default() -> Self {
        let (looks, all_gone) = mpsc::channel();
        let (recent, viewers) = (VecDeque::new(), Vec::new());
        Self { recent, viewers, looks: Some(looks), all_gone: Some(all_gone) }
    }
}

impl Shared {
    fn recent(&self) -> Vec<u8> {
        self.recent.iter().copied().collect()
    }
}

/// What a viewer has not seen yet.
#[derive(Debug, Default)]
struct Ahead {
    state: Mutex<AheadState>,
    changed: Condvar,
    _looks: Option<Sender<Infallible>>,
}

#[derive(Debug, Default)]
struct AheadState {
    bytes: VecDeque<u8>,
    closed: bool,
}

/// One who looks on. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Viewer(Arc<Ahead>);

impl Console {
    /// `place`, with a copy of what it takes for this console.
    pub(crate) fn beside(&self, place: Box<dyn Write + Send>) -> Box<dyn Write + Send> {
        Box::new(Copied { place, console: self.clone() })
    }

    /// Someone who sees the last of what was written, and all that will be.
    pub(crate) fn look(&self) -> Viewer {
        let mut shared = sync::lock(&self.0);
        let bytes = without_queries(&shared.recent()).into();
        let state = Mutex::new(AheadState { bytes, closed: shared.looks.is_none() });
        let (changed, looks) = (Condvar::new(), shared.looks.clone());
        let ahead = Arc::new(Ahead { state, changed, _looks: looks });
        shared.viewers.retain(|viewer| viewer.strong_count() > 0);
        shared.viewers.push(Arc::downgrade(&ahead));
        Viewer(ahead)
    }

    /// The last of what was written.
    pub(crate) fn recent(&self) -> Vec<u8> {
        sync::lock(&self.0).recent()
    }

    /// Nothing more will be written.
    pub(crate) fn close(&self) {
        let mut shared = sync::lock(&self.0);
        shared.looks = None;
        shared.viewers.iter().filter_map(Weak::upgrade).for_each(|viewer| viewer.close());
    }

    /// Waits until all who looked on when it was closed have gone, for `limit` at the most.
    pub(crate) fn wait_for_viewers(&self, limit: Duration) {
        let all_gone = sync::lock(&self.0).all_gone.take();
        let _ = all_gone.map(|all_gone| all_gone.recv_timeout(limit));
    }

    fn see(&self, bytes: &[u8]) {
        let mut shared = sync::lock(&self.0);
        push(&mut shared.recent, bytes, RECENT);
        shared.viewers.iter().filter_map(Weak::upgrade).for_each(|viewer| viewer.see(bytes));
    }
}

/// Appends `bytes`, and drops the oldest beyond `most`; whether there were any.
fn push(queue: &mut VecDeque<u8>, bytes: &[u8], most: usize) -> bool {
    let (older, newest) = bytes.split_at(bytes.len().saturating_sub(most));
    let over = (queue.len() + newest.len()).saturating_sub(most);
    queue.drain(..over);
    queue.extend(newest);
    over + older.len() > 0
}

impl Ahead {
    fn see(&self, bytes: &[u8]) {
        let mut state = sync::lock(&self.state);
        if push(&mut state.bytes, bytes, BEHIND) {
            // Half of it, so that this is not said for each byte that follows.
            state.bytes.drain(..BEHIND / 2);
            LOST.iter().rev().for_each(|&byte| state.bytes.push_front(byte));
        }
        self.changed.notify_all();
    }

    fn close(&self) {
        sync::lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

impl Viewer {
    /// Waits for output, and takes it. `None`: there will be none.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut state = sync::lock(&self.0.state);
        while state.bytes.is_empty() {
            if state.closed {
                return None;
            }
            state = sync::wait(&self.0.changed, state);
        }
        Some(state.bytes.drain(..).collect())
    }

    /// Looks no longer.
    pub(crate) fn leave(&self) {
        let mut state = sync::lock(&self.0.state);
        state.bytes.clear();
        state.closed = true;
        self.0.changed.notify_all();
    }
}

/// A place for output, and a console that sees the same.
struct Copied {
    place: Box<dyn Write + Send>,
    console: Console,
}

impl Write for Copied {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.place.write(bytes)?;
        self.console.see(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.place.flush()
    }
}

/// `bytes` without what a terminal would answer (ECMA-48: DA, DSR): the question is old, and its
/// answer would be typed.
fn without_queries(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let parameters = rest.strip_prefix(b"\x1b[");
        let end = parameters.and_then(|rest| rest.iter().position(u8::is_ascii_alphabetic));
        match (parameters, end) {
            (Some(inside), Some(at)) if matches!(inside.get(at), Some(b'n' | b'c')) => {
                rest = inside.get(at + 1..).unwrap_or_default();
            }
            _ => {
                kept.push(first);
                rest = after;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(console: &Console) -> Box<dyn Write + Send> {
        console.beside(Box::new(io::sink()))
    }

    #[test]
    fn who_comes_later_sees_the_last_of_it_and_all_that_follows() {
        let console = Console::default();
        let mut output = writer(&console);
        output.write_all(&[b'a'; RECENT]).expect("a sink");
        output.write_all(b"prompt\x1b[6n> ").expect("a sink");
        let (one, other) = (console.look(), console.look());
        output.write_all(b"typed\x1b[6n").expect("a sink");
        for viewer in [one, other] {
            let seen = viewer.next().expect("output");
            assert!(seen.len() <= RECENT + 20);
            assert!(seen.ends_with(b"aprompt> typed\x1b[6n"), "{:?}", seen.len());
        }
    }

    #[test]
    fn a_slow_viewer_loses_output_and_is_told() {
        let console = Console::default();
        let viewer = console.look();
        let mut output = writer(&console);
        for _ in 0..40 {
            output.write_all(&[b'x'; 100_000]).expect("a sink");
        }
        output.write_all(b"the end").expect("a sink");
        let seen = viewer.next().expect("output");
        assert!(seen.starts_with(LOST) && seen.ends_with(b"the end"));
        assert!(seen.len() <= BEHIND + LOST.len());
    }

    #[test]
    fn a_console_that_is_closed_is_read_to_its_end() {
        let console = Console::default();
        let viewer = console.look();
        writer(&console).write_all(b"bye").expect("a sink");
        console.close();
        assert_eq!(viewer.next().as_deref(), Some(&b"bye"[..]));
        assert_eq!(viewer.next(), None);
        let late = console.look();
        assert_eq!((late.next().as_deref(), late.next()), (Some(&b"bye"[..]), None));
        let gone = Console::default().look();
        gone.leave();
        assert_eq!(gone.next(), None);
    }

    #[test]
    fn who_looks_on_is_waited_for() {
        let console = Console::default();
        let (one, other) = (console.look(), console.look());
        let (told, tell) = mpsc::channel();
        let reads = std::thread::spawn(move || {
            drop(other);
            tell.recv().expect("it is closed");
            drop(one);
        });
        writer(&console).write_all(b"bye").expect("a sink");
        console.close();
        let late = console.look();
        told.send(()).expect("it waits");
        console.wait_for_viewers(Duration::MAX);
        drop(late);
        reads.join().expect("it has gone");
        let stuck = Console::default();
        let _looks = stuck.look();
        stuck.close();
        stuck.wait_for_viewers(Duration::from_millis(1));
    }

    #[test]
    fn only_questions_are_left_out() {
        for (written, kept) in [
            (&b"a\x1b[6nb"[..], &b"ab"[..]),
            (b"\x1b[31mred\x1b[0m\x1b[c\x1b[>0c", b"\x1b[31mred\x1b[0m"),
            (b"\x1b[", b"\x1b["),
            (b"\x1b[?12", b"\x1b[?12"),
            (b"\x1b\x1b[5nno\x1bnc", b"\x1bno\x1bnc"),
        ] {
            assert_eq!(without_queries(written), kept);
        }
    }
}
