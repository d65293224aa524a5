//! A machine from outside: requests that any thread may make, at any time.

use crate::build::Board;
use crate::config::Hardware;
use crate::control::Phase;
use crate::power::End;
use crate::saved::MachineState;
use crate::saved::file::{self, FileError, Header};
use crate::stats::Stats;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use vcpu::StateError;

/// Asks things of one machine. Clones ask the same one.
///
/// Each call is done when it returns. Calls of several threads are served one after the other.
#[derive(Clone, Debug)]
pub struct MachineHandle {
    pub(crate) board: Arc<Board>,
}

/// A machine is not in a phase in which this can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It has ended.
    #[error("cannot {attempt} the machine: it has ended")]
    Ended {
        /// What was asked for.
        attempt: &'static str,
    },
    /// The engine does not tell or take a processor's state.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A machine cannot be saved to a file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It does not tell its state.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl MachineHandle {
    /// Where the machine is in its life.
    pub fn phase(&self) -> Phase {
        self.board.control.phase()
    }

    /// Has the machine stand still, its time included. One that does already is left so; one that
    /// has not been run yet begins so.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<(), ControlError> {
        self.one_at_a_time(|| self.pause_now().map(|_| ()))
    }

    /// Lets a paused machine go on where it stood.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.one_at_a_time(|| self.resume_now())
    }

    /// The machine's state, guest memory aside. It is paused for that moment, and told what `with`
    /// sees while it stands still.
    ///
    /// # Errors
    /// It has ended, or the engine does not tell a processor's state.
    pub fn save<T>(&self, with: impl FnOnce(&MachineState) -> T) -> Result<T, ControlError> {
        self.one_at_a_time(|| {
            let running = self.pause_now()?;
            let result = self.board.save().map(|state| with(&state));
            if running {
                self.resume_now()?;
            }
            Ok(result?)
        })
    }

    /// Saves the whole machine, memory included, to the file at `path`; `hardware` is what it is
    /// made of, `session` tells what the caller wants to find there again. The machine stands still
    /// meanwhile, and goes on.
    ///
    /// # Errors
    /// It has ended, the engine does not tell a processor's state, or the host refuses; what was at
    /// `path` is still there then.
    pub fn save_to(
        &self,
        path: &Path,
        hardware: &Hardware,
        session: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), SaveError> {
        self.save(|state| {
            let hardware = hardware.clone();
            let header = Header { hardware, state: state.clone(), session: session() };
            file::write(path, &header, &self.board.ram)
        })??;
        Ok(())
    }

    /// The counters up to now. The machine's time goes on meanwhile.
    pub fn stats(&self) -> Stats {
        self.one_at_a_time(|| self.board.control.at_rest(|| self.board.stats()))
    }

    /// Ends the machine.
    pub fn stop(&self, end: End) {
        self.board.control.stop(end);
    }

    fn one_at_a_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.board.commands.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// True: it ran before.
    fn pause_now(&self) -> Result<bool, ControlError> {
        if self.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt: "pause" });
        }
        let running = self.board.control.stand_still();
        if running {
            self.board.stop_time();
        }
        Ok(running)
    }

    fn resume_now(&self) -> Result<(), ControlError> {
        if self.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt: "resume" });
        }
        self.board.control.go_on(|| {
            if self.board.control.has_begun() {
                self.board.start_time();
            }
        });
        Ok(())
    }
}
