//! Bytes of a connection on their way: a ring that grows up to a limit.

use std::io::{self, IoSliceMut, Read, Write};

/// Bytes that a ring has room for when it first gets some.
const LEAST: usize = 16 << 10;

/// See the module. Nothing is allocated before there are bytes.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    head: usize,
    len: usize,
    limit: usize,
}

impl Ring {
    /// An empty one that holds `limit` bytes, a power of two of [`LEAST`] at least.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), head: 0, len: 0, limit }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that still fit.
    pub(super) fn free(&self) -> usize {
        self.limit - self.len
    }

    /// Has it hold twice as much.
    pub(super) fn raise(&mut self) {
        self.limit *= 2;
    }

    /// Makes storage for `more` bytes beside those that are there, [`Ring::free`] at the most.
    fn reserve(&mut self, more: usize) {
        let wanted = self.len + more.min(self.free());
        if wanted <= self.bytes.len() {
            return;
        }
        let size = wanted.next_power_of_two().clamp(LEAST, self.limit.max(LEAST));
        let mut bytes = Vec::with_capacity(size);
        let (a, b) = self.slices(0, self.len);
        bytes.extend_from_slice(a);
        bytes.extend_from_slice(b);
        bytes.resize(size, 0);
        (self.bytes, self.head) = (bytes, 0);
    }

    /// `len` bytes from byte `from` on, in two pieces; as many of them as there are.
    pub(super) fn slices(&self, from: usize, len: usize) -> (&[u8], &[u8]) {
        let from = from.min(self.len);
        let len = len.min(self.len - from);
        let size = self.bytes.len();
        if len == 0 {
            return (&[], &[]);
        }
        let start = (self.head + from) % size;
        let first = len.min(size - start);
        (&self.bytes[start..start + first], &self.bytes[..len - first])
    }

    /// Takes as much of `data` as fits; how much that is.
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.free());
        self.reserve(count);
        let [a, b] = self.vacant(count);
        let (first, second) = data[..count].split_at(a.len());
        a.copy_from_slice(first);
        b.copy_from_slice(second);
        self.len += count;
        count
    }

    /// Storage behind the last byte, `count` bytes of it, in two pieces.
    fn vacant(&mut self, count: usize) -> [&mut [u8]; 2] {
        let size = self.bytes.len();
        if count == 0 {
            return [&mut [], &mut []];
        }
        let start = (self.head + self.len) % size;
        let first = count.min(size - start);
        let (low, high) = self.bytes.split_at_mut(start);
        [&mut high[..first], &mut low[..count - first]]
    }

    /// Reads what fits, at least once if anything does.
    ///
    /// # Errors
    /// As the source says.
    pub(super) fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        if self.len == self.bytes.len() {
            self.reserve(self.len.max(LEAST));
        }
        let room = (self.bytes.len() - self.len).min(self.free());
        let [a, b] = self.vacant(room);
        let count = source.read_vectored(&mut [IoSliceMut::new(a), IoSliceMut::new(b)])?;
        self.len += count.min(room);
        Ok(count)
    }

    /// Writes from the beginning; what was written is gone.
    ///
    /// # Errors
    /// As the sink says.
    pub(super) fn drain(&mut self, sink: &mut impl Write) -> io::Result<usize> {
        let (a, _) = self.slices(0, self.len);
        let count = sink.write(a)?;
        self.consume(count);
        Ok(count)
    }

    /// Drops the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.head = if self.len == 0 { 0 } else { (self.head + count) % self.bytes.len() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against the standard library's deque.
        #[test]
        fn a_ring_is_a_queue(steps in prop::collection::vec((0..4_u8, 0..40_000_usize), 1..40)) {
            let mut ring = Ring::new(32 << 10);
            let mut model = VecDeque::new();
            let mut next = 0_u8;
            let mut bytes = |count: usize| -> Vec<u8> {
                (0..count).map(|_| { next = next.wrapping_mul(5).wrapping_add(1); next }).collect()
            };
            for (kind, count) in steps {
                match kind {
                    0 => {
                        let data = bytes(count);
                        let taken = ring.push(&data);
                        prop_assert_eq!(taken, count.min(ring.limit() - model.len()));
                        model.extend(&data[..taken]);
                    }
                    1 => {
                        let data = bytes(count);
                        let taken = ring.fill(&mut &data[..]).expect("a slice");
                        model.extend(&data[..taken]);
                    }
                    2 => {
                        ring.consume(count);
                        model.drain(..count.min(model.len()));
                    }
                    _ => if ring.limit() < 256 << 10 { ring.raise() },
                }
                prop_assert_eq!(ring.len(), model.len());
                let (a, b) = ring.slices(0, usize::MAX);
                prop_assert!(a.iter().chain(b).eq(model.iter()));
                let (a, b) = ring.slices(7, 100);
                prop_assert!(a.iter().chain(b).eq(model.iter().skip(7).take(100)));
            }
        }
    }
}
