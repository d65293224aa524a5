//! Layers as they lie there: plain, with gzip, or with zstd. The content tells, not the media type.

use crate::digest::Hashing;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What begins a frame of zstd's that holds no data: 16 numbers (RFC 8878, 3.1.2).
const SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];
/// Bytes that one layer unpacks to, at the most.
pub(crate) const UNPACKED: u64 = 64 << 30;
/// Bytes that zstd may look back, as the command's limit is.
const WINDOW: u64 = 128 << 20;

fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(&ZSTD) || head.get(1..4) == Some(&SKIPPED[..]) && head[0] & 0xf0 == 0x50
}

/// Whether what begins with `head` is compressed.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&GZIP) || is_zstd(head)
}

/// Unpacks all of `from` into `into`.
///
/// # Errors
/// It is damaged, or unpacks to more than a layer may; or the host's.
pub(crate) fn unpack<R: Read, W: Write>(from: &mut Hashing<R>, into: &mut W) -> io::Result<()> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let head = from.fill_buf()?.get(..4).unwrap_or_default().to_vec();
    let mut bound = Bound { into, left: UNPACKED };
    if head.starts_with(&GZIP) {
        io::copy(&mut MultiGzDecoder::new(&mut from), &mut bound)?;
    } else if is_zstd(&head) {
        frames(&mut from, &mut bound)?;
    } else {
        io::copy(&mut from, &mut bound)?;
    }
    // What follows the compressed data counts for the digest.
    io::copy(&mut from, &mut io::sink())?;
    Ok(())
}

/// Every frame of zstd's in `from`. Some hold no data.
fn frames(from: &mut impl BufRead, into: &mut impl Write) -> io::Result<()> {
    use FrameDecoderError::ReadFrameHeaderError as Header;
    while !from.fill_buf()?.is_empty() {
        match StreamingDecoder::new_with_max_window_size(&mut *from, WINDOW) {
            Ok(mut frame) => drop(io::copy(&mut frame, into)?),
            Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                io::copy(&mut from.by_ref().take(u64::from(length)), &mut io::sink())?;
            }
            Err(error) => return Err(Error::new(ErrorKind::InvalidData, error.to_string())),
        }
    }
    Ok(())
}

/// Takes so much and no more.
struct Bound<'w, W> {
    into: &'w mut W,
    left: u64,
}

impl<W: Write> Write for Bound<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| {
            let why = format!("it unpacks to more than {} GiB", UNPACKED >> 30);
            Error::new(ErrorKind::InvalidData, why)
        })?;
        self.into.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
