//! A list that grows while others read it without a lock: what is in it stays where it is.
//!
//! It grows by chunks of one length: twice as many each time would take, and touch, up to twice the
//! memory that is needed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// log2 of a chunk's length.
const CHUNK: u32 = 11;
/// Chunks at the most: 2^28 elements, where the largest area has no room for the code of as many.
const CHUNKS: usize = 1 << 17;
/// log2 of how many chunks a part of the directory has, which is made when it is needed.
const PART: u32 = 9;

/// Chunks of elements, each there or not yet.
type Part<T> = Box<[OnceLock<Box<[OnceLock<T>]>>]>;

/// See the module.
pub(super) struct AppendOnly<T> {
    parts: [OnceLock<Part<T>>; CHUNKS >> PART],
    len: AtomicU32,
}

impl<T> Default for AppendOnly<T> {
    fn default() -> Self {
        Self { parts: [const { OnceLock::new() }; CHUNKS >> PART], len: AtomicU32::new(0) }
    }
}

impl<T> AppendOnly<T> {
    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn get(&self, n: u32) -> Option<&T> {
        let [part, chunk, at] = place(n);
        self.parts.get(part)?.get()?.get(chunk)?.get()?.get(at)?.get()
    }

    /// Adds `value`, and tells its number. Callers exclude each other.
    pub(super) fn push(&self, value: T) -> u32 {
        let n = self.len.load(Ordering::Relaxed);
        let [part, chunk, at] = place(n);
        let part = self.parts[part].get_or_init(|| empty(1 << PART));
        let chunk = part[chunk].get_or_init(|| empty(1 << CHUNK));
        assert!(chunk[at].set(value).is_ok(), "two threads appended at once");
        self.len.store(n + 1, Ordering::Release);
        n
    }
}

fn empty<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

/// In which part of the directory the chunk of number `n` is, where in that, and where in the chunk
/// it is itself.
fn place(n: u32) -> [usize; 3] {
    let chunk = n >> CHUNK;
    [chunk >> PART, chunk & ((1 << PART) - 1), n & ((1 << CHUNK) - 1)].map(|it| it as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_a_place_of_its_own() {
        assert_eq!(place(0), [0, 0, 0]);
        assert_eq!(place((1 << 20) - 1), [0, 511, 2047]);
        assert_eq!(place(1 << 20), [1, 0, 0]);
        assert_eq!(place((1 << 28) - 1), [(CHUNKS >> PART) - 1, 511, 2047]);
    }

    #[test]
    fn what_is_appended_is_found_by_others_meanwhile() {
        let list = AppendOnly::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while list.len() < 5000 {
                    let last = list.len().checked_sub(1).and_then(|n| list.get(n).copied());
                    assert!(last.is_none_or(|value| value < 3 * 5000), "{last:?}");
                }
                (0..5000).all(|n| list.get(n) == Some(&(3 * n)))
            });
            assert!((0..5000).all(|n| list.push(3 * n) == n));
            assert!(reader.join().expect("it found each"));
        });
        assert_eq!((list.get(5000), list.get(u32::MAX)), (None, None));
    }
}
