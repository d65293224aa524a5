//! Standard input as a serial line's input.

use crate::debian::quote::Quoter;
use crate::escape::{Escape, HELP, Wish};
use crate::handover::{self, Answers};
use crate::{again, save, terminal};
use machine::End;
use machine::console::Input;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Read ahead of the guest at the most: a pipe's writer is then held back.
const AHEAD: usize = 4096;

/// Bytes a terminal may be ahead of its guest; a terminal is always read, since Ctrl-A x must work
/// at any time.
const TYPED_AHEAD: usize = 64 << 10;

/// How standard input becomes what the guest receives.
#[derive(Debug)]
pub(crate) enum Form {
    /// A terminal in raw mode, with its escape key.
    Terminal(Escape),
    /// Bytes as they are; their end is no event for the guest.
    Bytes,
    /// A stream with an end, quoted for `init.sh`'s pipe mode.
    Stream(Quoter),
}

/// Lets input through once open. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// One that is open, and stays so.
    pub(crate) fn opened() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// One that lets nothing through yet.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Standard input.
#[derive(Debug)]
pub(crate) struct StandardInput {
    form: Form,
    gate: Gate,
    queue: VecDeque<u8>,
    ended: bool,
    answers: Answers,
}

impl StandardInput {
    /// In this form, held back until `gate` opens.
    pub(crate) fn new(form: Form, gate: Gate) -> Self {
        Self { form, gate, queue: VecDeque::new(), ended: false, answers: Answers::default() }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), End> {
        match &mut self.form {
            Form::Bytes => self.queue.extend(bytes),
            Form::Stream(quoter) => quoter.data(bytes, &mut self.queue),
            Form::Terminal(escape) => {
                handover::hear(&mut self.answers, bytes);
                let room = self.queue.len() < TYPED_AHEAD;
                let mut guest = Vec::new();
                for wish in escape.keys(bytes, &mut guest) {
                    match wish {
                        Wish::Help => terminal::tell(HELP),
                        Wish::Save => save::request(),
                        Wish::Reset => again::request(),
                        Wish::Quit => return Err(End::Interrupted),
                    }
                }
                if room {
                    self.queue.extend(guest);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), End> {
        self.ended = true;
        match &mut self.form {
            Form::Bytes => {}
            Form::Stream(quoter) => quoter.end(&mut self.queue),
            Form::Terminal(_) => return Err(End::Interrupted), // hung up
        }
        Ok(())
    }
}

impl Input for StandardInput {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        let read = matches!(self.form, Form::Terminal(_)) || self.queue.len() < AHEAD;
        (read && !self.ended).then(rustix::stdio::stdin)
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; AHEAD];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => self.end(),
            Ok(count) => self.data(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(error) => {
                tracing::debug!(target: "console", %error, "standard input");
                self.end()
            }
        }
    }

    fn take(&mut self, room: usize) -> Vec<u8> {
        if !self.gate.is_open() {
            return Vec::new();
        }
        let count = room.min(self.queue.len());
        self.queue.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_waits_for_the_gate_and_for_room() {
        let gate = Gate::closed();
        let mut input = StandardInput::new(Form::Bytes, gate.clone());
        input.data(b"hello").expect("no wish");
        assert!(input.take(3).is_empty());
        gate.open();
        assert_eq!(input.take(3), b"hel");
        assert_eq!(input.take(3), b"lo");
    }

    #[test]
    fn a_full_queue_stops_reading_but_never_the_escape_key() {
        let mut pipe = StandardInput::new(Form::Bytes, Gate::opened());
        pipe.data(&[0; AHEAD]).expect("no wish");
        assert!(pipe.source().is_none());
        pipe.take(1);
        assert!(pipe.source().is_some());
        let mut keys = StandardInput::new(Form::Terminal(Escape::default()), Gate::opened());
        keys.data(&[b'x'; TYPED_AHEAD]).expect("no wish");
        assert!(keys.source().is_some());
        assert_eq!(keys.data(b"\x01x"), Err(End::Interrupted));
    }

    #[test]
    fn the_end_of_a_pipe_ends_no_machine_and_of_a_terminal_does() {
        let mut pipe = StandardInput::new(Form::Bytes, Gate::opened());
        assert_eq!(pipe.end(), Ok(()));
        assert!(pipe.source().is_none());
        let mut stream = StandardInput::new(Form::Stream(Quoter::default()), Gate::opened());
        assert_eq!(stream.end(), Ok(()));
        assert_eq!(stream.take(9), [4]);
        let mut keys = StandardInput::new(Form::Terminal(Escape::default()), Gate::opened());
        assert_eq!(keys.end(), Err(End::Interrupted));
    }
}
