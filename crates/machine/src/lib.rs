//! A whole virtual computer: configuration, layout, the recipe to build one, the run loop, the report of its end.
//!
//! [`Machine::build`] makes it from a [`Config`], [`Machine::run`] runs it to its [`End`]. The machine never asks which
//! engine it has: processors come from a function that its user passes.
//!
//! Threads: one per processor, one for I/O ([`console::Input`], timers), one per serial line's output. Lock order: the
//! devices' (see the crate `devices`), then this crate's leaves: a line's output queue, the clock, the end of the run.
#![forbid(unsafe_code)]

mod bell;
mod build;
mod clock;
mod config;
pub mod console;
mod cpu_io;
pub mod frequency;
mod io_thread;
pub mod layout;
mod power;
pub mod report;
mod reset;
mod run;
pub mod saved;
mod stats;

pub use bell::Bell;
pub use boot::BootError;
pub use build::{BuildError, Lines, Machine, NewVcpu};
pub use clock::VmClock;
pub use config::{
    BootConfig, Config, ConfigError, Disk, File, MEMORY_MAX, MEMORY_MIN, MEMORY_UNIT,
};
pub use devices::virtio::blk::{Format, ImageError, Trust};
pub use power::{End, Stopper};
pub use saved::{MachineState, RestoreError};
pub use stats::{Exits, ProcessorStats, Stats, vector_name};
