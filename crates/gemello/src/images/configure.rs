//! The first boot of a system: its packages are configured, by a machine in a process of its own,
//! which ends with this one however this one ends.

use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, PipeReader, Write as _, stderr};
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines of the guest's that are shown where it fails.
const SHOWN: usize = 20;
/// What dpkg says of each package.
const SETTING_UP: &str = "Setting up ";

/// Runs `stage` in a guest on the root in `folder`, which has so many `packages`.
///
/// # Errors
/// The stage failed; its last words are in the message.
pub(super) fn configure(
    folder: &Path,
    stage: &str,
    kernel: &str,
    essential: &[String],
    packages: usize,
) -> Result<()> {
    eprintln!("gemello: configuring {packages} packages, in a guest");
    let program = std::env::current_exe().context("cannot tell this program's path")?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let both = writer.try_clone().context("cannot share a pipe")?;
    let mut command = Command::new(&program);
    command.arg("tethered").arg(std::process::id().to_string()).arg(program);
    command.arg("configure").arg(folder).args(["sh", "-c", stage, "configure", kernel]);
    command.args(essential).stdin(Stdio::null()).stdout(writer).stderr(both);
    let mut child = command.spawn().context("cannot start a guest")?;
    drop(command); // and its ends of the pipe
    let last = follow(reader, folder, packages)?;
    let status = child.wait().context("cannot wait for the guest")?;
    if !status.success() {
        let last: Vec<_> = last.into_iter().collect();
        bail!(
            "the packages could not be configured: {status}; the guest's last words:\n{}",
            last.join("\n")
        );
    }
    Ok(())
}

/// Shows how far the guest is; its last lines, at its end. All are kept in `folder` meanwhile.
fn follow(output: PipeReader, folder: &Path, packages: usize) -> Result<VecDeque<String>> {
    let path = folder.join("log");
    let mut log = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let (mut last, mut done) = (VecDeque::new(), 0);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the guest says")?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let _ = writeln!(log, "{line}"); // for who looks on
        if let Some(name) = line.strip_prefix(SETTING_UP) {
            done += 1;
            say(done, packages, name.split(' ').next().unwrap_or_default());
        }
        last.push_back(line);
        if last.len() > SHOWN {
            last.pop_front();
        }
    }
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let _ = std::fs::remove_file(path);
    Ok(last)
}

/// On a terminal, in one line.
fn say(done: usize, packages: usize, name: &str) {
    let (begin, end) = if stderr().is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
    eprint!("{begin}gemello: configuring {done} of {packages}: {name}{end}");
}
