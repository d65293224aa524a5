//! The cache of compiled thunks.

use std::collections::HashMap;
use std::io;

use iced_x86::Instruction;

use super::area::CodeArea;
use super::host::HostFeatures;
use super::run::Thunk;
use super::types::Unthunkable;
use super::{assemble, classify};

/// Thunks by normalized instruction: same opcode and registers with another address share one.
#[derive(Debug)]
pub struct ThunkCache {
    area: CodeArea,
    known: HashMap<Instruction, Result<Thunk, Unthunkable>>,
    resets: u64,
}

impl ThunkCache {
    /// A cache of `capacity` bytes of code (a thunk takes 40 to 200).
    ///
    /// # Errors
    /// The host denies executable memory in every form, or its signals cannot be caught.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let mut cache = Self { area: CodeArea::new(capacity)?, known: HashMap::new(), resets: 0 };
        cache.reset();
        Ok(cache)
    }

    /// The thunk for `instruction`, as decoded in any mode, with the features `host`: the same set
    /// in every call, since answers are remembered. Leaving out what the guest's CPUID hides makes
    /// such instructions [`Unthunkable::HostLacks`], which is #UD to the guest; LZCNT and TZCNT
    /// must then be decoded as BSR and BSF (decoder options `NO_LZCNT` and `NO_TZCNT`).
    ///
    /// # Errors
    /// Why there is none; [`Unthunkable::Full`] asks for [`ThunkCache::reset`].
    pub fn compile(
        &mut self,
        instruction: &Instruction,
        host: &HostFeatures,
    ) -> Result<Thunk, Unthunkable> {
        let key = assemble::normalize(instruction);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let result = self.compile_new(instruction, &key, host);
        if !matches!(result, Err(Unthunkable::Full)) {
            self.known.insert(key, result);
        }
        result
    }

    fn compile_new(
        &mut self,
        original: &Instruction,
        key: &Instruction,
        host: &HostFeatures,
    ) -> Result<Thunk, Unthunkable> {
        let class = classify::classify(original, host)?;
        let assembled = assemble::assemble(key, &class)?;
        let code = self.area.push(&assembled.code).ok_or(Unthunkable::Full)?;
        Ok(Thunk { code, enter: assembled.enter(), class })
    }

    /// Forgets every thunk. Those handed out before must not run any more.
    pub fn reset(&mut self) {
        self.known.clear();
        self.area.clear();
        self.resets += 1;
    }

    /// Bytes of code in use.
    pub fn used(&self) -> usize {
        self.area.used()
    }

    /// How many times [`ThunkCache::reset`] was called.
    pub fn resets(&self) -> u64 {
        self.resets.saturating_sub(1)
    }
}
