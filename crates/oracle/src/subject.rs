//! What is held against the processor.

mod adapter;
mod guest;

pub use adapter::{VcpuSubject, guest_ram};

use crate::case::Case;
use crate::outcome::Outcome;

/// Something that executes cases.
pub trait Subject {
    /// Executes `case` from its initial state to the event that ends it.
    fn run(&mut self, case: &Case) -> Outcome;
}
