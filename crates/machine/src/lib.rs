//! A whole virtual computer: configuration, layout, the recipe to build one, the run loop, the
//! report of its end.
//!
//! [`Machine::build`] makes it from a [`Config`], [`Machine::run`] runs it to its [`End`]. The
//! machine never asks which engine it has: processors come from the engine that its user passes.
//!
//! Threads: those of the pool that runs its processors ([`sched::Pool`]), one for I/O
//! ([`console::Input`], timers; a deterministic machine has none), one per serial line's output,
//! with a budget those of the pager. Lock order: the devices' (see the crate `devices`), then this
//! crate's leaves: a line's output queue, the clock, the control of the run; then the scheduler's.
//! A request to a running machine ([`MachineHandle`]) takes the lock for requests first, then a
//! processor's.
#![forbid(unsafe_code)]

mod arrivals;
mod board;
mod boot_files;
mod build;
mod clock;
mod config;
pub mod console;
mod control;
mod cpu_io;
mod crew;
mod deterministic;
mod device;
mod digest;
mod end;
mod ends;
mod error;
mod firmware;
pub mod frequency;
mod generation;
mod handle;
mod init;
mod io_thread;
pub mod layout;
mod machine;
mod notifier;
mod paging;
mod panic;
mod power;
mod processor;
pub mod report;
mod reset;
mod run;
pub mod saved;
mod scratch;
mod stats;
mod task;
mod template;
mod virtio;
mod wiring;

pub use boot::BootError;
pub use boot_files::BootFileError;
pub use clock::VmClock;
pub use config::{
    BootConfig, Config, ConfigError, File, Hardware, MEMORY_MAX, MEMORY_MIN, MEMORY_UNIT, Paging,
    Transport,
};
pub use control::Phase;
pub use device::{
    Device, Disk, Network, PORT_NAME_MAX, PORTS_MAX, Port, SCRATCH_MAX, Scratch, Share, Vsock,
};
pub use devices::bus::{Place, Unclaimed};
pub use devices::virtio::balloon::{BalloonReport, GuestStats};
pub use devices::virtio::blk::Cache;
pub use devices::virtio::console::PortStats;
pub use devices::virtio::net::{
    Activity, Cable, Flows, Forward, Ipv6, Link, Mac, NetStats, Protocol, Sink, Switch, Traffic,
    UserConfig,
};
pub use devices::virtio::vsock::VsockPort;
pub use digest::{Digest, DigestError};
pub use end::End;
pub use error::{BalloonError, BuildError, ControlError, EntranceError, ResetError, SaveError};
pub use handle::MachineHandle;
pub use machine::Machine;
pub use memory::PagerStats;
pub use notifier::Notifier;
pub use power::Stopper;
pub use saved::file::{FileError, SavedMachine};
pub use saved::{MachineState, RestoreError, VirtioState};
pub use share::{Cache as ShareCache, Follower, Options as ShareOptions, Owner, ShareStats};
pub use stats::{Exits, ProcessorStats, Stats};
pub use virtio::SharedFolder;
pub use wiring::Lines;
