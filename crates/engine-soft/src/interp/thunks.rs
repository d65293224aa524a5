//! The thunks that ops refer to, by index.

use crate::thunk::x87::{self, Pointers};
use crate::thunk::{HostFeatures, MemOperand, Thunk, ThunkCache, Unthunkable};
use iced_x86::Instruction;

/// Bytes of generated code before the cache starts anew.
const CODE_BYTES: usize = 16 << 20;

/// A thunk as an op refers to it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) thunk: Thunk,
    /// How it moves the x87 unit's last-instruction pointers.
    pub(super) pointers: Pointers,
    pub(super) fop: u16,
}

/// All thunks that ops refer to, by index.
pub(crate) struct Thunks {
    cache: ThunkCache,
    pub(super) list: Vec<Entry>,
    /// Instructions kept whole, with the address their block was decoded at: masked moves and
    /// gathers.
    instructions: Vec<(Instruction, u64)>,
}

impl Thunks {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { cache: ThunkCache::new(CODE_BYTES)?, list: Vec::new(), instructions: Vec::new() })
    }

    /// The index of a thunk for `instruction`, and its memory operand.
    pub(crate) fn index(
        &mut self,
        instruction: &Instruction,
        bytes: &[u8],
    ) -> Result<(u64, Option<MemOperand>), Unthunkable> {
        let thunk = self.cache.compile(instruction, HostFeatures::probe())?;
        let entry = Entry {
            thunk,
            pointers: x87::pointers(instruction),
            fop: x87::opcode(bytes).unwrap_or(0),
        };
        self.list.push(entry);
        Ok((self.list.len() as u64 - 1, thunk.class.mem))
    }

    /// Keeps `instruction`, of a block decoded at `block_ip`; the index finds it again.
    pub(crate) fn keep(&mut self, instruction: &Instruction, block_ip: u64) -> u64 {
        self.instructions.push((*instruction, block_ip));
        self.instructions.len() as u64 - 1
    }

    /// A kept instruction.
    pub(crate) fn instruction(&self, index: u64) -> Option<(Instruction, u64)> {
        self.instructions.get(index as usize).copied()
    }

    /// Forgets all thunks; every op that refers to one must be gone.
    pub(crate) fn reset(&mut self) {
        self.cache.reset();
        self.list.clear();
        self.instructions.clear();
    }

    /// Whether the op list is so long that starting anew is cheaper than keeping it.
    pub(crate) fn crowded(&self) -> bool {
        self.list.len() + self.instructions.len() > 1 << 20
    }
}
