//! How the agent comes to its job: by a file in the initial file system, or else by asking. Who
//! asks may wait for long, and be many: the machine is saved meanwhile, and each that goes on from
//! there is told another job, what time it is, and random bytes of its own.

use crate::entropy;
use crate::lines::{Control, set_realtime};
use agent_job::{ASKS, Briefing, JOB};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The job's bytes.
pub(crate) fn job() -> Result<Vec<u8>> {
    match fs::read(Path::new("/").join(JOB)) {
        Err(error) if error.kind() == ErrorKind::NotFound => ask(),
        read => read.with_context(|| format!("no /{JOB}")),
    }
}

fn ask() -> Result<Vec<u8>> {
    let mut line = Control::raw()?;
    line.report(ASKS)?;
    let Briefing { now, seed, job } = line.briefing().context("cannot hear the job")?;
    entropy::add(&seed).context("random numbers of this guest's own")?;
    set_realtime(now);
    Ok(job)
}
