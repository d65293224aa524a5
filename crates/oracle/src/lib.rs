//! The native oracle: the host processor as the reference for every unprivileged instruction.
//!
//! Guest and host have the same instruction set, so what user level can execute, the host judges. A
//! [`Case`] is code and a register state; [`NativeRunner`] executes it on the host in a sandboxed
//! child process, a [`Subject`] executes it in an engine, both give an [`Outcome`], and [`compare`]
//! says what differs.
//!
//! [`Generator`] makes cases from a seed, [`shrink()`] makes a mismatching one small, and
//! [`Case::to_token`] prints it so that it can be replayed. Nothing here knows a particular engine:
//! [`VcpuSubject`] drives any [`vcpu::Vcpu`].

mod case;
mod derive;
pub mod generate;
mod native;
mod outcome;
mod report;
mod shrink;
mod subject;
mod undefined;
mod vendor;

pub use case::{Case, TokenError, layout};
pub use derive::{Memory, Registers, Template, template};
pub use generate::{Features, Generator, Options};
pub use native::{BATCH, NativeError, NativeRunner};
pub use outcome::{Change, Event, Outcome, X87Registers};
pub use report::{Difference, compare, describe};
pub use shrink::shrink;
pub use subject::{Subject, VcpuSubject, guest_ram};
pub use test_support::Rng;
pub use undefined::{Mask, mask};
pub use vendor::stopped_early;
