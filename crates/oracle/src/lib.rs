//! The native oracle: the host processor as the reference for every unprivileged instruction.
//!
//! Guest and host have the same instruction set, so what user level can execute, the host judges. A [`Case`] is
//! code and a register state; a [`Subject`] executes it and gives an [`Outcome`].

mod case;
mod derive;
mod native;
mod outcome;
mod prng;
mod subject;

pub use case::{Case, TokenError, layout};
pub use derive::{Memory, Registers, Template, template};
pub use native::{BATCH, NativeError, NativeRunner};
pub use outcome::{Change, Event, Outcome, X87Registers};
pub use prng::Rng;
pub use subject::Subject;
