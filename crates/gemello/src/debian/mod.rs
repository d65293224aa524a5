//! Debian as a guest: fetched through the host's apt, cached, and made into a kernel and an
//! initramfs. What the host's own files become a guest with is made here, too.

pub(crate) mod apt;
mod cache;
mod compiler;
mod cpio;
mod deb;
mod initramfs;
pub(crate) mod modules;
mod packages;
mod release;
pub(crate) mod report;
mod sources;
pub(crate) mod system;

pub(crate) use cache::{Draft, Lock, directory as cache_directory, refused};
pub(crate) use compiler::compiler;
pub(crate) use cpio::Archive;
pub(crate) use deb::Deb;
pub(crate) use packages::{
    DeviceKind, Driver, Fetched, Flavour, Refresh, driver_names, fetch, releases,
};
pub(crate) use release::Release;

use agent_job::Job;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A guest's drivers, in the order in which they are loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drivers {
    pub(crate) at_boot: Vec<PathBuf>,
    /// Once somebody wants the agent.
    pub(crate) later: Vec<PathBuf>,
}

/// The initramfs for one run: the agent with its `job`, `drivers`, and `busybox` if the guest stays
/// in it.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn initramfs(busybox: Option<&Path>, drivers: &Drivers, job: &Job) -> Result<Vec<u8>> {
    let busybox = busybox.map(read).transpose()?;
    initramfs::build(busybox.as_deref(), drivers, job)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        let path = path.display();
        format!(
            "cannot read {path}; if it is in gemello's cache, delete its directory and run \
             `gemello fetch busybox`"
        )
    })
}
