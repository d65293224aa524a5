//! Disks with real file systems, and what is left of them after damage.

#[path = "../any_disk/rig.rs"]
mod any_disk;
mod hostile;
mod images;
mod support;
mod systemd_boot;
