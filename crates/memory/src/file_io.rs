//! Data between a file and guest memory, moved by the host's kernel with no copy between.
#![allow(unsafe_code)] // Reason: preadv and pwritev2 on guest pages.

use crate::GuestRam;
use crate::vectors::{PIECES, outcome};
use rustix::fd::{AsRawFd as _, BorrowedFd};
use std::io;
use x86::addr::Gpa;

/// Where in a file data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePlace {
    /// From this byte on.
    At(u64),
    /// To its end.
    End,
}

impl GuestRam {
    /// Fills `pieces`, each a guest-physical address and its bytes, with what `file` has from byte
    /// `offset` on, and tells the engines. How many bytes there were; fewer than wanted at the
    /// file's end.
    ///
    /// # Errors
    /// The host's; or EFAULT, where a piece is not RAM.
    pub fn read_file(
        &self,
        pieces: &[(Gpa, u64)],
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<u64> {
        let mut total = 0;
        for some in pieces.chunks(PIECES) {
            let (count, wanted) = self.with_vector(some, |vector, len| {
                let at = file_offset(offset.checked_add(total))?;
                // SAFETY: the vector's pieces are in one live mapping each, found by
                // `host_address`, which this object keeps alive during the call. Nothing in Rust
                // refers to them: the kernel writes to them as a device does.
                outcome(unsafe { libc::preadv(file.as_raw_fd(), vector, len, at) })
            })?;
            let mut rest = count;
            for &(gpa, len) in some {
                self.wrote(gpa, len.min(rest));
                rest -= len.min(rest);
            }
            total += count;
            if count < wanted {
                break;
            }
        }
        Ok(total)
    }

    /// Writes `pieces`, each a guest-physical address and its bytes, to `file`. How many bytes
    /// went.
    ///
    /// # Errors
    /// The host's; or EFAULT, where a piece is not RAM.
    pub fn write_file(
        &self,
        pieces: &[(Gpa, u64)],
        file: BorrowedFd<'_>,
        place: FilePlace,
    ) -> io::Result<u64> {
        let mut total = 0;
        for some in pieces.chunks(PIECES) {
            let written = self.with_vector(some, |vector, len| {
                let (at, flags) = match place {
                    FilePlace::At(offset) => (file_offset(offset.checked_add(total))?, 0),
                    FilePlace::End => (0, libc::RWF_APPEND),
                };
                // SAFETY: the vector's pieces are in one live mapping each, found by
                // `host_address`, which this object keeps alive during the call. Nothing in Rust
                // refers to them: the kernel reads them as a device does.
                outcome(unsafe { libc::pwritev2(file.as_raw_fd(), vector, len, at, flags) })
            });
            match written {
                Ok((count, wanted)) => {
                    total += count;
                    if count < wanted {
                        break;
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Does `work` with the host's addresses of `pieces`, which stay in memory meanwhile. What it
    /// did, and the bytes of all.
    fn with_vector(
        &self,
        pieces: &[(Gpa, u64)],
        work: impl FnOnce(*const libc::iovec, i32) -> io::Result<usize>,
    ) -> io::Result<(u64, u64)> {
        let fault = || io::Error::from_raw_os_error(libc::EFAULT);
        let mut holds = Vec::new();
        if self.shared.pager.get().is_some() {
            for &(gpa, len) in pieces {
                holds.push(self.hold(gpa, len).map_err(|_| fault())?);
            }
        }
        let vector = self.iovecs(pieces.iter().copied()).ok_or_else(fault)?;
        let count = work(vector.as_ptr(), vector.len() as i32)? as u64;
        match self.lost() {
            // What was lost meanwhile must not get out.
            Some(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
            None => Ok((count, pieces.iter().map(|(_, len)| len).sum())),
        }
    }
}

fn file_offset(offset: Option<u64>) -> io::Result<i64> {
    let offset = offset.and_then(|offset| offset.try_into().ok());
    offset.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    const TWO_REGIONS: [(Gpa, u64); 2] = [(Gpa(0), 0x10_0000), (Gpa(0x20_0000), 0x10_0000)];

    fn file() -> File {
        host::nameless_file(&std::env::temp_dir()).expect("a file")
    }

    #[test]
    fn pieces_are_filled_in_their_order_and_written_back() {
        let (ram, file) = (GuestRam::new(&TWO_REGIONS).expect("memory"), file());
        let bytes: Vec<u8> = (0..9000_u32).map(|n| n as u8).collect();
        file.write_all_at(&bytes, 100).expect("written");
        // More pieces than a call takes, of odd sizes, in both regions.
        let pieces: Vec<_> = (0..1500_u64)
            .map(|n| (Gpa(n % 2 * 0x20_0000 + n * 64), if n == 7 { 9 } else { 5 }))
            .collect();
        let count = ram.read_file(&pieces, file.as_fd(), 103).expect("read");
        assert_eq!(count, 1499 * 5 + 9);
        let mut at = 3;
        for &(gpa, len) in &pieces {
            let mut found = vec![0; len as usize];
            ram.read(gpa, &mut found).expect("RAM");
            assert_eq!(found, bytes[at..at + len as usize]);
            at += len as usize;
        }
        let end = ram.write_file(&pieces, file.as_fd(), FilePlace::End).expect("written");
        assert_eq!(end, count);
        let mut back = vec![0; count as usize];
        file.read_exact_at(&mut back, 9100).expect("there");
        assert_eq!(back, bytes[3..3 + count as usize]);
        ram.write_file(&pieces[..2], file.as_fd(), FilePlace::At(0)).expect("written");
        let mut head = [0; 11];
        (&file).read_exact(&mut head).expect("there");
        assert_eq!(head[..10], bytes[3..13]);
    }

    #[test]
    fn the_end_of_the_file_and_what_is_no_ram_are_told() {
        let (ram, file) = (GuestRam::new(&TWO_REGIONS).expect("memory"), file());
        file.write_all_at(b"short", 0).expect("written");
        let pieces = [(Gpa(0), 3), (Gpa(0x20_0000), 100)];
        assert_eq!(ram.read_file(&pieces, file.as_fd(), 0).expect("read"), 5);
        assert_eq!(ram.read_file(&pieces, file.as_fd(), 5).expect("read"), 0);
        for pieces in [[(Gpa(0x10_0000), 1)], [(Gpa(0xF_FFFF), 2)], [(Gpa(u64::MAX), 9)]] {
            assert!(ram.read_file(&pieces, file.as_fd(), 0).is_err());
            assert!(ram.write_file(&pieces, file.as_fd(), FilePlace::At(0)).is_err());
        }
        assert!(ram.read_file(&pieces, file.as_fd(), u64::MAX).is_err());
    }
}
