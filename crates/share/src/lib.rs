//! Folders of the host for guests: a FUSE server (protocol 7.38) over one folder, which it never
//! leaves. It knows nothing of how requests come and answers go ([`Exchange`]).
//!
//! ```text
//! request ──► Share::serve ──► inodes: the guest's number ──► O_PATH descriptor, name below it
//!                         └──► handles: what is open ◄──data, by no copy──► Exchange
//! ```
//! The guest's kernel walks paths, follows links and checks permissions; a request names a file by
//! number, or by one name in a directory. The server asks the host's kernel for that with the
//! rights of the host's user, and never changes these. So a guest gets what this user may do below
//! the folder, and nothing else: `confined.rs` says why. See docs/adr/0047-shared-folders.md.
//!
//! Any number of threads may call [`Share::serve`] at once. Locks: that of the inodes, then that of
//! the handles; a handle's own before both.

#![forbid(unsafe_code)]

mod absent;
mod attributes;
mod confined;
mod descriptors;
mod exchange;
mod follower;
mod handles;
mod inodes;
mod message;
mod owner;
mod saved;
mod server;
mod stats;
mod streams;
mod watches;
mod wire;

pub use exchange::{Exchange, Place, Unreachable};
pub use follower::Follower;
pub use owner::Owner;
pub use saved::ShareState;
pub use server::{Cache, Options, Share, ShareError};
pub use stats::ShareStats;
