//! What gemello and the agent tell each other.
//!
//! Process 1 of the guests that gemello makes itself is told by a [`Job`]: a file in their initial
//! file system, or where there is none, what it is sent when it asks ([`Briefing`]). Nothing of it
//! is on the kernel's command line. Once the guest runs, its service
//! answers at [`AGENT_PORT`]: a connection carries a [`Request`], and frames ([`ToAgent`],
//! [`FromAgent`]).
//!
//! The agent is `crates/agent`, which `crates/agent-image` builds for the guest, and
//! docs/adr/0049-the-agent.md and docs/adr/0055-the-agent-as-a-service.md tell what it does.
#![forbid(unsafe_code)]

mod briefing;
mod job;
mod pieces;
mod request;
mod text;
mod wire;

pub use briefing::{Briefing, Seed};
pub use job::{Errors, Folder, Job, JobError, Net, Program, Root, Streams};
pub use pieces::{Carried, Pieces};
pub use request::{Exec, Request};
pub use wire::{FromAgent, PIECE, ToAgent, WINDOW};

/// The port of the guest's virtio sockets at which the agent answers. Below 1024, so that none of
/// the guest's users but root can pose as it.
pub const AGENT_PORT: u32 = 1023;

/// Where the job is, unless the agent is to ask for it.
pub const JOB: &str = "etc/gemello/job";

/// What the agent says when it asks for its job: no device has been touched by then.
pub const ASKS: &str = "asks";

/// What a line begins with that tells a restored guest random bytes, which follow: a [`Seed`].
pub const SEED: &str = "seed ";

/// Where the drivers are that the agent loads first, in the order of their names.
pub const DRIVERS: &str = "etc/gemello/drivers";

/// Where those of the bus are: with these the devices are there, and have their drivers.
pub const BUS_DRIVERS: &str = "etc/gemello/bus";

/// Where those are that it loads once it is to answer at its port.
pub const LATER_DRIVERS: &str = "etc/gemello/later";

/// What a port of a command's stream is called: this, and the stream's name.
pub const PORT: &str = "gemello.";

/// What each line begins with that the agent says on the second serial line.
pub const REPORT: &str = "gemello-init: ";

/// What it says when it listens at [`AGENT_PORT`], or is just about to.
pub const SERVING: &str = "serving";

/// What it begins with when it will not, and then says why.
pub const NO_SERVICE: &str = "no service: ";
