//! The interpreter: decoded blocks, one function per operation.
//!
//! The function table is in [`crate::decode`]; here each group of instructions has its file. The
//! loop that runs blocks is [`crate::tier`].

pub(crate) mod arith;
pub(crate) mod bits;
pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod deliver;
pub(crate) mod events;
pub(crate) mod fetch;
pub(crate) mod fpu;
pub(crate) mod host_exec;
pub(crate) mod legacy;
pub(crate) mod stack;
pub(crate) mod string;
pub(crate) mod system;
pub(crate) mod thunks;

pub(crate) use fetch::perform;
