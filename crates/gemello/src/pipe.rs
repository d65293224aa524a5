//! Boot files that come through a pipe: `--kernel <(zcat image.gz)`.
//!
//! A pipe is read here, before the machine is built, so that `--timeout` bounds the wait for its
//! writer. The boot crate reads plain files only.

use anyhow::{Context as _, Result, bail};
use machine::{BootConfig, File};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a pipe may be without anybody who writes to it.
const WRITER: Duration = Duration::from_secs(2);

/// The largest wait between two looks at a pipe that nobody writes to yet.
const LOOK: Duration = Duration::from_millis(20);

/// What bounds the reading of a pipe.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Until when it must have ended.
    until: Option<Instant>,
    /// More bytes than this cannot be of use.
    bytes: u64,
}

/// Reads what comes through pipes, for as long as the run may take, and as much as a machine of
/// `memory` bytes can use.
///
/// # Errors
/// A pipe cannot be read to its end within the limits.
pub(crate) fn read_all(
    boot: &mut BootConfig,
    memory: u64,
    timeout: Option<Duration>,
) -> Result<()> {
    let limits = Limits::of(memory, timeout);
    let modules = boot.modules.iter_mut().map(|(file, _)| file);
    for file in [&mut boot.kernel].into_iter().chain(&mut boot.initrd).chain(modules) {
        if let File::Path(path) = file
            && let Some(bytes) = limits.read(path)?
        {
            *file = File::Bytes { name: path.display().to_string(), bytes: bytes.into() };
        }
    }
    Ok(())
}

/// What comes through the pipe at `path`, for as long as a run may take, and as much as a machine
/// of `memory` bytes can use. `None`: it is no pipe; what else is wrong with it is found where it
/// is read.
///
/// # Errors
/// It cannot be read to its end within the limits.
pub(crate) fn read(
    path: &Path,
    memory: Option<u64>,
    timeout: Option<Duration>,
) -> Result<Option<Vec<u8>>> {
    Limits::of(memory.unwrap_or_default(), timeout).read(path)
}

impl Limits {
    fn of(memory: u64, timeout: Option<Duration>) -> Self {
        Self {
            until: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            bytes: memory.max(256 << 20), // a kernel's file may hold more than is loaded of it
        }
    }

    fn read(self, path: &Path) -> Result<Option<Vec<u8>>> {
        if !fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            return Ok(None);
        }
        let attempt = || format!("cannot read the pipe {}", path.display());
        to_its_end(path, self).with_context(attempt).map(Some)
    }
}

fn to_its_end(path: &Path, limits: Limits) -> Result<Vec<u8>> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let mut pipe = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let began = Instant::now();
    let mut written = false; // somebody writes, or has written
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) if written => return Ok(bytes),
            Ok(0) if began.elapsed() >= WRITER => bail!("nobody writes to it"),
            Ok(0) => std::thread::sleep(LOOK), // its writer may be about to come
            Ok(count) => {
                written = true;
                bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                written = true;
                wait(&pipe, limits.until);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if bytes.len() as u64 > limits.bytes {
            let most = limits.bytes >> 20;
            bail!("it gives more than {most} MiB, for which the machine needs more memory");
        }
        if limits.until.is_some_and(|until| Instant::now() >= until) {
            bail!("its end does not come within the time that `timeout` gives");
        }
    }
}

/// Until something can be read, or the time is over.
fn wait(pipe: &fs::File, until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = left.map(|left| Timespec {
        tv_sec: left.as_secs().min(1 << 40) as i64,
        tv_nsec: left.subsec_nanos().into(),
    });
    let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], timeout.as_ref());
}
