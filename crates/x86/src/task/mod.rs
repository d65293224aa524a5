//! Tasks: what the task-state segment holds for privilege changes, and the hardware task switch
//! (SDM vol. 3, chapter 7).

mod layout;
mod switch;
mod tss;

pub use switch::{Cause, switch};
pub(crate) use tss::back_link;
pub use tss::{interrupt_stack, stack_pointer, stack_segment_pointer};
