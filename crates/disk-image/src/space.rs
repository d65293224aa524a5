//! What the host does with a file's space, or cannot do by itself.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Gives the host the space of a range of `file`, which reads as zeros then. Not where the host
/// cannot.
pub(crate) fn punch(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    allocate(file, FallocateFlags::PUNCH_HOLE, offset, bytes).map(drop)
}

/// Has the host do `how` to a range of `file`, whose size stays. False: it cannot.
pub(crate) fn allocate(
    file: &File,
    how: FallocateFlags,
    offset: u64,
    bytes: u64,
) -> io::Result<bool> {
    match fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes zeros to a range, by `write` of bytes at an offset.
pub(crate) fn zero(
    mut offset: u64,
    mut bytes: u64,
    write: impl Fn(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    while bytes > 0 {
        let now = bytes.min(ZEROS.len() as u64);
        write(&ZEROS[..now as usize], offset)?;
        offset += now;
        bytes -= now;
    }
    Ok(())
}
