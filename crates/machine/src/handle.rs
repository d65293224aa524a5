//! A machine from outside: requests that any thread may make, at any time.

use crate::board::Board;
use crate::boot_files::BootFile;
use crate::config::Hardware;
use crate::control::Phase;
use crate::end::End;
use crate::error::{BalloonError, ControlError, EntranceError, ResetError, SaveError};
use crate::saved::file::{self, Content, Header, Kept};
use crate::saved::state::MachineState;
use crate::stats::Stats;
use crate::virtio::{SharedFolder, Slotted};
use devices::virtio::balloon::{BalloonControl, BalloonReport};
use devices::virtio::net::{Sink, Watch};
use devices::virtio::vsock::Entrance;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::lock;

/// Asks things of one machine. Clones ask the same one.
///
/// Each call is done when it returns. Calls of several threads are served one after the other.
#[derive(Clone, Debug)]
pub struct MachineHandle {
    pub(crate) board: Arc<Board>,
}

/// How long the reader of a machine's output may hold up saving it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a guest may take to tell of its memory.
const STATISTICS: Duration = Duration::from_millis(500);

/// What a machine did before it was asked to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Running,
    Paused,
}

impl Board {
    /// Does `work` while the I/O thread serves no timer and no input.
    fn still<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        let _still = lock(&self.serving);
        work(self)
    }

    /// Looks at its network device's cable.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.virtio.iter().find_map(|device| device.side().watch.as_ref())
    }

    /// What its scratch disks hold.
    pub(crate) fn scratch(&self) -> Vec<&File> {
        self.virtio.iter().filter_map(|device| device.side().content.as_ref()).collect()
    }
}

impl MachineHandle {
    /// Where the machine is in its life. One that stands still for a moment, to be saved, is waited
    /// for.
    pub fn phase(&self) -> Phase {
        match self.board.control.phase() {
            Phase::Paused => self.one_at_a_time(|| self.board.control.phase()),
            phase => phase,
        }
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
        self.while_paused(|board| Ok(with(&board.still(Board::save)?)))
    }

    /// Saves the whole machine, memory included, to the file at `path`; `hardware` is what it is
    /// made of, `session` tells what the caller wants to find there again. The machine stands still
    /// meanwhile, and goes on.
    ///
    /// What the guest has said before is written by then, and nothing moves from an input to the
    /// guest while `session` is called: what a line's ends hold then belongs to the state.
    ///
    /// # Errors
    /// It has ended, the engine does not tell a processor's state, nobody reads its output, or the
    /// host refuses; what was at `path` is still there then.
    pub fn save_to(
        &self,
        path: &Path,
        hardware: &Hardware,
        session: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), SaveError> {
        let boot = self.board.boot.saved();
        self.with_state(session, |board, state, session| {
            let header = Header { hardware: hardware.clone(), state, boot, session };
            let inside = board.boot.files().filter_map(BootFile::inside).collect();
            let content = Content { inside, ram: &board.ram, scratch: board.scratch() };
            Ok(file::write(path, &header, &content, Kept::OnDisk)?)
        })
    }

    /// Has `write` write the state of the machine, which stands still and whose output is written,
    /// and what `session` tells.
    pub(crate) fn with_state<T>(
        &self,
        session: impl FnOnce() -> T,
        write: impl FnOnce(&Board, MachineState, T) -> Result<(), SaveError>,
    ) -> Result<(), SaveError> {
        self.while_paused(|board| {
            board.still(|_| ()); // what it was about to do is done
            let deadline = Instant::now() + PATIENCE;
            if !board.outputs.iter().all(|output| output.is_written_by(deadline)) {
                return Err(SaveError::Unread);
            }
            let (state, session) = board.still(|board| (board.save(), session()));
            write(board, state.map_err(ControlError::from)?, session)
        })
    }

