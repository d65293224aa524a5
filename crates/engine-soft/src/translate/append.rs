//! A list that grows while others read it without a lock: what is in it stays where it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// log2 of the first chunk's length. Each is twice as long as the one before.
const FIRST: u32 = 10;
const CHUNKS: usize = 21;

/// See the module.
pub(super) struct AppendOnly<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
    len: AtomicU32,
}

impl<T> Default for AppendOnly<T> {
    fn default() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], len: AtomicU32::new(0) }
    }
}

impl<T> AppendOnly<T> {
    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn get(&self, n: u32) -> Option<&T> {
        let (chunk, at) = place(n);
        self.chunks.get(chunk)?.get()?.get(at)?.get()
    }

    /// Adds `value`, and tells its number. Callers exclude each other.
    pub(super) fn push(&self, value: T) -> u32 {
        let n = self.len.load(Ordering::Relaxed);
        let (chunk, at) = place(n);
        let new = || (0..1_usize << (FIRST + chunk as u32)).map(|_| OnceLock::new()).collect();
        let chunk = self.chunks[chunk].get_or_init(new);
        assert!(chunk[at].set(value).is_ok(), "two threads appended at once");
        self.len.store(n + 1, Ordering::Release);
        n
    }
}

/// The chunk with number `n`, and where in it.
fn place(n: u32) -> (usize, usize) {
    let n = u64::from(n) + (1 << FIRST);
    let bits = n.ilog2();
    ((bits - FIRST) as usize, (n - (1 << bits)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

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
