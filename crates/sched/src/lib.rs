//! Many virtual processors on few host processors: multiprogramming below the guest.
//!
//! A [`Pool`] has some worker threads. Each runs one [`Task`] (a virtual processor) at a time, and
//! switches to the next by round robin when the task parks (HLT), yields, ends, or has used up its
//! quantum while others wait. A parked task occupies no thread.
//!
//! - [`policy`]: which is next. A pure value.
//! - [`switch`]: the context switch in three steps.
//! - [`hub`]: what the threads share; waking, parking, holding.
//! - [`idle`]: how a worker waits that has no task.
//! - [`pool`]: the threads, and the machines ([`Group`]) that use them.
//!
//! A machine gets time by its [`Share`]. [`Usage`] tells what each task has had, its steal time
//! included.
//!
//! Threads: the workers, and one that sleeps until a quantum or a budget ends. Lock order: the
//! hub's lock is a leaf but for those of `vcpu::Signals`.
#![forbid(unsafe_code)]

mod clock;
mod hub;
mod idle;
mod ids;
mod policy;
mod pool;
mod rivals;
mod share;
mod switch;
mod task;
mod usage;

pub use ids::TaskId;
pub use pool::{Group, Pool, QUANTUM, workers};
pub use rivals::Rivals;
pub use share::{Limit, Share, Weight};
pub use task::{Task, Turn};
pub use usage::Usage;
