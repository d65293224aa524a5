//! The user's side of a machine: what its lines end in, and what of that is saved with it.
//!
//! What a guest has been sent, or has reported, belongs to the machine, and goes on with it. What
//! the user has begun at a terminal (half an escape sequence, say) belongs to that terminal.

use crate::console::Console;
use crate::escape::{Escape, OWN};
use crate::gate::Gate;
use crate::input::{ConsoleInput, Form, InputState};
use crate::output::{Closing, Log, LogFile, Progress, ProgressState, ServiceState, Standard};
use crate::place::{self, Place};
use crate::terminal;
use crate::window::{SeenThrough, Window, WindowState};
use crate::wishes::Wishes;
use machine::console::{Input, Line};
use machine::{Lines, Machine, Port};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// Where a command's standard error goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Errors {
    /// Where standard output goes, in one order.
    WithOutput,
    /// To a port of its own.
    Apart,
}

/// What a guest uses its lines for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// It has the first line, and knows nothing of us.
    Console,
    /// It has a virtio console, and knows nothing of us, either. What it says on the first line is
    /// seen, too.
    VirtioConsole,
    /// The shell of a guest that gemello makes, which hears of the window's size.
    Shell,
    /// A command of such a guest, on a terminal.
    Terminal(Errors),
    /// A command of such a guest, whose input and output are byte streams.
    Pipes(Errors),
}

impl Kind {
    /// Whether it is a command, whose status is this program's.
    pub(crate) fn is_command(self) -> bool {
        matches!(self, Self::Terminal(_) | Self::Pipes(_))
    }

    /// The streams of a command that have a port each.
    fn streams(self) -> &'static [Stream] {
        match self {
            Self::Console
            | Self::VirtioConsole
            | Self::Shell
            | Self::Terminal(Errors::WithOutput) => &[],
            Self::Terminal(Errors::Apart) => &[Stream::Error],
            Self::Pipes(Errors::WithOutput) => &[Stream::Input, Stream::Output],
            Self::Pipes(Errors::Apart) => &[Stream::Input, Stream::Output, Stream::Error],
        }
    }

    /// Whether the guest's init listens to us.
    pub(crate) fn has_our_init(self) -> bool {
        !matches!(self, Self::Console | Self::VirtioConsole)
    }

    /// Whether there is a console, which others may see and type into.
    pub(crate) fn has_a_console(self) -> bool {
        !matches!(self, Self::Pipes(_))
    }

    /// How what comes from `place` becomes what the guest receives. A guest that was given a
    /// terminal keeps it, also where the input is none.
    fn form(self, place: &Place) -> Form {
        match (self, place) {
            (Self::Pipes(_), _) => Form::Stream,
            (_, Place::Standard) if terminal::input_is_terminal() => {
                Form::Terminal(Escape::new(OWN))
            }
            _ => Form::Bytes,
        }
    }
}

/// A command's stream at a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Input,
    Output,
    Error,
}

impl Stream {
    /// The port, as the agent looks for it.
    fn port(self) -> Port {
        let name = match self {
            Self::Input => "stdin",
            Self::Output => "stdout",
            Self::Error => "stderr",
        };
        let input = self == Self::Input;
        Port { name: format!("{}{name}", agent_job::PORT), input, output: !input }
    }
}

/// The user's side of a machine that is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SideState {
    input: InputState,
    window: WindowState,
    progress: ProgressState,
}

/// The user's side of a machine. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    kind: Kind,
    place: Place,
    raw: bool,
    /// A signal to gemello asks its command to end.
    asked_by_signal: bool,
    input: ConsoleInput,
    console: Console,
    window: Window,
    progress: Progress,
}

impl Side {
    /// For a guest that begins, with its console at `place`, and was told of a `window` of this
    /// size.
    pub(crate) fn new(kind: Kind, place: Place, window: (u16, u16)) -> Self {
        let state = SideState { window: WindowState::told(window), ..SideState::default() };
        Self::restored(kind, place, state)
    }

    /// For a guest that was saved, with this state, and has its console at `place` from now on.
    pub(crate) fn restored(kind: Kind, place: Place, state: SideState) -> Self {
        let SideState { input, window, progress } = state;
        let ready = if progress.ready { Gate::opened() } else { Gate::closed() };
        // What is typed before is for this guest's program: its boot may become others' template.
        let gate = if kind.has_our_init() { ready.clone() } else { Gate::opened() };
        let form = kind.form(&place);
        let told = window.told;
        let window = Window::new(window, ready.clone());
        if !matches!(place, Place::Standard) || !kind.has_a_console() {
            window.resize(told);
        }
        Self {
            kind,
            raw: matches!(form, Form::Terminal(_)),
            asked_by_signal: false,
            input: ConsoleInput::new(place.clone(), form, gate, input),
            console: Console::default(),
            place,
            window,
            progress: Progress::new(ready, progress),
        }
    }

