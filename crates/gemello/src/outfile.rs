//! Files that a run writes beside its standard output: `--log`, `--pcap`, `--trace-file`.
//!
//! A wrong name must not cost the user a disk: such a file is opened when all machines of the run
//! are known to be good, and only then emptied; never if one of them reads it or another machine
//! has it. Files are compared by device and inode, so no link hides one.

use crate::output::LogFile;
use crate::place::Place;
use crate::settings::RunSettings;
use crate::settings::console::ConsolePlace;
use crate::trace;
use anyhow::{Context as _, Result, bail};
use machine::{Config, Disk, MachineHandle, SavedMachine};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::stdio::{stderr, stdout};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What names a file whatever its path: device and inode.
type Identity = (u64, u64);

/// The files that this run has in use, and what for.
#[derive(Debug, Default)]
pub(crate) struct InUse(Vec<(Identity, String)>);

impl InUse {
    /// What the machine `saved` is made of.
    pub(crate) fn of_saved(saved: &SavedMachine) -> Self {
        let mut in_use = Self::default();
        in_use.add(saved.path(), "saved machine");
        saved.header.hardware.disks().for_each(|disk| in_use.add_disk(disk));
        saved.header.boot_paths().for_each(|path| in_use.add(path, "boot file"));
        in_use
    }

    /// What the machine of `config` is made of, and `sources`, which parts of it were made from.
    pub(crate) fn add_machine(&mut self, config: &Config, sources: &[PathBuf]) {
        let boot = &config.boot;
        let files = [(&boot.kernel, "kernel")].into_iter();
        let files = files.chain(boot.initrd.iter().map(|file| (file, "initrd")));
        for (file, role) in files.chain(boot.modules.iter().map(|(file, _)| (file, "module"))) {
            if let machine::File::Path(path) = file {
                self.add(path, role);
            }
        }
        config.hardware().disks().for_each(|disk| self.add_disk(disk));
        sources.iter().for_each(|path| self.add(path, "source"));
    }

    /// `disk`, with what it is built on.
    fn add_disk(&mut self, disk: &Disk) {
        self.add(&disk.path, "disk");
        let files = disk.image().files().unwrap_or_default();
        files.iter().skip(1).for_each(|path| self.add(path, "disk's backing file"));
    }

    /// The file at `path` is this run's `role`.
    fn add(&mut self, path: &Path, role: &str) {
        if let Ok(metadata) = fs::metadata(path) {
            self.0.push((identity(&metadata), role.to_owned()));
        }
    }

    fn role(&self, metadata: &Metadata) -> Option<&str> {
        let wanted = identity(metadata);
        self.0.iter().find_map(|(file, role)| (*file == wanted).then_some(&**role))
    }
}

/// Opens what `run` says that its machine is to write, now that nothing else can go wrong: the log
/// of its second line, and `console` if that is one.
///
/// # Errors
/// A file cannot be written, or is in use.
pub(crate) fn open(
    run: &RunSettings,
    log: &LogFile,
    console: &Place,
    in_use: &mut InUse,
) -> Result<()> {
    if let Some(path) = &run.log {
        log.open(create(path, "log", in_use)?);
    }
    if let (Some(ConsolePlace::Log(path)), Place::Log(console)) = (&run.console, console) {
        console.open(create(path, "console's log", in_use)?);
    }
    Ok(())
}

/// Opens the log of a restored machine.
///
/// # Errors
/// It cannot be written, or is in use.
pub(crate) fn open_log(path: &Path, log: &LogFile, in_use: &mut InUse) -> Result<()> {
    log.open(create(path, "log", in_use)?);
    Ok(())
}

/// Opens the process's trace.
///
/// # Errors
/// It cannot be written, or is in use.
pub(crate) fn open_trace(path: &Path, in_use: &mut InUse) -> Result<()> {
    trace::open(create(path, "trace", in_use)?);
    Ok(())
}

/// Opens the capture of the network of `machine`, and begins it.
///
/// # Errors
/// The machine has no network, or the file cannot be written, or is in use.
pub(crate) fn open_capture(
    path: &Path,
    capture: &LogFile,
    machine: &MachineHandle,
    in_use: &mut InUse,
) -> Result<()> {
    capture.open(create(path, "capture", in_use)?);
    if !machine.capture(Box::new(capture.clone())) {
        bail!("there is no network to write to {}; leave out `pcap`", path.display());
    }
    Ok(())
}

/// Closes the trace; false if its file has not taken all of it.
pub(crate) fn is_trace_whole() -> bool {
    match trace::finish() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("gemello: the trace is not complete: {error}");
            false
        }
    }
}

/// Opens the file at `path` to write this run's `role` (`log`, `trace`) to it, and empties it. It
/// stays locked as long as it is open: a machine that is given it as a disk refuses it.
///
/// # Errors
/// It cannot be opened, is no place for text, or is in use.
fn create(path: &Path, role: &str, in_use: &mut InUse) -> Result<File> {
    let shown = path.display();
    let attempt = || format!("cannot write the {role} to {shown}");
    // Non-blocking: a pipe without a reader would never open. Appending: two descriptors of one
    // file do not overwrite each other (`--log /dev/stderr 2> file`).
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(flags.bits() as i32);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            bail!("{}: nobody reads from it; start its reader first", attempt());
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            bail!("{}: it is a directory; name a file in it", attempt());
        }
        Err(error) => return Err(error).with_context(attempt),
    };
    let metadata = file.metadata().with_context(attempt)?;
    if let Some(other) = in_use.role(&metadata) {
        bail!("{}: it is the {other} of this run; name another file", attempt());
    }
    if metadata.file_type().is_block_device() {
        bail!("{}: it is a disk of this host; name a file", attempt());
    }
    if metadata.is_file() {
        // Some network file systems know no locks.
        if matches!(disk_image::claim(&file), Ok(false)) {
            bail!("{}: another machine has it in use; name another file", attempt());
        }
        if !is_standard_output(&metadata) {
            file.set_len(0).with_context(attempt)?;
        }
        in_use.0.push((identity(&metadata), role.to_owned()));
    }
    let flags = fcntl_getfl(&file).with_context(attempt)? - OFlags::NONBLOCK;
    fcntl_setfl(&file, flags).with_context(attempt)?;
    Ok(file)
}

/// Whether the program's own output goes there, which is not to be lost.
fn is_standard_output(metadata: &Metadata) -> bool {
    [stdout().as_fd(), stderr().as_fd()].into_iter().any(|fd| {
        rustix::fs::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity(metadata))
    })
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
