//! What is done in the guest of a machine that runs, by the agent's service in it or its own
//! services: commands, files, a way to its ports, ssh. docs/adr/0055-the-agent-as-a-service.md.
//!
//! The guest is not trusted: what it sends has bounds, and is written only where the user says.

pub(crate) mod arguments;
mod copy;
mod exec;
mod port;
mod ssh;

pub(crate) use copy::copy;
pub(crate) use exec::exec;
pub(crate) use port::netcat;
pub(crate) use ssh::ssh;

use agent_job::{FromAgent, Request, ToAgent};
use anyhow::{Result, bail};

use crate::control::Channel;

/// Asks the agent for what is done at once.
///
/// # Errors
/// It was not done.
fn ask(channel: &mut Channel, request: Request) -> Result<()> {
    channel.say(&ToAgent::Request(request))?;
    answer(channel)
}

/// Waits until the agent has done it.
///
/// # Errors
/// It was not done.
fn answer(channel: &mut Channel) -> Result<()> {
    match FromAgent::read(&mut channel.reader)? {
        Some(FromAgent::Ended(0)) => Ok(()),
        Some(FromAgent::Failed(why)) => bail!("{}", harmless(&why)),
        Some(_) => bail!("the agent answered something else"),
        None => bail!("the machine has gone"),
    }
}

/// A guest's words, without what a terminal would take for more than that.
fn harmless(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
