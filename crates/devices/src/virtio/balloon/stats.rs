//! The guest's statistics of its memory (virtio 1.2, 5.5.6.3).

// Tags.
const FREE: u16 = 4;
const TOTAL: u16 = 5;
const AVAILABLE: u16 = 6;
const CACHES: u16 = 7;

/// Bytes of an entry: a tag, and a value without alignment.
const ENTRY: usize = 10;
/// Bytes that are looked at: more than there are tags.
pub(super) const MOST: usize = 32 * ENTRY;

/// What a guest says of its memory, in bytes. `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestStats {
    /// All that it has.
    pub total: Option<u64>,
    /// Used for nothing.
    pub free: Option<u64>,
    /// What new programs could have without swapping.
    pub available: Option<u64>,
    /// Copies of files.
    pub caches: Option<u64>,
}

impl GuestStats {
    /// What `bytes` say. An unknown tag is nothing, a value of all ones "unknown".
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut stats = Self::default();
        for entry in bytes.as_chunks::<ENTRY>().0 {
            let [t0, t1, value @ ..] = *entry;
            let value = Some(u64::from_le_bytes(value)).filter(|&value| value != u64::MAX);
            match u16::from_le_bytes([t0, t1]) {
                TOTAL => stats.total = value,
                FREE => stats.free = value,
                AVAILABLE => stats.available = value,
                CACHES => stats.caches = value,
                _ => {}
            }
        }
        stats
    }
}
