//! `gemello logs NAME`: what a machine has put out, and what it puts out.

use super::client::Link;
use super::folder::Folder;
use super::protocol::{Answer, Request};
use crate::exit;
use crate::output::Standard;
use anyhow::{Context as _, Result};
use std::io::{self, Write as _};
use std::path::Path;

/// Shows the last of what the machine `name` has put out, and all that follows if this is to
/// `follow`; of a detached one that has ended, what it has left.
///
/// # Errors
/// There is no such machine, or it does not answer.
pub(crate) fn logs(name: &str, follow: bool) -> Result<u8> {
    let path = Folder::open()?.log(name);
    // Read before the machine is asked: at its end what it answers is added here.
    let messages = left(&path)?.unwrap_or_default();
    if let Some(mut link) = Link::find(name)?
        && let Some(Answer::Done) = link.ask(&Request::Log { follow })?
    {
        put_out(&messages)?;
        link.stream.get_ref().set_read_timeout(None)?;
        io::copy(&mut link.stream, &mut Standard::Output).context("cannot show the output")?;
        return Ok(exit::OK);
    }
    let left = left(&path)?.with_context(|| {
        format!("no machine called {name} runs, and none has left anything; see gemello ps")
    })?;
    put_out(&left)?;
    Ok(exit::OK)
}

/// What a detached machine has left at `path`, if there was one.
fn left(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn put_out(bytes: &[u8]) -> Result<()> {
    Standard::Output.write_all(bytes).context("cannot write the output")
}
