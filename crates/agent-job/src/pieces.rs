//! Bytes as frames carry them: a writer and a reader between a stream of bytes and frames, whoever
//! says them.

use crate::wire::PIECE;
use std::io::{self, Cursor, Read, Write};

/// Writes bytes in pieces, each of which it passes to the function, to be said in a frame.
#[derive(Debug)]
pub struct Pieces<F>(pub F);

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        (self.0)(piece.to_vec())?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what frames carry, of which the function hears the next one; at their end it has none.
#[derive(Debug)]
pub struct Carried<F> {
    next: F,
    rest: Cursor<Vec<u8>>,
}

impl<F: FnMut() -> io::Result<Option<Vec<u8>>>> Carried<F> {
    /// What the frames carry that `next` hears.
    pub fn new(next: F) -> Self {
        Self { next, rest: Cursor::default() }
    }
}

impl<F: FnMut() -> io::Result<Option<Vec<u8>>>> Read for Carried<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.position() == self.rest.get_ref().len() as u64 {
            match (self.next)()? {
                Some(bytes) => self.rest = Cursor::new(bytes),
                None => return Ok(0),
            }
        }
        self.rest.read(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_pieces_is_read() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|at| at as u8).collect();
        let mut frames = Vec::new();
        let mut writer = Pieces(|piece| {
            frames.push(piece);
            Ok(())
        });
        writer.write_all(&bytes).expect("all is taken");
        assert!(frames.len() == 4 && frames.iter().all(|frame| frame.len() <= PIECE));
        frames.insert(1, Vec::new()); // one that carries nothing is not the end
        let mut frames = frames.into_iter();
        let mut read = Vec::new();
        Carried::new(|| Ok(frames.next())).read_to_end(&mut read).expect("all of it");
        assert!(read == bytes);
    }
}
