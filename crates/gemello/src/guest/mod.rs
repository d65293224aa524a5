//! What is done in the guest of a machine that runs, by the agent's service in it or its own
//! services: commands, files, a way to its ports, ssh. docs/adr/0055-the-agent-as-a-service.md.
//!
//! The guest is not trusted: what it sends has bounds, and is written only where the user says.

mod answer;
pub(crate) mod arguments;
mod copy;
mod exec;
mod port;
mod ssh;

pub(crate) use copy::copy;
pub(crate) use exec::exec;
pub(crate) use port::netcat;
pub(crate) use ssh::ssh;
