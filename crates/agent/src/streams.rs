//! A command's streams: a pipe for the program, a port of the console device to the host, and a
//! thread that carries. Programs may open a pipe again, and only one may have a port open.

use agent_job::PORT;
use anyhow::{Context as _, Result};
use rustix::fs::{Uid, fchown};
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes that are carried at once.
const PIECE: usize = 64 << 10;

/// How long a port that is not there yet is waited for between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// What comes from the program.
#[derive(Default)]
pub(crate) struct Ports(Vec<(PathBuf, JoinHandle<()>)>);

impl Ports {
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// What is written to the pipe, which is the user `uid`'s, goes to the port of this name.
    pub(crate) fn carry_out(&mut self, name: &str, uid: u32) -> Result<PipeWriter> {
        let path = find(name);
        let mut port = open(OpenOptions::new().write(true), &path)?;
        let (mut reader, writer) = pipe(uid)?;
        let carrier = thread::spawn(move || {
            let _ = carry(&mut reader, &mut port); // where the host hangs up, the writer is told
        });
        self.0.push((path, carrier));
        Ok(writer)
    }

    /// What comes from the port is in the pipe. The port's end is the pipe's.
    pub(crate) fn carry_in(&self, name: &str, uid: u32) -> Result<PipeReader> {
        let mut port = open(OpenOptions::new().read(true), &find(name))?;
        let (reader, mut writer) = pipe(uid)?;
        thread::spawn(move || {
            let _ = carry(&mut port, &mut writer); // where nobody reads, nobody needs it
        });
        Ok(reader)
    }

    /// Waits until all has been carried out, and the host has taken it: then it hangs up.
    pub(crate) fn finish(self) {
        for (path, carrier) in self.0 {
            let _ = carrier.join();
            let Ok(mut port) = File::open(&path) else { continue };
            let _ = io::copy(&mut port, &mut io::sink());
        }
    }
}

fn pipe(uid: u32) -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    fchown(&reader, Some(Uid::from_raw(uid)), None).context("cannot give a pipe to the user")?;
    Ok((reader, writer))
}

fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(piece.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn open(options: &OpenOptions, path: &Path) -> Result<File> {
    options.open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// The device file of a port, which the driver makes when it comes to it.
fn find(name: &str) -> PathBuf {
    let wanted = format!("{PORT}{name}");
    loop {
        let ports = fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        for port in ports {
            let called = fs::read_to_string(port.path().join("name")).unwrap_or_default();
            let device = Path::new("/dev").join(port.file_name());
            if called.trim_end() == wanted && device.exists() {
                return device;
            }
        }
        thread::sleep(LOOK);
    }
}
