//! The service's beginning: `agent serve` is started the first time that gemello asks, and the
//! drivers of its sockets are loaded with it. A machine that nobody asks has neither.

use crate::lines::Control;
use crate::session::Session;
use crate::{modules, system};
use agent_job::{NO_SERVICE, Program, SERVING};
use anyhow::{Context as _, Result};
use std::fs::File;
use std::thread;

/// What is needed for that.
pub(crate) enum Service {
    /// By process 1, with the drivers, and as whom the commands are run.
    Own { drivers: Vec<File>, program: Program },
    /// By a system's own process 1, which has a unit for it.
    Unit,
}

impl Service {
    /// Before the root is another: the drivers' files are out of reach then. What `program` is run
    /// as, commands are run as.
    pub(crate) fn prepare(program: &Program) -> Self {
        Self::Own { drivers: modules::later(), program: program.clone() }
    }

    /// Starts it. What becomes of it is told by `control`.
    pub(crate) fn start(self, mut control: Control) {
        // The kernel takes its time for a driver; the line is listened to meanwhile.
        thread::spawn(move || {
            if let Err(error) = self.begin(&mut control) {
                let _ = control.report(&format!("{NO_SERVICE}{error:#}"));
            }
        });
    }

    fn begin(self, control: &mut Control) -> Result<()> {
        match self {
            Self::Own { drivers, program } => {
                start(&drivers, &program)?;
                control.report(SERVING)
            }
            // Its process tells when it listens.
            Self::Unit => system::start_service(),
        }
    }

    /// What it needs of the initial file system.
    pub(crate) fn drivers(&self) -> &[File] {
        match self {
            Self::Own { drivers, .. } => drivers,
            Self::Unit => &[],
        }
    }
}

fn start(drivers: &[File], program: &Program) -> Result<()> {
    for driver in drivers {
        modules::insert_file(driver).context("cannot load a driver of virtio sockets")?;
    }
    Session::serve(program).context("cannot start the service")
}
