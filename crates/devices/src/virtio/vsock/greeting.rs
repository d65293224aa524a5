//! What a program of the host's says first: `CONNECT port` and a newline, as with Firecracker.

use super::connection::waits;
use std::io::Read as _;
use std::os::unix::net::UnixStream;

/// Bytes of the longest greeting.
const MOST: usize = 32;

/// A program that has come and not said yet what it wants.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) stream: UnixStream,
    heard: Vec<u8>,
}

/// How far a greeting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// More has to come.
    Part,
    /// It wants this port.
    Port(u32),
    /// It talks nonsense, or has gone.
    Nonsense,
}

impl Greeting {
    /// Of `stream`, which does not block.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, heard: Vec::new() }
    }

    /// Listens. Not a byte after the line is read: that is the guest's.
    pub(super) fn hear(&mut self) -> Heard {
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(1) if byte == *b"\n" => {
                    return port(&self.heard).map_or(Heard::Nonsense, Heard::Port);
                }
                Ok(1) if self.heard.len() < MOST => self.heard.extend(byte),
                Err(error) if waits(&error) => return Heard::Part,
                _ => return Heard::Nonsense,
            }
        }
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line.strip_prefix("CONNECT ")?.trim_end_matches('\r');
    // No sign, which `parse` would take.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_greeting_is_a_line_with_a_port() {
        for (said, heard) in [
            ("CONNECT 52\n", Heard::Port(52)),
            ("CONNECT 4294967295\r\n", Heard::Port(u32::MAX)),
            ("CONNECT 52", Heard::Part),
            ("", Heard::Part),
            ("CONNECT 4294967296\n", Heard::Nonsense),
            ("CONNECT -1\n", Heard::Nonsense),
            ("CONNECT +1\n", Heard::Nonsense),
            ("CONNECT \n", Heard::Nonsense),
            ("connect 1\n", Heard::Nonsense),
            ("\n", Heard::Nonsense),
            ("CONNECT 00000000000000000000000000000001\n", Heard::Nonsense),
        ] {
            let (mut client, stream) = UnixStream::pair().expect("sockets");
            stream.set_nonblocking(true).expect("a socket");
            client.write_all(said.as_bytes()).expect("written");
            assert_eq!(Greeting::new(stream).hear(), heard, "{said:?}");
        }
    }

    #[test]
    fn what_follows_the_line_is_left_for_the_guest() {
        let (mut client, stream) = UnixStream::pair().expect("sockets");
        stream.set_nonblocking(true).expect("a socket");
        let mut greeting = Greeting::new(stream);
        client.write_all(b"CONN").expect("written");
        assert_eq!(greeting.hear(), Heard::Part);
        client.write_all(b"ECT 7\nhello").expect("written");
        assert_eq!(greeting.hear(), Heard::Port(7));
        let mut rest = [0; 5];
        greeting.stream.read_exact(&mut rest).expect("it is there");
        assert_eq!(&rest, b"hello");
        drop(client);
        assert_eq!(greeting.hear(), Heard::Nonsense, "it has gone");
    }
}
