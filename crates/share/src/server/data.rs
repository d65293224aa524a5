//! READ, WRITE and what else is done with the content of an open file.

use super::{DATA, Share};
use crate::confined::errno;
use crate::exchange::{Exchange, Place};
use crate::message::{Answer, Arguments};
use crate::stats::Counters;
use crate::wire;
use rustix::fd::AsFd as _;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;
use sync::lock;

/// Bytes of a COPY_FILE_RANGE at the most: the guest asks for the rest. None keeps the server busy
/// for long.
const COPY: u64 = 64 << 20;

impl Share {
    /// The data is in its place when this returns: its bytes.
    pub(super) fn read(
        &self,
        mut arguments: Arguments<'_>,
        exchange: &impl Exchange,
    ) -> Result<usize, Errno> {
        let (number, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
        let handle = self.handles.get(number)?;
        let room = exchange.room().saturating_sub(wire::OUT_HEADER);
        let len = room.min(size as usize).min(DATA);
        let count = exchange
            .fill(wire::OUT_HEADER, len, handle.file()?.as_fd(), offset)
            .map_err(|error| errno(&error))?;
        Counters::count(&self.counters.read, count as u64);
        Ok(count)
    }

    pub(super) fn write(
        &self,
        mut arguments: Arguments<'_>,
        exchange: &impl Exchange,
    ) -> Result<Answer, Errno> {
        let (number, offset, size) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
        let write_flags = arguments.u32()?;
        arguments.take(8)?; // lock_owner
        let flags = OFlags::from_bits_retain(arguments.u32()?);
        let handle = self.handles.get(number)?;
        let from = wire::IN_HEADER + wire::WRITE_IN;
        let there = exchange.size().saturating_sub(from);
        let len = size as usize;
        if len > there || len > DATA {
            return Err(Errno::INVAL);
        }
        let appends = flags.contains(OFlags::APPEND) && write_flags & wire::WRITE_CACHE == 0;
        let place = if appends { Place::End } else { Place::At(offset) };
        let count = self.changing(handle.inode, || {
            let written = exchange.drain(from, len, handle.file()?.as_fd(), place);
            written.map_err(|error| errno(&error))
        })?;
        Counters::count(&self.counters.written, count as u64);
        Ok(write_out(count))
    }

    pub(super) fn fallocate(&self, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        let (number, offset, len) = (arguments.u64()?, arguments.u64()?, arguments.u64()?);
        let mode = FallocateFlags::from_bits(arguments.u32()?).ok_or(Errno::OPNOTSUPP)?;
        let known =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let handle = self.handles.get(number)?;
        self.changing(handle.inode, || fallocate(handle.file()?, mode, offset, len))?;
        Ok(Answer::default())
    }

    pub(super) fn lseek(&self, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        let (number, offset, whence) = (arguments.u64()?, arguments.u64()?, arguments.u32()?);
        let from = match whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let handle = self.handles.get(number)?;
        let _alone = lock(&handle.position);
        let mut answer = Answer::default();
        answer.u64(seek(handle.file()?, from)?);
        Ok(answer)
    }

    pub(super) fn copy_file_range(&self, mut arguments: Arguments<'_>) -> Result<Answer, Errno> {
        let (from, mut offset) = (self.handles.get(arguments.u64()?)?, arguments.u64()?);
        arguments.take(8)?; // nodeid_out
        let (to, mut at) = (self.handles.get(arguments.u64()?)?, arguments.u64()?);
        let (len, flags) = (arguments.u64()?, arguments.u64()?);
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        let len = len.min(COPY) as usize;
        let (file, into) = (from.file()?, to.file()?);
        let count = self.changing(to.inode, || {
            copy_file_range(file, Some(&mut offset), into, Some(&mut at), len)
        })?;
        Counters::count(&self.counters.written, count as u64);
        Ok(write_out(count))
    }
}

/// `fuse_write_out`.
fn write_out(count: usize) -> Answer {
    let mut answer = Answer::default();
    answer.u32(count as u32).u32(0);
    answer
}
