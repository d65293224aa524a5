//! What gemello asks of its own process: privileges given up, an end in good order when the
//! host refuses memory, signal handlers that pass on what is not theirs, files without a name,
//! panics that end one machine, time used for one, TAP devices, code that only starting up needed,
//! as many open files as the host allows, one heap.

mod allocation;
mod descriptors;
mod heap;
mod nameless;
mod owner;
mod privileges;
mod ranges;
mod service_time;
mod signal;
mod tap;
mod text;

pub use allocation::{Allocator, at_exhaustion, leave};
pub use descriptors::raise_open_files;
pub use heap::one_heap;
pub use nameless::nameless_file;
pub use owner::Owner;
pub use privileges::give_up_privileges;
pub use ranges::Ranges;
pub use service_time::{Counted, ServiceTime};
pub use signal::{Handler, chain, install_handler};
pub use tap::{Tap, TapError};
pub use text::forget_code;
