//! Guest-physical memory: regions and the holes between them, and what all who share it owe each
//! other.
//!
//! [`GuestRam`] owns the host mapping (vm-memory's) and hands out checked access to devices and
//! loaders, and raw host pointers to engines, whose generated loads and stores cannot go through a
//! checked call. Guest memory is shared with other virtual processors, with devices and, if it is
//! backed by a file, with other processes: it is only ever touched by volatile or atomic accesses,
//! never through a Rust reference.
//!
//! The change log ([`Reader`], [`Change`]) tells of changes to memory from which something was
//! derived (decoded code, host addresses). Changes that no processor makes are logged explicitly
//! ([`GuestRam::wrote`], [`GuestRam::revoke`], [`GuestRam::take_dirty`]). See ADR 0023.

mod access;
mod advice;
mod attributes;
mod contract;
mod file_io;
mod follower;
mod give_up;
mod log;
mod pager;
mod ram;
mod reader;
mod resident;
mod split;
mod vectors;

pub use attributes::{ABSENT, CODE, DIRTY, PINNED, TRACK_DIRTY};
pub use contract::Pin;
pub use file_io::FilePlace;
pub use follower::Follower;
pub use log::{Change, Notify, REMEMBERED};
pub use pager::{
    Arrival, FETCHERS, Fetcher, LEAST_RESIDENT, OnLoss, Pager, PagerStats, Reclaimer, swap_file,
};
pub use ram::{Backing, Error, GuestRam, Page, Region};
pub use reader::Reader;
pub use split::SplitLock;
pub use vectors::{Patience, Vectors};
