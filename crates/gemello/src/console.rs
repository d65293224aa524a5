//! The first serial line: this program's standard input and output.

use crate::escape::Escape;
use crate::input::{Form, Gate, StandardInput};
use crate::output::Standard;
use crate::terminal;
use machine::console::Line;

/// The user's end of the first serial line.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) input: StandardInput,
    /// The user's terminal becomes the guest's.
    pub(crate) raw: bool,
}

impl Console {
    /// The terminal with its escape key, or bytes as they come where there is none.
    pub(crate) fn plain() -> Self {
        let raw = terminal::input_is_terminal();
        let form = if raw { Form::Terminal(Escape::default()) } else { Form::Bytes };
        Self { input: StandardInput::new(form, Gate::opened()), raw }
    }

    /// As the machine takes it.
    pub(crate) fn line(self) -> Line {
        Line { input: Some(Box::new(self.input)), output: Some(Box::new(Standard::Output)) }
    }
}
