//! The user's side of a machine: what its serial lines end in, and what of that is saved with it.
//!
//! What a guest has been sent, or has reported, belongs to the machine, and goes on with it. What
//! the user has begun at a terminal (half an escape sequence, say) belongs to that terminal.

use crate::debian::Errors;
use crate::debian::quote::Quoter;
use crate::escape::Escape;
use crate::input::{Form, Gate, InputState, StandardInput};
use crate::output::{Log, LogFile, Progress, ProgressState, Standard};
use crate::terminal;
use crate::window::{self, Window, WindowState};
use machine::console::{Input, Line};
use machine::{Lines, Machine};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// What a guest uses its lines for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// It has the first line, and knows nothing of us.
    Console,
    /// The shell of `run debian`, which hears of the window's size.
    Shell,
    /// A command of `run debian` on a terminal.
    Terminal(Errors),
    /// A command of `run debian` whose input and output are byte streams.
    Pipes(Errors),
}

impl Kind {
    /// Whether it is a command, whose status is this program's.
    pub(crate) fn is_command(self) -> bool {
        matches!(self, Self::Terminal(_) | Self::Pipes(_))
    }

    /// Whether standard error has a line of its own.
    fn has_errors_apart(self) -> bool {
        matches!(self, Self::Terminal(Errors::Apart) | Self::Pipes(Errors::Apart))
    }

    fn hears_of_the_window(self) -> bool {
        matches!(self, Self::Shell | Self::Terminal(_))
    }

    /// How standard input becomes what the guest receives. A guest that was given a terminal keeps
    /// it, also where the input is none.
    fn form(self) -> Form {
        match self {
            Self::Pipes(_) => Form::Stream(Quoter::default()),
            _ if terminal::input_is_terminal() => Form::Terminal(Escape::default()),
            _ => Form::Bytes,
        }
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
    raw: bool,
    input: StandardInput,
    window: Window,
    progress: Progress,
}

impl Side {
    /// For a guest that begins, and was told of a `window` of this size.
    pub(crate) fn new(kind: Kind, window: (u16, u16)) -> Self {
        Self::restored(
            kind,
            SideState { window: WindowState::told(window), ..SideState::default() },
        )
    }

    /// For a guest that was saved, with this state.
    pub(crate) fn restored(kind: Kind, state: SideState) -> Self {
        let SideState { input, window, progress } = state;
        let ready = if progress.ready { Gate::opened() } else { Gate::closed() };
        // A command hears nothing before it is ready.
        let gate = if kind.is_command() { ready.clone() } else { Gate::opened() };
        let form = kind.form();
        Self {
            kind,
            raw: matches!(form, Form::Terminal(_)),
            input: StandardInput::new(form, gate, input),
            window: Window::new(window, ready.clone()),
            progress: Progress::new(ready, progress),
        }
    }

    /// What is saved. Nothing moves meanwhile between this and the machine.
    pub(crate) fn state(&self) -> SideState {
        let Self { kind: _, raw: _, input, window, progress } = self;
        SideState { input: input.state(), window: window.state(), progress: progress.state() }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the user's terminal becomes the guest's.
    pub(crate) fn is_raw(&self) -> bool {
        self.raw
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

    /// The lines of the machine, the second one's output with a copy in `log`.
    pub(crate) fn lines(&self, log: &LogFile) -> Lines {
        let reports = (self.kind != Kind::Console).then(|| self.progress.clone());
        let window = self.kind.hears_of_the_window();
        let window = window.then(|| Box::new(self.window.clone()) as Box<dyn Input>);
        let output = |place| Some(Box::new(place) as Box<dyn Write + Send>);
        let errors = self.kind.has_errors_apart().then_some(Standard::Error);
        Lines {
            com1: Line {
                input: Some(Box::new(self.input.clone())),
                output: output(Standard::Output),
            },
            com2: Line { input: window, output: Some(Box::new(Log::new(log.clone(), reports))) },
            com3: Line { input: None, output: errors.and_then(output) },
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
        window::notify_through(machine.notifier());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_there_again() {
        for kind in [Kind::Console, Kind::Shell, Kind::Terminal(Errors::Apart)] {
            assert!(!Side::new(kind, (24, 80)).state().progress.ready);
        }
        let state = SideState {
            input: InputState { queue: b"a\x16\x04".to_vec(), ended: true, read: 1 << 40 },
            window: WindowState { told: (24, 80), line: b"50 ".to_vec() },
            progress: ProgressState { ready: true, status: Some(7), line: b"gemello-i".to_vec() },
        };
        let side = Side::restored(Kind::Pipes(Errors::Apart), state.clone());
        assert_eq!(side.state(), state);
        assert_eq!(side.command().and_then(|progress| progress.status()), Some(7));
        // A terminal's end ends the machine, and is never saved.
        let shell = Side::restored(Kind::Shell, state.clone());
        assert_eq!(shell.state().input, InputState { ended: false, ..state.input });
    }

    #[test]
    fn a_guest_that_begins_anew_knows_nothing() {
        let state = SideState {
            window: WindowState { told: (24, 80), line: b"50 ".to_vec() },
            progress: ProgressState { ready: true, status: None, line: b"gemello-i".to_vec() },
            ..SideState::default()
        };
        let side = Side::restored(Kind::Shell, state);
        side.begin_anew();
        assert_eq!(side.state(), SideState::default());
    }

    #[test]
    fn each_line_ends_where_the_guest_uses_it() {
        let has = |kind| {
            let Lines { com2, com3, .. } = Side::new(kind, (24, 80)).lines(&LogFile::default());
            (com2.input.is_some(), com3.output.is_some())
        };
        assert_eq!(has(Kind::Console), (false, false));
        assert_eq!(has(Kind::Shell), (true, false));
        assert_eq!(has(Kind::Terminal(Errors::WithOutput)), (true, false));
        assert_eq!(has(Kind::Terminal(Errors::Apart)), (true, true));
        assert_eq!(has(Kind::Pipes(Errors::WithOutput)), (false, false));
        assert_eq!(has(Kind::Pipes(Errors::Apart)), (false, true));
    }
}
