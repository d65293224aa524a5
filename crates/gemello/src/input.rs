//! What a user types, or a pipe gives, as a line's input.

use crate::escape::{Escape, HELP, Wish};
use crate::gate::Gate;
use crate::handover::{self, Answers};
use crate::place::Place;
use crate::terminal;
use crate::wishes::Wishes;
use machine::console::Input;
use machine::{End, Notifier};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

/// Read ahead of the guest at the most, and at once: a pipe's writer is then held back.
const AHEAD: usize = 4096;
/// The same of a stream: as much as a pipe holds.
const STREAM_AHEAD: usize = 64 << 10;

/// Bytes a terminal may be ahead of its guest; a terminal is always read, since Ctrl-A x must work
/// at any time.
const TYPED_AHEAD: usize = 64 << 10;

/// How what comes from its source becomes what the guest receives.
#[derive(Debug)]
pub(crate) enum Form {
    /// A terminal in raw mode, with its escape key.
    Terminal(Escape),
    /// Bytes as they are; their end is no event for the guest.
    Bytes,
    /// A stream with an end.
    Stream,
}

/// The input of a machine's first serial line: its source's bytes, and those that users of its
/// console type. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleInput {
    source: Place,
    wishes: Wishes,
    notifier: Arc<OnceLock<Notifier>>,
    flow: Arc<Mutex<Flow>>,
}

/// What of the input is saved with the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputState {
    /// What the guest is to receive yet, as it receives it.
    pub(crate) queue: Vec<u8>,
    /// The stream is at its end: nothing that follows is part of it.
    pub(crate) ended: bool,
    /// Bytes that have been read so far.
    pub(crate) read: u64,
}

#[derive(Debug)]
struct Flow {
    form: Form,
    gate: Gate,
    queue: VecDeque<u8>,
    ended: bool,
    read: u64,
    answers: Answers,
}

impl ConsoleInput {
    /// From `source`, in this form, held back until `gate` opens; goes on from `state`.
    pub(crate) fn new(source: Place, form: Form, gate: Gate, state: InputState) -> Self {
        let InputState { queue, ended, read } = state;
        let ended = ended && matches!(form, Form::Stream); // others have no end
        let (queue, answers) = (queue.into(), Answers::default());
        let flow = Arc::new(Mutex::new(Flow { form, gate, queue, ended, read, answers }));
        Self { source, wishes: Wishes::default(), notifier: Arc::default(), flow }
    }

    /// What its escape key can have done.
    pub(crate) fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// Notifies this when something is typed.
    pub(crate) fn notify_through(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Gives the guest what of `keys` there is room for; how many those are.
    pub(crate) fn typed(&self, keys: &[u8]) -> usize {
        let mut flow = sync::lock(&self.flow);
        let count = keys.len().min(TYPED_AHEAD.saturating_sub(flow.queue.len()));
        flow.queue.extend(keys.get(..count).unwrap_or_default());
        drop(flow);
        if let Some(notifier) = self.notifier.get() {
            notifier.notify();
        }
        count
    }

    /// What is saved with the machine.
    pub(crate) fn state(&self) -> InputState {
        let flow = sync::lock(&self.flow);
        let queue = flow.queue.iter().copied().collect();
        let ended = flow.ended && matches!(flow.form, Form::Stream);
        InputState { queue, ended, read: flow.read }
    }
}

impl Flow {
    /// How much may be read ahead of the guest.
    fn ahead(&self) -> usize {
        if matches!(self.form, Form::Stream) { STREAM_AHEAD } else { AHEAD }
    }

