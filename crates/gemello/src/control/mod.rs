//! Running machines, reached from other processes of the same user.
//!
//! Each machine has a socket in a folder of the user's ([`folder`]), called after the machine: it
//! is the list of what runs, and holds the name. Requests and answers are lines of JSON
//! ([`protocol`]). One thread of the process that runs machines listens for all of them
//! ([`server`]); `gemello ps` and its kin ask ([`client`], [`commands`], [`attach`]).
//!
//! Only the user's own processes are answered. What comes is read with bounds of length and time,
//! on a thread for each connection, and takes no lock that a machine waits for.

mod attach;
mod client;
pub(crate) mod commands;
mod figures;
mod folder;
mod logs;
mod protocol;
mod reach;
mod server;

use crate::settings::name::MachineName;
use anyhow::Context as _;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

pub(crate) use attach::console;
pub(crate) use logs::logs;
pub(crate) use reach::{Channel, agent, reach};
pub(crate) use server::{Claim, Name, Serving, claim};

/// The folder of this user's sockets, which is nobody else's.
///
/// # Errors
/// There is none.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    folder::Folder::open().map(folder::Folder::into_path)
}

/// The file of what ssh knows of the machine `name` as long as that runs.
///
/// # Errors
/// The folder of sockets cannot be had.
pub(crate) fn known_hosts(name: &str) -> anyhow::Result<PathBuf> {
    folder::Folder::open().map(|folder| folder.hosts(name))
}

/// The file for what is left of the detached machine `name`, to write at its end.
///
/// # Errors
/// The host refuses it.
pub(crate) fn log(name: &MachineName) -> anyhow::Result<File> {
    let path = folder::Folder::open()?.log(&name.to_string());
    let mut options = File::options();
    let file = options.create(true).append(true).mode(0o600).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}
