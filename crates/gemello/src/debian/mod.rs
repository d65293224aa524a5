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

pub(crate) use cache::{Draft, Lock, directory as cache_directory, entries, is_draft, refused};
pub(crate) use compiler::compiler;
pub(crate) use cpio::Archive;
pub(crate) use deb::Deb;
pub(crate) use initramfs::{Drivers, build as initramfs};
pub(crate) use packages::{
    DeviceKind, Driver, Fetched, Flavour, Refresh, driver_names, fetch, releases,
};
pub(crate) use release::Release;
