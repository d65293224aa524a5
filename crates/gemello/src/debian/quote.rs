//! A byte stream through a terminal line: the host's half of `init.sh`'s pipe mode.
//!
//! The guest's line discipline (termios(3)) is in canonical mode with all special characters off
//! but two: LNEXT (^V) takes the next byte literally, EOF (^D) hands over what the line holds so
//! far, or ends the stream where it holds nothing. With these, any bytes pass, and so does the end,
//! which a serial line itself cannot express.

const EOF: u8 = 4;
const LNEXT: u8 = 22;

/// Longest run without a line end: the discipline's buffer holds 4095 bytes of a line and drops the
/// rest.
const RUN: usize = 1024;

/// Quotes a stream, chunk by chunk.
#[derive(Debug, Default)]
pub(crate) struct Quoter {
    /// Bytes in the guest's current line.
    pending: usize,
}

impl Quoter {
    /// Appends `input`, quoted, to `output`, and what makes the guest hand it to the reader at
    /// once.
    pub(crate) fn data(&mut self, input: &[u8], output: &mut impl Extend<u8>) {
        for &byte in input {
            if matches!(byte, EOF | LNEXT) {
                output.extend([LNEXT]);
            }
            output.extend([byte]);
            self.pending = if byte == b'\n' { 0 } else { self.pending + 1 };
            if self.pending == RUN {
                self.flush(output);
            }
        }
        self.flush(output);
    }

    /// Appends the end of the stream.
    pub(crate) fn end(&mut self, output: &mut impl Extend<u8>) {
        self.flush(output);
        output.extend([EOF]);
    }

    fn flush(&mut self, output: &mut impl Extend<u8>) {
        if self.pending > 0 {
            output.extend([EOF]);
            self.pending = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A naive line discipline: what successive reads return, up to the end of the stream.
    fn discipline(line: &[u8]) -> (Vec<u8>, bool, usize) {
        let (mut all, mut held, mut longest, mut literal) = (Vec::new(), Vec::new(), 0, false);
        for &byte in line {
            match byte {
                _ if literal => held.push(byte),
                LNEXT => {}
                EOF if held.is_empty() => return (all, true, longest),
                EOF => all.append(&mut held),
                b'\n' => {
                    held.push(byte);
                    all.append(&mut held);
                }
                _ => held.push(byte),
            }
            literal = byte == LNEXT && !literal;
            longest = longest.max(held.len());
        }
        (all, false, longest)
    }

    fn round_trip(chunks: &[&[u8]]) {
        let mut quoter = Quoter::default();
        let mut line = Vec::new();
        for chunk in chunks {
            quoter.data(chunk, &mut line);
        }
        assert!(!discipline(&line).1, "the stream ended early");
        quoter.end(&mut line);
        let (read, ended, longest) = discipline(&line);
        assert_eq!(read, chunks.concat());
        assert!(ended);
        assert!(longest < 4096);
    }

    #[test]
    fn any_bytes_pass() {
        let every: Vec<u8> = (0..=255).collect();
        round_trip(&[]);
        round_trip(&[&every, &every]);
        round_trip(&[&[EOF; 3], &[LNEXT; 3], b"\n", b"", b"text\n"]);
        round_trip(&[&vec![b'x'; 10_000]]);
        round_trip(&[&vec![b'x'; RUN], &vec![EOF; RUN]]);
        round_trip(&[&[b'\n'; 5000]]);
    }
}
