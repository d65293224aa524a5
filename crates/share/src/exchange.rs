//! A request and the place of its answer, wherever they are.

use rustix::fd::BorrowedFd;
use std::io;

/// Bytes of the request or of the answer that cannot be reached: they are not the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// Where in a file data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From this byte on.
    At(u64),
    /// To its end, in one step with finding it.
    End,
}

/// A request's bytes and room for its answer, each a stream in pieces. Data goes between file and
/// pieces directly.
pub trait Exchange {
    /// Bytes of the request.
    fn size(&self) -> usize;

    /// Bytes that the answer may have.
    fn room(&self) -> usize;

    /// Reads the request from byte `from` on, as many bytes as `into` has.
    ///
    /// # Errors
    /// They are not all there.
    fn read(&self, from: usize, into: &mut [u8]) -> Result<(), Unreachable>;

    /// Writes `bytes` to the answer from byte `from` on.
    ///
    /// # Errors
    /// There is not room for all.
    fn write(&self, from: usize, bytes: &[u8]) -> Result<(), Unreachable>;

    /// Fills up to `len` bytes of the answer, from byte `from` on, with what `file` has from byte
    /// `offset` on. How many there were.
    ///
    /// # Errors
    /// The host's.
    fn fill(&self, from: usize, len: usize, file: BorrowedFd<'_>, offset: u64)
    -> io::Result<usize>;

    /// Writes up to `len` bytes of the request, from byte `from` on, to `file`. How many went.
    ///
    /// # Errors
    /// The host's.
    fn drain(
        &self,
        from: usize,
        len: usize,
        file: BorrowedFd<'_>,
        place: Place,
    ) -> io::Result<usize>;
}