    fn data(&mut self, bytes: &[u8], wishes: &Wishes) -> Result<(), End> {
        self.read = self.read.saturating_add(bytes.len() as u64);
        match &mut self.form {
            Form::Bytes | Form::Stream => self.queue.extend(bytes),
            Form::Terminal(escape) => {
                handover::hear(&mut self.answers, bytes);
                let room = self.queue.len() < TYPED_AHEAD;
                let mut guest = Vec::new();
                for wish in escape.keys(bytes, &mut guest) {
                    match wish {
                        Wish::Help => terminal::tell(HELP),
                        Wish::Save => wishes.save(),
                        Wish::Reset => wishes.reset(),
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
            Form::Bytes | Form::Stream => {}
            Form::Terminal(_) => return Err(End::Interrupted), // hung up
        }
        Ok(())
    }
}

impl Input for ConsoleInput {
    fn source(&self) -> Option<BorrowedFd<'_>> {
        let flow = sync::lock(&self.flow);
        let read = matches!(flow.form, Form::Terminal(_)) || flow.queue.len() < flow.ahead();
        self.source.source().filter(|_| read && !flow.ended)
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; STREAM_AHEAD];
        let Some(source) = self.source.source() else { return Ok(()) };
        let mut flow = sync::lock(&self.flow);
        let ahead = flow.ahead();
        match rustix::io::read(source, &mut buffer[..ahead]) {
            Ok(0) => flow.end(),
            Ok(count) => flow.data(buffer.get(..count).unwrap_or_default(), &self.wishes),
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(error) => {
                tracing::debug!(target: "console", %error, "the console's input");
                flow.end()
            }
        }
    }

    fn take(&mut self, room: usize) -> Vec<u8> {
        let mut flow = sync::lock(&self.flow);
        if !flow.gate.is_open() {
            return Vec::new();
        }
        if flow.queue.len() <= room {
            return std::mem::take(&mut flow.queue).into();
        }
        flow.queue.drain(..room).collect()
    }

    fn has_ended(&self) -> bool {
        let flow = sync::lock(&self.flow);
        flow.ended && flow.queue.is_empty() && matches!(flow.form, Form::Stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::OWN;

    fn input(form: Form, gate: &Gate) -> ConsoleInput {
        ConsoleInput::new(Place::Standard, form, gate.clone(), InputState::default())
    }

    fn data(input: &ConsoleInput, bytes: &[u8]) -> Result<(), End> {
        sync::lock(&input.flow).data(bytes, &input.wishes)
    }

    fn end(input: &ConsoleInput) -> Result<(), End> {
        sync::lock(&input.flow).end()
    }

    #[test]
    fn input_waits_for_the_gate_and_for_room() {
        let gate = Gate::closed();
        let mut input = input(Form::Bytes, &gate);
        data(&input, b"hello").expect("no wish");
        assert!(input.take(3).is_empty());
        gate.open();
        assert_eq!(input.take(3), b"hel");
        assert_eq!(input.take(3), b"lo");
    }

    #[test]
    fn a_full_queue_stops_reading_but_never_the_escape_key() {
        let mut pipe = input(Form::Bytes, &Gate::opened());
        data(&pipe, &[0; AHEAD]).expect("no wish");
        assert!(pipe.source().is_none());
        pipe.take(1);
        assert!(pipe.source().is_some());
        let keys = input(Form::Terminal(Escape::new(OWN)), &Gate::opened());
        data(&keys, &[b'x'; TYPED_AHEAD]).expect("no wish");
        assert!(keys.source().is_some());
        assert_eq!(data(&keys, b"\x01x"), Err(End::Interrupted));
    }

    #[test]
    fn what_is_typed_beside_the_source_is_bounded_and_arrives() {
        let mut pipe = input(Form::Bytes, &Gate::opened());
        end(&pipe).expect("no terminal");
        assert_eq!(pipe.typed(b"help\n"), 5);
        assert_eq!(pipe.take(9), b"help\n");
        assert_eq!(pipe.typed(&[b'x'; TYPED_AHEAD + 7]), TYPED_AHEAD);
        assert_eq!(pipe.typed(b"y"), 0);
        pipe.take(1);
        assert_eq!(pipe.typed(b"yz"), 1);
    }

    #[test]
    fn the_end_of_a_pipe_ends_no_machine_and_of_a_terminal_does() {
        let pipe = input(Form::Bytes, &Gate::opened());
        assert_eq!(end(&pipe), Ok(()));
        assert!(pipe.source().is_none());
        let stream = input(Form::Stream, &Gate::opened());
        assert_eq!(end(&stream), Ok(()));
        assert!(stream.has_ended() && !pipe.has_ended());
        let keys = input(Form::Terminal(Escape::new(OWN)), &Gate::opened());
        assert_eq!(end(&keys), Err(End::Interrupted));
    }

    /// The bytes of one stream, whose reader is saved and restored between any two steps, are those
    /// of one that is not.
    #[test]
    fn a_stream_goes_on_after_a_save() {
        let form = || Form::Stream;
        let chunks: [&[u8]; 4] = [b"ab", b"\x04\x16", b"line\nrest", b""];
        let mut straight = input(form(), &Gate::opened());
        chunks.iter().for_each(|chunk| data(&straight, chunk).expect("no wish"));
        end(&straight).expect("no terminal");
        let whole = straight.take(usize::MAX);

        let (mut saved, mut sent) = (input(form(), &Gate::opened()), Vec::new());
        for chunk in chunks {
            data(&saved, chunk).expect("no wish");
            sent.extend(saved.take(3));
            saved = ConsoleInput::new(Place::Standard, form(), Gate::opened(), saved.state());
            assert!(saved.source().is_some(), "the new process' input goes on");
            assert!(!saved.has_ended());
        }
        end(&saved).expect("no terminal");
        let state = saved.state();
        assert_eq!(state.read, 13);
        saved = ConsoleInput::new(Place::Standard, form(), Gate::opened(), state);
        assert!(saved.source().is_none(), "a stream ends once");
        assert!(!saved.has_ended(), "something is left");
        sent.extend(saved.take(usize::MAX));
        assert!(saved.has_ended());
        assert_eq!(sent, whole);
    }

    /// The new process' terminal, or pipe, has an end of its own.
    #[test]
    fn only_a_streams_end_is_saved() {
        let ended = InputState { ended: true, ..InputState::default() };
        for form in [Form::Bytes, Form::Terminal(Escape::new(OWN))] {
            let restored = ConsoleInput::new(Place::Standard, form, Gate::opened(), ended.clone());
            assert!(restored.source().is_some());
        }
        let bytes = input(Form::Bytes, &Gate::opened());
        end(&bytes).expect("no terminal");
        assert!(!bytes.state().ended);
    }
}