    /// Has the machine begin anew, as after its power was switched off and on: processors, devices
    /// and memory are as when it was built, and what it boots is read again. Its consoles, its
    /// disks and their content, and its counters stay. One that runs goes on at its first
    /// instruction; one that is paused stays so.
    ///
    /// # Errors
    /// It has ended, or its boot files are not to be had (where it was restored: as they were when
    /// it was saved): it goes on as it was.
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

    /// Presses the power button (ACPI 6.5, 4.8.2.2.1): a guest that listens to it shuts down. One
    /// that is paused hears of it when it goes on.
    ///
    /// # Errors
    /// It has ended.
    pub fn press_power_button(&self) -> Result<(), ControlError> {
        self.one_at_a_time(|| {
            if self.board.control.phase() == Phase::Ended {
                return Err(ControlError::Ended { attempt: "press the power button of" });
            }
            lock(&self.board.chipset.acpi).press_power_button();
            Ok(())
        })
    }

    /// Bytes of the guest's memory that are in the host's now, if the host tells.
    pub fn resident(&self) -> Option<u64> {
        self.board.ram.resident()
    }

    /// Has all frames that pass through its network device from now on written to `sink`, which
    /// tells by itself if it is full. False: it has no network, or there is a sink already.
    pub fn capture(&self, sink: Sink) -> bool {
        self.board.watch().is_some_and(|watch| watch.capture(sink))
    }

    /// Has the guest keep `memory` bytes of its memory and give the rest to the host, in its own
    /// time.
    ///
    /// # Errors
    /// The machine has ended, or has no balloon.
    pub fn set_balloon(&self, memory: u64) -> Result<(), BalloonError> {
        let balloon = self.balloon()?;
        balloon.want(self.board.ram.size().saturating_sub(memory));
        Ok(())
    }

    /// How it is with the machine's balloon. Statistics that its guest does not give soon are those
    /// that it has given before.
    ///
    /// # Errors
    /// The machine has ended, or has no balloon.
    pub fn balloon_report(&self) -> Result<BalloonReport, BalloonError> {
        Ok(self.balloon()?.report(STATISTICS))
    }

    fn balloon(&self) -> Result<&BalloonControl, BalloonError> {
        if self.board.control.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt: "change the memory of" }.into());
        }
        let mut sides = self.board.virtio.iter().map(Slotted::side);
        sides.find_map(|side| side.balloon.as_ref()).ok_or(BalloonError::NoBalloon)
    }

    /// The way to ports of its guest's.
    ///
    /// # Errors
    /// The machine has ended, or has no sockets.
    pub fn entrance(&self) -> Result<Entrance, EntranceError> {
        if self.board.control.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt: "reach the guest of" }.into());
        }
        let mut sides = self.board.virtio.iter().map(Slotted::side);
        sides.find_map(|side| side.entrance.clone()).ok_or(EntranceError::NoVsock)
    }

    /// Its shared folders.
    pub fn shares(&self) -> Vec<SharedFolder> {
        self.board.virtio.iter().filter_map(|it| it.side().share.clone()).collect()
    }

    /// Ends the machine.
    pub fn stop(&self, end: End) {
        self.board.control.stop(end);
    }

    /// Does `work` while the machine is paused to be saved; it goes on where it ran.
    fn while_paused<T, E: From<ControlError>>(
        &self,
        work: impl FnOnce(&Board) -> Result<T, E>,
    ) -> Result<T, E> {
        self.one_at_a_time(|| {
            let before = self.pause_now("save")?;
            let result = work(&self.board);
            if before == Was::Running {
                self.resume_now()?;
            }
            result
        })
    }

    fn one_at_a_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = sync::lock(&self.board.commands);
        work()
    }

    fn pause_now(&self, attempt: &'static str) -> Result<Was, ControlError> {
        if self.board.control.phase() == Phase::Ended {
            return Err(ControlError::Ended { attempt });
        }
        let running = self.board.control.stand_still();
        if running {
            self.board.stop_time();
        }
        Ok(if running { Was::Running } else { Was::Paused })
    }

    fn resume_now(&self) -> Result<(), ControlError> {
        if self.board.control.phase() == Phase::Ended {
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
