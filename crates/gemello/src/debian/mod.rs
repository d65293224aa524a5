//! Debian as a guest: fetched through the host's apt, cached, and made into a kernel and an
//! initramfs.

pub(crate) mod apt;
mod cache;
mod compiler;
mod cpio;
mod initramfs;
mod packages;
pub(crate) mod report;

pub(crate) use cache::directory as cache_directory;
pub(crate) use compiler::compiler;
pub(crate) use cpio::Archive;
pub(crate) use initramfs::{Addresses, Errors, Mode, Session};
pub(crate) use packages::{DeviceKind, Driver, Fetched, Flavour, Refresh, fetch, releases};

use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// The initramfs for one run: the base, and what this run is about.
///
/// # Errors
/// A cached file cannot be read.
pub(crate) fn initramfs(fetched: &Fetched, session: &Session) -> Result<Vec<u8>> {
    let busybox = cached(&fetched.busybox)?;
    let wanted = |driver: &&Driver| driver.serves(session.transport, &session.devices);
    let drivers = fetched.drivers.iter().filter(wanted).map(|driver| cached(&driver.path));
    let drivers = drivers.collect::<Result<Vec<_>>>()?;
    Ok(initramfs::build(&busybox, &drivers, session))
}

fn cached(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        let path = path.display();
        format!("cannot read {path}; delete its directory and run `gemello fetch debian`")
    })
}
