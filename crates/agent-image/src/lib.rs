//! The agent as bytes: a static executable, built from `crates/agent` (see `build.rs`).
#![forbid(unsafe_code)]

/// What the initial file system has as `/init`.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.elf"));
