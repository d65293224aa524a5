//! A transfer between guest memory and a file, made by plain calls or by the host's ring
//! (`ring.rs`).

use memory::{Patience, Vectors};
use std::fs::File;
use std::io::{self, ErrorKind};

/// What a file is to do.
#[derive(Debug)]
pub enum Transfer {
    /// Fills memory from byte `offset`.
    Read {
        /// What is left to fill.
        vectors: Vectors,
        /// Where the file's bytes for it begin.
        offset: u64,
    },
    /// Writes memory at byte `offset`.
    Write {
        /// What is left to write.
        vectors: Vectors,
        /// Where the file's bytes for it begin.
        offset: u64,
    },
    /// Makes what was written before outlast a crash of the host.
    Flush,
}

impl Transfer {
    /// Reads what the host has in its memory. `None`: the rest takes time.
    pub fn at_once(&mut self, file: &File) -> Option<io::Result<()>> {
        loop {
            let Self::Read { vectors, offset } = self else { return None };
            let answer = vectors.read_from(file, *offset, Patience::AtOnce);
            match answer.map_err(|error| (error.kind(), error)) {
                // A file in memory may not know what it is to wait.
                Err((ErrorKind::WouldBlock | ErrorKind::Unsupported, _)) => return None,
                Err((ErrorKind::Interrupted, _)) => {}
                Err((_, error)) => return Some(Err(error)),
                Ok(bytes) => {
                    if let Some(outcome) = self.progress(bytes) {
                        return Some(outcome);
                    }
                }
            }
        }
    }

    /// Makes what is left; the thread waits.
    ///
    /// # Errors
    /// The host's; a part may have been made.
    pub fn wait(&mut self, file: &File) -> io::Result<()> {
        loop {
            let answer = match self {
                Self::Read { vectors, offset } => vectors.read_from(file, *offset, Patience::Wait),
                Self::Write { vectors, offset } => vectors.write_to(file, *offset),
                Self::Flush => file.sync_data().map(|()| 0),
            };
            match answer {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(bytes) => {
                    if let Some(outcome) = self.progress(bytes) {
                        return outcome;
                    }
                }
            }
        }
    }

    /// The host has transferred `bytes` more. `None`: there is something left.
    pub(crate) fn progress(&mut self, bytes: usize) -> Option<io::Result<()>> {
        let (vectors, offset, nothing) = match self {
            Self::Read { vectors, offset } => (vectors, offset, ErrorKind::UnexpectedEof),
            Self::Write { vectors, offset } => (vectors, offset, ErrorKind::WriteZero),
            Self::Flush => return Some(Ok(())),
        };
        if bytes == 0 {
            return Some(Err(nothing.into()));
        }
        vectors.advance(bytes);
        *offset += bytes as u64;
        vectors.is_done().then_some(Ok(()))
    }
}
