//! What the agent answers, and what may be shown of it.

use crate::control::Channel;
use agent_job::{FromAgent, Request, ToAgent};
use anyhow::{Result, bail};

/// Asks the agent for what is done at once.
///
/// # Errors
/// It was not done.
pub(super) fn ask(channel: &mut Channel, request: Request) -> Result<()> {
    channel.say(&ToAgent::Request(request))?;
    answer(channel)
}

/// Waits until the agent has done it.
///
/// # Errors
/// It was not done.
pub(super) fn answer(channel: &mut Channel) -> Result<()> {
    match FromAgent::read(&mut channel.reader)? {
        Some(FromAgent::Ended(0)) => Ok(()),
        Some(FromAgent::Failed(why)) => bail!("{}", harmless(&why)),
        Some(_) => bail!("the agent answered something else"),
        None => bail!("the machine has gone"),
    }
}

/// A guest's words, without what a terminal would take for more than that.
pub(super) fn harmless(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
