//! What code lies on one guest-physical page, in granules of 64 bytes.

use super::BlockId;

/// The code on one guest-physical page.
#[derive(Default)]
pub(super) struct CodePage {
    /// Bit n: there is code in bytes 64n to 64n+63.
    pub(super) granules: u64,
    /// Blocks with code here, each once.
    pub(super) blocks: Vec<BlockId>,
}

/// The granules that `len` bytes at `gpa` touch, within one page.
pub(crate) fn granules((gpa, len): (u64, u64)) -> u64 {
    if len == 0 {
        return 0;
    }
    let first = (gpa & 0xfff) >> 6;
    let last = ((gpa & 0xfff) + len - 1).min(0xfff) >> 6;
    (u64::MAX >> (63 - (last - first))) << first
}

/// Whether two pieces of memory, (gpa, len), have bytes in common.
pub(crate) const fn meet((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    a < b + b_len && b < a + a_len
}
