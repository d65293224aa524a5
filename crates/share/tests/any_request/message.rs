//! A request and its answer in the test's own memory.

use rustix::fd::BorrowedFd;
use share::{Exchange, Place, Unreachable};
use std::cell::RefCell;
use std::io;

/// A request, and room for its answer.
pub(crate) struct Message {
    pub(crate) request: Vec<u8>,
    pub(crate) answer: RefCell<Vec<u8>>,
    /// Where in a file it may write at the most.
    most: u64,
}

impl Message {
    /// One that may write anywhere in a file up to byte `most`.
    pub(crate) fn bounded(request: Vec<u8>, room: usize, most: u64) -> Self {
        Self { request, answer: RefCell::new(vec![0; room]), most }
    }
}

impl Exchange for Message {
    fn size(&self) -> usize {
        self.request.len()
    }

    fn room(&self) -> usize {
        self.answer.borrow().len()
    }

    fn read(&self, from: usize, into: &mut [u8]) -> Result<(), Unreachable> {
        let end = from.checked_add(into.len()).ok_or(Unreachable)?;
        into.copy_from_slice(self.request.get(from..end).ok_or(Unreachable)?);
        Ok(())
    }

    fn write(&self, from: usize, bytes: &[u8]) -> Result<(), Unreachable> {
        let mut answer = self.answer.borrow_mut();
        let end = from.checked_add(bytes.len()).ok_or(Unreachable)?;
        answer.get_mut(from..end).ok_or(Unreachable)?.copy_from_slice(bytes);
        Ok(())
    }

    fn fill(
        &self,
        from: usize,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let mut answer = self.answer.borrow_mut();
        Ok(rustix::io::pread(file, &mut answer[from..from + len], offset)?)
    }

    fn drain(
        &self,
        from: usize,
        len: usize,
        file: BorrowedFd<'_>,
        place: Place,
    ) -> io::Result<usize> {
        let offset = match place {
            Place::At(offset) => offset,
            Place::End => rustix::fs::fstat(file)?.st_size as u64,
        };
        if offset > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(rustix::io::pwrite(file, &self.request[from..from + len], offset)?)
    }
}
