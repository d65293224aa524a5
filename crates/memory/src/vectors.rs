//! Guest memory as the host's own calls take it: files are read into it, and written from it,
//! without a copy between.
//!
//! Only where memory has no pager: what is to be paged out must not change behind the pager's back,
//! and what it has lost must not get out.
#![allow(unsafe_code)] // Reason: preadv2 and pwritev2 on guest pages; their addresses move threads.

use crate::GuestRam;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use x86::addr::Gpa;

/// Most pieces that a call of the host's takes (IOV_MAX).
pub(crate) const PIECES: usize = 1024;

/// Pieces of guest memory, one stream of bytes, which stay mapped while this lives.
pub struct Vectors {
    ram: GuestRam,
    /// Pieces that were transferred already come before `first`.
    list: Vec<libc::iovec>,
    first: usize,
}

// SAFETY: the addresses are of guest memory, which any thread may access by the host's calls, and
// which `ram` keeps mapped wherever this goes. `host_address` gave them.
unsafe impl Send for Vectors {}

/// How a transfer is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The thread waits for it.
    Wait,
    /// Only as much as can be done at once; [`io::ErrorKind::WouldBlock`] if that is nothing.
    AtOnce,
}

impl GuestRam {
    /// The stream that `pieces`, guest-physical addresses and lengths, are. `None`: one of them is
    /// not (all) RAM, or the host's calls cannot take them as they are.
    pub fn vectors(&self, pieces: impl IntoIterator<Item = (Gpa, u64)>) -> Option<Vectors> {
        if self.shared.pager.get().is_some() {
            return None;
        }
        let list = self.iovecs(pieces)?;
        (list.len() <= PIECES).then(|| Vectors { ram: self.clone(), list, first: 0 })
    }

    /// Where `pieces` are in the host's mapping. `None`: one of them is not (all) RAM.
    pub(crate) fn iovecs(
        &self,
        pieces: impl IntoIterator<Item = (Gpa, u64)>,
    ) -> Option<Vec<libc::iovec>> {
        let piece = |(gpa, len): (Gpa, u64)| {
            let base = self.host_address(gpa, len)?.cast();
            Some(libc::iovec { iov_base: base, iov_len: usize::try_from(len).ok()? })
        };
        pieces.into_iter().map(piece).collect()
    }
}

impl Vectors {
    /// What is left to transfer: addresses in the host's mapping, good while this lives.
    pub fn rest(&self) -> &[libc::iovec] {
        &self.list[self.first..]
    }

    /// Whether nothing is left to transfer.
    pub fn is_done(&self) -> bool {
        self.first == self.list.len()
    }

    /// The next `bytes` have been transferred.
    pub fn advance(&mut self, mut bytes: usize) {
        while let Some(piece) = self.list.get_mut(self.first) {
            if bytes < piece.iov_len {
                piece.iov_base = piece.iov_base.wrapping_byte_add(bytes);
                piece.iov_len -= bytes;
                return;
            }
            bytes -= piece.iov_len;
            self.first += 1;
        }
    }

    /// Fills what is left from byte `offset` of `file`, or a part of it. How many bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn read_from(&self, file: &File, offset: u64, patience: Patience) -> io::Result<usize> {
        let flags = match patience {
            Patience::Wait => 0,
            Patience::AtOnce => libc::RWF_NOWAIT,
        };
        let (rest, at) = (self.rest(), offset as libc::off64_t);
        // SAFETY: the pieces lie in live mappings of guest memory that `ram` keeps; no Rust object
        // is there. `GuestRam::vectors` made the list.
        outcome(unsafe {
            libc::preadv2(file.as_raw_fd(), rest.as_ptr(), rest.len() as i32, at, flags)
        })
    }

    /// Writes what is left at byte `offset` of `file`, or a part of it. How many bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn write_to(&self, file: &File, offset: u64) -> io::Result<usize> {
        let (rest, at) = (self.rest(), offset as libc::off64_t);
        // SAFETY: the pieces lie in live mappings of guest memory that `ram` keeps, and the host
        // only reads them. `GuestRam::vectors` made the list.
        outcome(unsafe {
            libc::pwritev2(file.as_raw_fd(), rest.as_ptr(), rest.len() as i32, at, 0)
        })
    }
}

/// Bytes that a call of the host's has transferred.
pub(crate) fn outcome(done: isize) -> io::Result<usize> {
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vectors({} of {:#x} bytes)", self.rest().len(), self.ram.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backing;
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn a_file_is_read_and_written_in_pieces() {
        let ram = GuestRam::create(Backing::Anonymous, &[(Gpa(0), 0x4000), (Gpa(0x8000), 0x1000)]);
        let ram = ram.expect("memory");
        let mut file = File::from(
            rustix::fs::memfd_create("vectors", rustix::fs::MemfdFlags::CLOEXEC).expect("a file"),
        );
        let content: Vec<u8> = (0..300_u32).map(|n| n as u8).collect();
        file.write_all(&content).expect("written");
        let pieces = [(Gpa(0x3f00), 100), (Gpa(0x8000), 100), (Gpa(0x10), 50)];
        let mut vectors = ram.vectors(pieces).expect("RAM");
        vectors.advance(150);
        assert_eq!(vectors.read_from(&file, 10, Patience::Wait).expect("read"), 100);
        let mut found = [0; 50];
        ram.read(Gpa(0x8000 + 50), &mut found).expect("RAM");
        assert_eq!(found, content[10..60]);
        assert_eq!(vectors.write_to(&file, 300).expect("written"), 100);
        file.seek(io::SeekFrom::Start(300)).expect("a file");
        let mut written = Vec::new();
        file.read_to_end(&mut written).expect("read");
        assert_eq!(written, content[10..110]);
        vectors.advance(100);
        assert!(vectors.is_done());
    }

    #[test]
    fn what_is_no_ram_is_refused() {
        let ram = GuestRam::new(&[(Gpa(0), 0x4000)]).expect("memory");
        for piece in [(Gpa(0x3fff), 2), (Gpa(u64::MAX), 2), (Gpa(0x9000), 1)] {
            assert!(ram.vectors([(Gpa(0), 1), piece]).is_none(), "{piece:?}");
        }
        assert!(ram.vectors((0..2000).map(|_| (Gpa(0), 1))).is_none());
    }
}
