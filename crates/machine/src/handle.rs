//! A machine from outside: requests that any thread may make, at any time.

use crate::board::Board;
use crate::config::Hardware;
use crate::control::Phase;
use crate::end::End;
use crate::error::{ControlError, ResetError, SaveError};
use crate::saved::file::{self, Header};
use crate::saved::state::MachineState;
use crate::stats::Stats;
use std::path::Path;
use std::sync::Arc;

/// Asks things of one machine. Clones ask the same one.
///
/// Each call is done when it returns. Calls of several threads are served one after the other.
#[derive(Clone, Debug)]
pub struct MachineHandle {
    pub(crate) board: Arc<Board>,
}

/// What a machine did before it was asked to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Running,
    Paused,
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
        self.one_at_a_time(|| self.pause_now("pause").map(|_| ()))
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
            let before = self.pause_now("save")?;
            let result = self.board.save().map(|state| with(&state));
            if before == Was::Running {
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

    /// Has the machine begin anew, as after its power was switched off and on: processors, devices
    /// and memory are as when it was built, and what it boots is read again. Its consoles, its
    /// disks and their content, and its counters stay. One that runs goes on at its first
    /// instruction; one that is paused stays so.
    ///
    /// # Errors
    /// It has ended, or was restored, or its boot files are not to be had: it goes on as it was.
    /// [`ResetError::Failed`]: it has ended.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.one_at_a_time(|| {
            let before = self.pause_now("reset")?;
            let result = self.board.reset();
            if let Err(ResetError::Failed(why)) = &result {
                self.stop(End::EngineFailed(format!("it could not be reset: {why}")));
            } else if before == Was::Running {
                self.resume_now()?;
            }
            result
        })
    }

    /// The counters up to now. The machine's time goes on meanwhile.
    pub fn stats(&self) -> Stats {
        self.one_at_a_time(|| self.board.control.at_rest(|| self.board.counters()))
    }

    /// Ends the machine.
    pub fn stop(&self, end: End) {
        self.board.control.stop(end);
    }

    fn one_at_a_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = sync::lock(&self.board.commands);
        work()
    }

    fn pause_now(&self, attempt: &'static str) -> Result<Was, ControlError> {
        if self.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt });
        }
        let running = self.board.control.stand_still();
        if running {
            self.board.stop_time();
        }
        Ok(if running { Was::Running } else { Was::Paused })
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
