//! What a machine came to, in two hashes: whether two runs were the same.

use crate::machine::Machine;
use crate::reset::each_piece;
use devices::time::{Clock as _, SECOND};
use memory::GuestRam;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use vcpu::StateError;

/// A machine's state and memory, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Guest instructions that the engine has counted in this run, all processors'.
    pub instructions: u64,
    /// VM nanoseconds.
    pub time: u64,
    /// SHA-256 of its saved state: processors and devices.
    pub state: [u8; 32],
    /// SHA-256 of its memory.
    pub memory: [u8; 32],
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The engine does not tell a processor's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state does not become text.
    #[error("cannot hash the machine's state: {0}")]
    Text(#[from] serde_json::Error),
    /// Memory cannot be read.
    #[error("cannot hash the machine's memory: {0}")]
    Memory(#[from] memory::Error),
}

impl Machine {
    /// Its digest, while it does not run.
    ///
    /// # Errors
    /// Its state or its memory is not to be had.
    pub fn digest(&self) -> Result<Digest, DigestError> {
        let mut state = Writer(Sha256::new());
        serde_json::to_writer(&mut state, &self.save()?)?;
        let processors = self.stats().processors;
        Ok(Digest {
            instructions: processors.iter().map(|one| one.engine.instructions).sum(),
            time: self.board.clock.now(),
            state: state.0.finalize().into(),
            memory: hash(self.ram())?,
        })
    }
}

fn hash(ram: &GuestRam) -> Result<[u8; 32], memory::Error> {
    let mut hasher = Sha256::new();
    each_piece(ram, |_, piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}

struct Writer(Sha256);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instructions, time, state, memory } = self;
        let (seconds, rest) = (time / SECOND, time % SECOND);
        write!(f, "{instructions} instructions, {seconds}.{rest:09}s, state ")?;
        state.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ", memory ")?;
        memory.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
