//! Process 1's side of the service: it starts `agent serve` the first time that gemello asks, and
//! the drivers of its sockets with it. A machine that nobody asks has neither.

use crate::modules;
use crate::session::Session;
use agent_job::Program;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::thread;

/// What is needed for that.
pub(crate) struct Service {
    drivers: Vec<File>,
    program: Program,
    is_started: bool,
}

impl Service {
    /// Before the root is another: the drivers' files are out of reach then. What `program` is run
    /// as, commands are run as.
    pub(crate) fn prepare(program: &Program) -> Self {
        Self { drivers: modules::later(), program: program.clone(), is_started: false }
    }

    /// Starts it, if that has not been done.
    pub(crate) fn start(&mut self) {
        if std::mem::replace(&mut self.is_started, true) {
            return;
        }
        let (drivers, program) = (std::mem::take(&mut self.drivers), self.program.clone());
        // The kernel takes its time for a driver; the line is listened to meanwhile.
        thread::spawn(move || {
            if let Err(error) = start(&drivers, &program) {
                let _ = std::fs::write("/dev/kmsg", format!("agent: no service: {error:#}\n"));
            }
        });
    }
}

fn start(drivers: &[File], program: &Program) -> Result<()> {
    for driver in drivers {
        modules::insert_file(driver).context("cannot load a driver of virtio sockets")?;
    }
    Session::serve(program).context("cannot start the service")
}
