//! What gemello tells the agent, which is process 1 of the guests that gemello makes itself: a
//! [`Job`], a file in their initial file system. Nothing of it is on the kernel's command line.
//!
//! The agent is `crates/agent`, which `crates/agent-image` builds for the guest, and
//! docs/adr/0049-the-agent.md tells what it does.
#![forbid(unsafe_code)]

mod job;

pub use job::{Errors, Folder, Job, JobError, Net, Program, Root, Streams};

/// Where the job is.
pub const JOB: &str = "etc/gemello/job";

/// Where the drivers are that the agent loads, in the order of their names.
pub const DRIVERS: &str = "etc/gemello/drivers";

/// What a port of a command's stream is called: this, and the stream's name.
pub const PORT: &str = "gemello.";

/// What each line begins with that the agent says on the second serial line.
pub const REPORT: &str = "gemello-init: ";
