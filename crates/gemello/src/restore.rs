//! `gemello restore`: a saved machine goes on.

use crate::cli::Restore;
use crate::escape::Escape;
use crate::input::{Form, Gate, StandardInput};
use crate::outfile;
use crate::output::{Log, LogFile, Standard};
use crate::run::{self, Running};
use crate::save::{self, Kind, SavedSession};
use crate::window::Window;
use crate::{engine, pairs, terminal};
use anyhow::{Context as _, Result};
use machine::console::{Input, Line};
use machine::{Lines, Machine, SavedMachine};

/// Restores the machine that `arguments` name, and gives the exit code.
///
/// # Errors
/// The file, or something this host lacks: nothing was run.
pub(crate) fn restore(arguments: &Restore) -> Result<u8> {
    pairs::code_cache(arguments.engine)?;
    let mut saved = SavedMachine::open(&arguments.file)?;
    let session: SavedSession = serde_json::from_value(saved.header.session.clone())
        .with_context(|| format!("{} was not saved by this program", arguments.file.display()))?;
    let hardware = saved.header.hardware.clone();
    if !arguments.accept_disks {
        let mut disks = hardware.disks().enumerate();
        disks.try_for_each(|(n, disk)| session.unwritten(n, disk))?;
    }
    let raw = terminal::input_is_terminal();
    let form = if raw { Form::Terminal(Escape::default()) } else { Form::Bytes };
    let input = Box::new(StandardInput::new(form, Gate::new(true)));
    let window = (session.kind == Kind::DebianShell)
        .then(|| Box::new(Window::new((0, 0), Gate::new(true))) as Box<dyn Input>);
    let log = LogFile::default();
    let second = Log::new(log.clone(), None);
    let lines = Lines {
        com1: Line { input: Some(input), output: Some(Box::new(Standard::Output)) },
        com2: Line { input: window, output: Some(Box::new(second)) },
        com3: Line::default(),
    };
    let mut machine =
        Machine::from_saved(&mut saved, lines, &*engine::make(arguments.engine, arguments.stats))?;
    machine.set_timeout(arguments.timeout);
    if let Some(path) = &arguments.log {
        outfile::open_log(path, &log, &arguments.file, &hardware)?;
    }
    if let Some(path) = &arguments.save {
        save::arm(path, machine.handle(), hardware, session.kind)?;
    }
    run::to_its_end(machine, &Running { raw, stats: arguments.stats, command: None, log })
}
