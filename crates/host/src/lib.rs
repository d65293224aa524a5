//! What gemello asks of its own process: privileges given up, and an end in good order when the
//! host refuses memory.

mod allocation;
mod privileges;

pub use allocation::{Allocator, at_exhaustion, leave, one_arena};
pub use privileges::give_up_privileges;
