//! `gemello nc NAME PORT`: this process's input and output are a connection to the guest's port.

use super::answer::ask;
use super::arguments::Netcat;
use crate::control::{self, Channel};
use crate::exit;
use crate::output::Standard;
use agent_job::Request;
use anyhow::{Context as _, Result};
use std::io;
use std::net::Shutdown;
use std::thread;

/// Carries both ways, until the guest ends it.
///
/// # Errors
/// There is no such machine, its guest does not answer, or nobody listens.
pub(crate) fn netcat(Netcat { name, port }: &Netcat) -> Result<u8> {
    let Channel { mut reader, writer } = to_port(name, *port)?;
    let mut output = writer;
    let carry = move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut output);
        let _ = output.shutdown(Shutdown::Write);
    };
    thread::Builder::new().name("input".into()).spawn(carry).context("cannot start a thread")?;
    io::copy(&mut reader, &mut Standard::Output).context("the connection is lost")?;
    Ok(exit::OK)
}

/// To a port of the guest's virtio sockets; where nobody listens there, to a TCP port of its
/// loopback, by the agent.
fn to_port(name: &str, port: u32) -> Result<Channel> {
    if let Some(channel) = control::reach(name, port)? {
        return Ok(channel);
    }
    let nobody = || format!("nobody listens at port {port} of virtio sockets in {name}");
    let tcp = u16::try_from(port).with_context(nobody)?;
    let mut channel = control::agent(name).with_context(nobody)?;
    ask(&mut channel, Request::Forward(tcp)).with_context(nobody)?;
    Ok(channel)
}
