//! Why a machine could not be built, controlled, saved or reset.

use crate::boot_files::BootFileError;
use crate::config::ConfigError;
use crate::saved::file::FileError;
use crate::scratch::ScratchError;
use boot::BootError;
use devices::bus::BusError;
use devices::virtio::net::CableError;
use devices::virtio::vsock::VsockError;
use disk_image::ImageError;
use share::ShareError;
use std::io;
use vcpu::{EngineError, StateError};

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The boot files.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A disk's image.
    #[error(transparent)]
    Disk(#[from] ImageError),
    /// A network.
    #[error(transparent)]
    Net(#[from] CableError),
    /// A scratch disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A socket.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// A shared folder.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The host has not enough memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The host refuses what it needs.
    #[error("cannot set the machine up: {0}")]
    Host(#[from] io::Error),
    /// A defect of the layout.
    #[error("the machine's layout is wrong: {0}")]
    Layout(#[from] BusError),
    /// The engine cannot be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine cannot count time in instructions.
    #[error(
        "the {engine} engine does not count instructions, which is a deterministic machine's time; \
         choose another with `engine`, or leave out `deterministic`"
    )]
    CountsNothing {
        /// Which.
        engine: &'static str,
    },
    /// The file of a saved machine.
    #[error(transparent)]
    Saved(#[from] FileError),
    /// The engine does not take the state with which the guest begins.
    #[error(transparent)]
    State(#[from] StateError),
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

/// Why a machine's balloon cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalloonError {
    /// It has ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It has none.
    #[error("the machine has no balloon; start it with `balloon`")]
    NoBalloon,
}

/// Why nothing can be connected to a machine's guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntranceError {
    /// It has ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It has no sockets.
    #[error("the machine has no sockets to its guest; start it with `vsock`")]
    NoVsock,
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
    /// What the guest has said before is still on its way.
    #[error(
        "cannot save the machine: nobody reads its output; have it read, then save the machine"
    )]
    Unread,
    /// It is to be a template.
    #[error("cannot make a template of the machine: its guest has touched a device")]
    Touched,
}

/// Why a machine was not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// It has ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Its boot files are not there any more, or others.
    #[error("cannot boot again: {0}")]
    Boot(#[from] BootError),
    /// The same of a machine that was restored.
    #[error("cannot boot again: {0}")]
    BootFile(#[from] BootFileError),
    /// A defect of gemello's: the machine has ended by it.
    #[error("the machine ended when it was reset: {0}")]
    Failed(String),
}
