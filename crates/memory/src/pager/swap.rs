//! The swap file: as large as memory, with its place on the disk, and without a name.

use crate::Error;
use rustix::fs::{FallocateFlags, fallocate, fstatfs, fstatvfs};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// File systems (`statfs`) of which a file is in memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6_u32 as i64;

/// A file of `bytes` bytes in the folder `at`, without a name: it is gone with the process. It has
/// its place on the disk, where the file system can promise that.
///
/// # Errors
/// The folder is none, is in memory itself, does not take such a file, or has not the room.
pub fn swap_file(at: &Path, bytes: u64) -> Result<File, Error> {
    let refused = |why: String| Error::Swap { folder: at.display().to_string(), why };
    let file = host::nameless_file(at).map_err(|error| refused(error.to_string()))?;
    let system = fstatfs(&file).map_err(|error| refused(error.to_string()))?;
    if [TMPFS, RAMFS].contains(&(system.f_type as i64)) {
        return Err(refused("it is in memory (tmpfs)".into()));
    }
    // Asked first, so that what cannot succeed does not fill the disk on its way there.
    let room = fstatvfs(&file).map_err(|error| refused(error.to_string()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < bytes {
        return Err(refused(full(bytes, free)));
    }
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A disk that becomes full is told of later then.
        Err(Errno::OPNOTSUPP) => file.set_len(bytes).map_err(|error| refused(error.to_string()))?,
        Err(Errno::NOSPC) => return Err(refused(full(bytes, free))),
        Err(error) => return Err(refused(error.to_string())),
        Ok(()) => {}
    }
    Ok(file)
}

fn full(bytes: u64, free: u64) -> String {
    let (wanted, free) = (bytes.div_ceil(1 << 20), free >> 20);
    format!("{wanted} MiB, as much as `memory`, are more than the {free} MiB that are free there")
}
