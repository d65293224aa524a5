//! All devices on one bus, driven by arbitrary accesses.

mod accesses;
mod rig;
mod saved;
