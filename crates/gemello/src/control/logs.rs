//! `gemello logs NAME`: what a machine has put out, and what it puts out.

use super::client::{self, Link};
use super::folder::Folder;
use super::protocol::Request;
use crate::exit;
use crate::output::Standard;
use anyhow::{Context as _, Result, bail};
use std::io::{self, Write as _};

/// Shows the last of what the machine `name` has put out, and all that follows if this is to
/// `follow`; of a detached one that has ended, what it has left.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn logs(name: &str, follow: bool) -> Result<u8> {
    let folder = Folder::open()?;
    let path = folder.log(name);
    let left = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.with_context(|| format!("cannot read {}", path.display()))?),
    };
    let runs = client::is_alive(&folder.socket(name))?;
    if !runs && left.is_none() {
        bail!("no machine called {name} runs, and none has left anything; see gemello ps");
    }
    Standard::Output.write_all(&left.unwrap_or_default()).context("cannot write the output")?;
    if runs {
        show(name, follow)?;
    }
    Ok(exit::OK)
}

fn show(name: &str, follow: bool) -> Result<()> {
    let mut link = Link::to(name)?;
    if link.ask(&Request::Log { follow })?.is_none() {
        bail!("{name} has just ended; once more shows what it has left");
    }
    link.stream.get_ref().set_read_timeout(None)?;
    io::copy(&mut link.stream, &mut Standard::Output).context("cannot show the output")?;
    Ok(())
}
