//! Disk images of the host: raw and qcow2 behind one trait, who may open them, and their tools.
//!
//! A qcow2 image is read and written by the crate `imago`; which files an image may make us open is
//! decided here ([`Backing`]). Every file that is opened is locked (`lock.rs`): one writer, or any
//! number of readers, gemello's and QEMU's.

mod check;
mod error;
mod file;
mod format;
mod header;
mod limit;
mod lock;
mod open;
mod qcow2;
mod raw;
mod ring;
mod space;
mod straight;
pub mod tools;
mod transfer;

pub use error::ImageError;
pub use format::{Format, ImageFormat};
pub use limit::{Limit, Limiter};
pub use lock::claim;
pub use open::{Backing, Image};
pub use raw::RawImage;
pub use ring::Ring;
pub use straight::{HostCache, Straight};
pub use transfer::Transfer;

use std::io;

/// Bytes of a sector, the unit of a disk's addresses (virtio 1.2, 5.2.6).
pub const SECTOR: u64 = 512;

/// Whether a disk can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAccess {
    /// It can.
    ReadWrite,
    /// It can only be read.
    ReadOnly,
}

/// What happens to the host's space where zeros are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It stays the disk's.
    Keep,
    /// It may be given back.
    GiveBack,
}

/// Where a disk keeps its sectors. Any thread may call it, several at a time; a call may block.
/// Ranges are whole sectors on the disk.
pub trait Storage: Send + Sync + 'static {
    /// Sectors that it has; never changes.
    fn sectors(&self) -> u64;

    /// Bytes of the unit in which it gives space back.
    fn granule(&self) -> u32;

    /// Fills `into` from byte `offset`.
    ///
    /// # Errors
    /// The host's.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes `from` at byte `offset`.
    ///
    /// # Errors
    /// The host's.
    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes what the host has of it outlast a crash of the host.
    ///
    /// # Errors
    /// The host's. Linux may then have dropped what it could not write, and tell no second call.
    fn sync(&self) -> io::Result<()>;

    /// Makes everything written so far outlast a crash of the host.
    ///
    /// # Errors
    /// The host's.
    fn flush(&self) -> io::Result<()> {
        self.settle()?;
        self.sync()
    }

    /// The range's content is not needed any more. What it reads as afterwards is open.
    ///
    /// # Errors
    /// The host's. That it cannot give space back is none.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// The range reads as zeros from now on.
    ///
    /// # Errors
    /// The host's.
    fn write_zeroes(&self, offset: u64, bytes: u64, space: Space) -> io::Result<()>;

    /// The file in which each byte of the disk is at its own place, if there is one. Whoever uses
    /// it keeps to the disk's size.
    fn straight(&self) -> Option<&Straight> {
        None
    }

    /// Hands the host what is still kept in this process, so that the file stands still.
    ///
    /// # Errors
    /// The host's. What it has not taken is kept, for another call.
    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}
