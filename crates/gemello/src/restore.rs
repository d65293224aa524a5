//! `gemello restore`: a saved machine goes on.

use crate::cli::Restore;
use crate::console::Console;
use crate::input::Gate;
use crate::output::{Log, LogFile};
use crate::run::{self, Running};
use crate::save::{self, Kind, SavedSession};
use crate::settings::EngineSettings;
use crate::settings::values::Time;
use crate::window::Window;
use crate::{again, engine, outfile, pairs};
use anyhow::{Context as _, Result};
use machine::console::{Input, Line};
use machine::{Lines, Machine, SavedMachine};

/// Restores the machine that `arguments` name, and gives the exit code.
///
/// # Errors
/// The file, or something this host lacks: nothing was run.
pub(crate) fn restore(arguments: &Restore) -> Result<u8> {
    let engine = EngineSettings::from(&arguments.engine);
    pairs::code_cache(&engine)?;
    let mut saved = SavedMachine::open(&arguments.file)?;
    let session: SavedSession = serde_json::from_value(saved.header.session.clone())
        .with_context(|| format!("{} was not saved by this program", arguments.file.display()))?;
    let hardware = saved.header.hardware.clone();
    if !arguments.accept_disks {
        let mut disks = hardware.disks().enumerate();
        disks.try_for_each(|(n, disk)| session.unwritten(n, disk))?;
    }
    let console = Console::plain();
    let raw = console.raw;
    let window = (session.kind == Kind::DebianShell)
        .then(|| Box::new(Window::new((0, 0), Gate::opened())) as Box<dyn Input>);
    let log = LogFile::default();
    let second = Log::new(log.clone(), None);
    let lines = Lines {
        com1: console.line(),
        com2: Line { input: window, output: Some(Box::new(second)) },
        com3: Line::default(),
    };
    let options = engine::Options { count: arguments.stats, ..engine.options() };
    let mut machine = Machine::from_saved(&mut saved, lines, &*engine::make(options))?;
    machine.set_timeout(arguments.timeout.map(|Time(time)| time));
    if let Some(path) = &arguments.log {
        outfile::open_log(path, &log, &arguments.file, &hardware)?;
    }
    if let Some(path) = &arguments.save {
        save::arm(path, machine.handle(), hardware, session.kind)?;
    }
    again::arm(machine.handle());
    run::to_its_end(machine, &Running { raw, stats: arguments.stats, command: None, log })
}
