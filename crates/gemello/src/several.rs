//! What several machines of one process share, and what they cannot.

use crate::place::Place;
use crate::settings::console::ConsolePlace;
use crate::settings::options::Given;
use crate::settings::sched::SchedSettings;
use crate::to_its_end::Ready;
use crate::trace::Topic;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// What of the settings is the whole process's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) trace: Vec<Topic>,
    pub(crate) trace_file: Option<PathBuf>,
    /// Its workers and their quantum.
    pub(crate) sched: SchedSettings,
}

/// What `machines` say of their process: the command line comes first, then the first that says
/// it.
///
/// # Errors
/// They say what several cannot have.
pub(crate) fn process(machines: &[Given]) -> Result<Process> {
    let mut process = Process::default();
    for given in machines {
        let run = &given.settings.run;
        if process.trace.is_empty() {
            process.trace.clone_from(&run.trace);
            process.trace_file.clone_from(&run.trace_file);
        }
        process.sched = process.sched.over(given.settings.sched);
        if machines.len() > 1 {
            check(given)?;
        }
    }
    Ok(process)
}

/// Looks for what only one machine can have.
fn check(given: &Given) -> Result<()> {
    let options = &given.names.options;
    let one = [
        ("--name", options.machine.name.is_some()),
        ("--log", options.run.log.is_some()),
        ("--save", options.run.save.is_some()),
        ("--console log:FILE", matches!(options.run.console, Some(ConsolePlace::Log(_)))),
    ];
    if let Some((option, _)) = one.iter().find(|(_, said)| *said) {
        bail!("{option} is for one machine, and there are several; say it in each one's file");
    }
    if given.settings.run.console == Some(ConsolePlace::Terminal) {
        bail!(
            "several machines cannot have this terminal; leave out the console terminal: each has \
             a pseudo-terminal, and gemello console NAME shows it here"
        );
    }
    Ok(())
}

/// Says where the machine's console is.
pub(crate) fn announce(machine: &Ready) {
    if let Place::Pty(pty) = machine.side.place() {
        eprintln!("gemello: {}: console {}", machine.name, pty.path());
    }
}