    /// What is saved. Nothing moves meanwhile between this and the machine.
    pub(crate) fn state(&self) -> SideState {
        let Self {
            kind: _,
            place: _,
            raw: _,
            asked_by_signal: _,
            input,
            console: _,
            window,
            progress,
        } = self;
        SideState { input: input.state(), window: window.state(), progress: progress.state() }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the user's terminal becomes the guest's.
    pub(crate) fn is_raw(&self) -> bool {
        self.raw
    }

    /// A signal to gemello asks its command to end, rather than ending the machine.
    pub(crate) fn asked_by_signal(self) -> Self {
        Self { asked_by_signal: true, ..self }
    }

    pub(crate) fn is_asked_by_signal(&self) -> bool {
        self.asked_by_signal
    }

    /// Where the console is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The console, as others see it and type into it.
    pub(crate) fn console(&self) -> (&Console, &ConsoleInput) {
        (&self.console, &self.input)
    }

    /// What can be done with the machine by a key.
    pub(crate) fn wishes(&self) -> &Wishes {
        self.input.wishes()
    }

    /// Someone looks at the console through a window of this size. A machine on this program's own
    /// terminal keeps the size of that.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        if !matches!(self.place, Place::Standard) {
            self.window.resize(size);
        }
    }

    /// Asks a guest that has our init to power off.
    pub(crate) fn power_off(&self) {
        if self.kind.has_our_init() {
            self.wishes().make_no_template(); // the power button may have been pressed
            self.window.power_off();
        }
    }

    /// Has the agent answer, where it is the guest's init.
    pub(crate) fn serve(&self) {
        if self.service().is_some_and(|service| service != ServiceState::Listens) {
            self.window.serve();
        }
    }

    /// How the agent's service is, of a guest that has our init.
    pub(crate) fn service(&self) -> Option<ServiceState> {
        self.kind.has_our_init().then(|| self.progress.service())
    }

    /// Tells a restored guest that has our init that its clock has stood still, and random bytes.
    pub(crate) fn tell_of_restore(&self) {
        if self.kind.has_our_init() {
            self.window.tell_of_restore();
        }
    }

    /// For a guest whose agent asks for its job: this one.
    pub(crate) fn with_job(self, job: Vec<u8>) -> Self {
        self.window.know_job(job);
        let (wishes, window) = (self.wishes().clone(), self.window.clone());
        self.progress.when_asked(move || {
            let window = window.clone();
            wishes.make_template(move || window.tell_job());
        });
        self
    }

    /// The agent has asked for its job before the machine began.
    pub(crate) fn tell_job(&self) {
        self.window.tell_job();
    }

    /// Shows on this program's terminal how far the guest is, which is a system, until it is ready.
    pub(crate) fn shows_how_far(self) -> Self {
        self.progress.show();
        self
    }

    /// The guest has ended. What its init had said last, if it is a system that was not ready.
    pub(crate) fn end(&self) -> Option<String> {
        self.progress.end()
    }

    /// What is known of the command, if it is one.
    pub(crate) fn command(&self) -> Option<Progress> {
        self.kind.is_command().then(|| self.progress.clone())
    }

    /// What to tell of the input once the machine is saved: of a stream, how far it was read.
    pub(crate) fn note(&self) -> String {
        match (self.kind, self.input.state()) {
            (Kind::Pipes(_), InputState { ended: false, read: read @ 1.., .. }) => format!(
                "; {read} bytes of the input are read: give `gemello restore` those that follow"
            ),
            _ => String::new(),
        }
    }

    /// The ports that the machine has for it.
    pub(crate) fn ports(&self) -> Vec<Port> {
        self.kind.streams().iter().map(|stream| stream.port()).collect()
    }

    /// The other end of `stream`.
    fn line(&self, stream: Stream) -> Line {
        match stream {
            Stream::Input => Line { input: Some(Box::new(self.input.clone())), output: None },
            Stream::Output => self.output(Box::new(Closing)),
            // It is a detached machine's log, which gets the last of the console.
            Stream::Error if place::is_detached() => self.output(Box::new(io::sink())),
            Stream::Error => self.output(Box::new(Standard::Error)),
        }
    }

    /// An output that ends at `place`, and that `gemello logs` shows.
    fn output(&self, place: Box<dyn Write + Send>) -> Line {
        Line { input: None, output: Some(self.console.beside(self.progress.before(place))) }
    }

    /// The virtio console, of a machine that has one.
    fn hvc(&self) -> Option<Line> {
        let (window, input) = (self.window.clone(), self.input.clone());
        let hvc = || Line { input: Some(Box::new(SeenThrough { window, input })), ..self.seen() };
        (self.kind == Kind::VirtioConsole).then(hvc)
    }

    /// What is seen on the console.
    fn seen(&self) -> Line {
        self.output(self.place.writer())
    }

    /// The lines of the machine, the second one's output with a copy in `log`.
    pub(crate) fn lines(&self, log: &LogFile) -> Lines {
        let our_init = self.kind.has_our_init();
        let reports = our_init.then(|| self.progress.clone());
        let window = our_init.then(|| Box::new(self.window.clone()) as Box<dyn Input>);
        let com1 = match self.kind {
            Kind::Pipes(_) => Line::default(),
            Kind::VirtioConsole => self.seen(),
            _ => Line { input: Some(Box::new(self.input.clone())), ..self.seen() },
        };
        let streams = self.kind.streams().iter();
        Lines {
            com1,
            com2: Line { input: window, output: Some(Box::new(Log::new(log.clone(), reports))) },
            com3: Line::default(),
            ports: streams.map(|&stream| self.line(stream)).chain(self.hvc()).collect(),
        }
    }

    /// The guest begins anew, and has not said yet that it is ready.
    pub(crate) fn begin_anew(&self) {
        self.progress.begin_anew();
        self.window.begin_anew();
    }

    /// Lets the machine know of what changes here.
    pub(crate) fn notify(&self, machine: &Machine) {
        self.progress.notify_through(machine.notifier());
        self.window.notify_through(machine.notifier());
        self.input.notify_through(machine.notifier());
        self.progress.begin();
        if matches!(self.place, Place::Standard) {
            self.window.follow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: Kind) -> Side {
        Side::new(kind, Place::Standard, (24, 80))
    }

    fn restored(kind: Kind, state: SideState) -> Side {
        Side::restored(kind, Place::Standard, state)
    }

    #[test]
    fn what_is_saved_is_there_again() {
        for kind in [Kind::Console, Kind::VirtioConsole, Kind::Shell, Kind::Terminal(Errors::Apart)]
        {
            assert!(!new(kind).state().progress.ready);
            let service = kind.has_our_init().then_some(ServiceState::Unheard);
            assert_eq!(new(kind).service(), service);
        }
        let state = SideState {
            input: InputState { queue: b"a\x16\x04".to_vec(), ended: true, read: 1 << 40 },
            window: WindowState { told: (24, 80), line: b"50 ".to_vec() },
            progress: ProgressState {
                ready: true,
                status: Some(7),
                line: b"gemello-i".to_vec(),
                service: ServiceState::Listens,
            },
        };
        let side = restored(Kind::Pipes(Errors::Apart), state.clone());
        assert_eq!(side.state(), state);
        assert_eq!(side.service(), Some(ServiceState::Listens));
        assert_eq!(side.command().and_then(|progress| progress.status()), Some(7));
        // A terminal's end ends the machine, and is never saved.
        let shell = restored(Kind::Shell, state.clone());
        assert_eq!(shell.state().input, InputState { ended: false, ..state.input });
    }

    #[test]
    fn a_guest_that_begins_anew_knows_nothing() {
        let state = SideState {
            window: WindowState { told: (24, 80), line: b"50 ".to_vec() },
            progress: ProgressState { ready: true, ..ProgressState::default() },
            ..SideState::default()
        };
        let side = restored(Kind::Shell, state);
        side.begin_anew();
        assert_eq!(side.state(), SideState::default());
    }

    #[test]
    fn each_line_ends_where_the_guest_uses_it() {
        let has = |kind| {
            let side = new(kind);
            let Lines { com1, com2, ports, .. } = side.lines(&LogFile::default());
            let fits = |(port, line): (&Port, &Line)| {
                port.input == line.input.is_some() && port.output == line.output.is_some()
            };
            let hvc = usize::from(kind == Kind::VirtioConsole);
            assert_eq!(side.ports().len() + hvc, ports.len());
            assert!(side.ports().iter().zip(&ports).all(fits));
            let count = ports.len();
            // Dropped, one would close standard output, where the tests' results go.
            std::mem::forget(ports);
            (com1.input.is_some(), com2.input.is_some(), count)
        };
        assert_eq!(has(Kind::Console), (true, false, 0));
        assert_eq!(has(Kind::VirtioConsole), (false, false, 1));
        assert_eq!(has(Kind::Shell), (true, true, 0));
        assert_eq!(has(Kind::Terminal(Errors::WithOutput)), (true, true, 0));
        assert_eq!(has(Kind::Terminal(Errors::Apart)), (true, true, 1));
        assert_eq!(has(Kind::Pipes(Errors::WithOutput)), (false, true, 2));
        assert_eq!(has(Kind::Pipes(Errors::Apart)), (false, true, 3));
    }
}
