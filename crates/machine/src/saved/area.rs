//! Areas of a saved machine's file: what is as large as memory, compressed, with a sum over the
//! whole file.
//!
//! ```text
//! chunks  place u64, stored bytes u32, then those bytes: an LZ4 block of CHUNK bytes or fewer; or
//!         where the number has PLAIN, they themselves
//! end     place u64 = !0
//! ```
//! In a sparse area, chunks that hold only zeros are left out. In a stream, each begins where the
//! one before it ends.

use std::io::{self, Read, Write};

/// Bytes that are stored together.
const CHUNK: usize = 64 << 10;
/// What follows is not compressed.
const PLAIN: u32 = 1 << 31;
/// In place of a place: no more chunks.
const END: u64 = u64::MAX;

/// How chunks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As they are, at once.
    Plain,
    /// In half the room.
    Compressed,
}

/// Writes areas, and before them what is no area.
pub(super) struct Writer<W> {
    inner: W,
    stored: Stored,
    crc: crc32fast::Hasher,
    packed: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(inner: W, stored: Stored) -> Self {
        let packed = vec![0; lz4_flex::block::get_maximum_output_size(CHUNK)];
        Self { inner, stored, crc: crc32fast::Hasher::new(), packed }
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.inner.write_all(bytes)
    }

    /// A sparse area of these `regions` (place and bytes of each), whose content `read` gives.
    pub(super) fn sparse(
        &mut self,
        regions: impl Iterator<Item = (u64, u64)>,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut chunk, zeros) = (vec![0; CHUNK], [0; CHUNK]);
        for (begin, len) in regions {
            for at in (0..len).step_by(CHUNK) {
                let chunk = &mut chunk[..CHUNK.min((len - at) as usize)];
                read(begin + at, chunk)?;
                if *chunk != zeros[..chunk.len()] {
                    self.chunk(begin + at, chunk)?;
                }
            }
        }
        self.bytes(&END.to_le_bytes())
    }

    /// A stream of these bytes.
    pub(super) fn stream(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
            self.chunk((number * CHUNK) as u64, chunk)?;
        }
        self.bytes(&END.to_le_bytes())
    }

    fn chunk(&mut self, at: u64, chunk: &[u8]) -> io::Result<()> {
        self.bytes(&at.to_le_bytes())?;
        if self.stored == Stored::Plain {
            self.bytes(&(chunk.len() as u32 | PLAIN).to_le_bytes())?;
            return self.bytes(chunk);
        }
        let mut packed = std::mem::take(&mut self.packed);
        let size = lz4_flex::block::compress_into(chunk, &mut packed).map_err(io::Error::other)?;
        self.bytes(&(size as u32).to_le_bytes())?;
        self.bytes(&packed[..size])?;
        self.packed = packed;
        Ok(())
    }

    /// The sum of all before.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let sum = self.crc.finalize();
        self.inner.write_all(&sum.to_le_bytes())?;
        Ok(self.inner)
    }
}

/// Reads what a [`Writer`] has written. What it says is checked, since it may be anything.
pub(super) struct Reader<R> {
    inner: R,
    crc: crc32fast::Hasher,
    packed: Vec<u8>,
    chunk: Vec<u8>,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, crc: crc32fast::Hasher::new(), packed: Vec::new(), chunk: vec![0; CHUNK] }
    }

    /// Fills `into` with bytes as they are.
    pub(super) fn bytes(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(into)?;
        self.crc.update(into);
        Ok(())
    }

    /// A number of 32 bits.
    pub(super) fn word(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A sparse area: `put` takes each chunk with its place.
    pub(super) fn sparse(
        &mut self,
        mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some((at, len)) = self.chunk()? {
            put(at, &self.chunk[..len])?;
        }
        Ok(())
    }

    /// A stream of `most` bytes or fewer.
    pub(super) fn stream(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some((at, len)) = self.chunk()? {
            if at != bytes.len() as u64 || len > most - bytes.len() {
                return Err(io::Error::other(format!("{len} bytes of a boot file come at {at}")));
            }
            bytes.extend_from_slice(&self.chunk[..len]);
        }
        Ok(bytes)
    }

    /// The place and the length of the next chunk, which is in `self.chunk`; `None` at the end.
    fn chunk(&mut self) -> io::Result<Option<(u64, usize)>> {
        let mut at = [0; 8];
        self.bytes(&mut at)?;
        let at = u64::from_le_bytes(at);
        if at == END {
            return Ok(None);
        }
        let word = self.word()?;
        let size = (word & !PLAIN) as usize;
        if word & PLAIN != 0 {
            return self.plain(at, size).map(Some);
        }
        if size > lz4_flex::block::get_maximum_output_size(CHUNK) {
            return Err(io::Error::other(format!("a chunk is said to have {size} bytes")));
        }
        let mut packed = std::mem::take(&mut self.packed);
        packed.resize(size, 0);
        self.bytes(&mut packed)?;
        let unpacked = lz4_flex::block::decompress_into(&packed, &mut self.chunk);
        self.packed = packed;
        Ok(Some((at, unpacked.map_err(io::Error::other)?)))
    }

    fn plain(&mut self, at: u64, size: usize) -> io::Result<(u64, usize)> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let read = match chunk.get_mut(..size) {
            Some(bytes) => self.bytes(bytes),
            None => Err(io::Error::other(format!("a chunk is said to have {size} bytes"))),
        };
        self.chunk = chunk;
        read.map(|()| (at, size))
    }

    /// That the sum of all before comes next, and nothing after it.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let sum = self.crc.clone().finalize();
        if self.word()? != sum {
            return Err(io::Error::other("its checksum is wrong"));
        }
        match self.inner.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("more follows after its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read_as_they_were_written() {
        written_and_read(Stored::Compressed);
        written_and_read(Stored::Plain);
    }

    fn written_and_read(stored: Stored) {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let mut out = Writer::new(Vec::new(), stored);
        out.stream(&bytes).expect("room");
        out.stream(&[]).expect("room");
        let zeros_at = |at: u64| (0x20000..0x40000).contains(&at);
        let read = |at: u64, into: &mut [u8]| {
            into.fill(if zeros_at(at) { 0 } else { (at >> 16) as u8 | 0x80 });
            Ok(())
        };
        out.sparse([(0, 0x41000), (1 << 32, 5)].into_iter(), read).expect("room");
        let file = out.finish().expect("room");

        let mut reader = Reader::new(&*file);
        assert_eq!(reader.stream(bytes.len()).expect("whole"), bytes);
        assert!(reader.stream(0).expect("whole").is_empty());
        let mut chunks = Vec::new();
        let mut put = |at, bytes: &[u8]| {
            chunks.push((at, bytes.len(), bytes[0]));
            Ok(())
        };
        reader.sparse(&mut put).expect("whole");
        let expected = [
            (0, 0x10000, 0x80),
            (0x10000, 0x10000, 0x81),
            (0x40000, 0x1000, 0x84),
            (1 << 32, 5, 0x80),
        ];
        assert_eq!(chunks, expected);
        reader.finish().expect("whole");

        let mut small = Reader::new(&*file);
        assert!(small.stream(bytes.len() - 1).is_err(), "more than there is room for");
    }

    #[test]
    fn a_chunk_is_as_large_as_chunks_are() {
        for size in [CHUNK as u32 + 1, u32::MAX >> 1] {
            for word in [size, size | PLAIN] {
                let file = [&0_u64.to_le_bytes()[..], &word.to_le_bytes(), &[0; 1000]].concat();
                assert!(Reader::new(&*file).sparse(|_, _| Ok(())).is_err(), "{word:#x}");
            }
        }
    }
}
