//! engine-soft

pub mod thunk;
