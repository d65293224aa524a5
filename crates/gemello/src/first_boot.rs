//! The machine in which a system's packages are configured, on the root itself
//! (`crates/gemello/src/images/configure.rs` starts it).

use crate::debian::Flavour;
use crate::images::Root;
use crate::run;
use crate::settings::module::Word;
use crate::settings::net::NetChoice;
use crate::settings::values::Size;
use crate::settings::{BootSettings, MachineSettings, Settings};
use anyhow::Result;
use std::ffi::OsString;
use std::path::Path;

/// Its memory: all files, and room.
const MEMORY: u64 = 1 << 30;

/// The hidden command `configure FOLDER WORD...`: runs the words in a guest whose root is the one
/// in `folder`, which it changes.
///
/// # Errors
/// There is no root that is not configured.
pub(crate) fn run_words(folder: &Path, words: &[OsString]) -> Result<u8> {
    let root = Root::unconfigured(folder)?;
    let boot = BootSettings {
        // As busybox boots, and then the disk is the root.
        busybox: Some(Flavour::Cloud),
        command: words.iter().cloned().map(Word).collect(),
        ..BootSettings::default()
    };
    let machine = MachineSettings {
        memory: Some(Size(MEMORY)),
        vcpus: Some(2),
        net: Some(NetChoice::None),
        ..MachineSettings::default()
    };
    run::on(root, &Settings { machine, boot, ..Settings::default() })
}
