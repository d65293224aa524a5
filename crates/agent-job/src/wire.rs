//! What is said on a connection to the agent's port: frames, each a kind, a length of four bytes,
//! and so many bytes. The first is a [`Request`]; what follows depends on it.
//!
//! ```text
//! exec       ◄── Input, InputEnd, Window, Signal        ──► Output, Errors, Taken, Ended | Failed
//! forward                                               ──► Ended(0) | Failed; then bytes
//! send                                                  ──► Output …, Ended(0) | Failed
//! take       ◄── Input …, InputEnd                      ──► Ended(0) | Failed
//! authorize                                             ──► Ended(0) | Failed
//! follow     ◄── Input …                                ──► Ended(0) | Failed, before the first
//! ```
//! Neither side trusts the other: a length has a bound, and what is no frame ends the connection.
//! A command's input is sent only as far as it has been taken, [`WINDOW`] bytes aside: signals
//! behind it are heard whether or not the command reads.

use crate::request::Request;
use std::io::{self, Read, Write};

/// Bytes of a command's input that may be on their way.
pub const WINDOW: usize = 256 << 10;
/// Bytes of what a frame carries, a request's aside.
pub const PIECE: usize = 64 << 10;
/// Bytes of a request: a megabyte of environment, and more than that of arguments.
const REQUEST: usize = 4 << 20;

/// Kinds of frames.
mod kind {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const INPUT: u8 = 2;
    pub(super) const INPUT_END: u8 = 3;
    pub(super) const WINDOW: u8 = 4;
    pub(super) const SIGNAL: u8 = 5;
    pub(super) const OUTPUT: u8 = 16;
    pub(super) const ERRORS: u8 = 17;
    pub(super) const TAKEN: u8 = 18;
    pub(super) const ENDED: u8 = 19;
    pub(super) const FAILED: u8 = 20;
}

/// What gemello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// What the connection is for.
    Request(Request),
    /// Standard input, or what is to be taken.
    Input(Vec<u8>),
    /// No more of it.
    InputEnd,
    /// The terminal has so many rows and columns.
    Window(u16, u16),
    /// The command is to get this signal.
    Signal(u8),
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent {
    /// Standard output, or what was asked for.
    Output(Vec<u8>),
    /// Standard error.
    Errors(Vec<u8>),
    /// So many bytes of the input have been taken.
    Taken(u32),
    /// It is done, with this status.
    Ended(u8),
    /// It was not done; why.
    Failed(String),
}

impl ToAgent {
    /// Writes it.
    ///
    /// # Errors
    /// The connection's, or it is too long.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Request(request) => write(to, kind::REQUEST, &request.encode()),
            Self::Input(bytes) => write(to, kind::INPUT, bytes),
            Self::InputEnd => write(to, kind::INPUT_END, &[]),
            Self::Window(rows, columns) => {
                let both = [rows.to_le_bytes(), columns.to_le_bytes()];
                write(to, kind::WINDOW, both.as_flattened())
            }
            Self::Signal(number) => write(to, kind::SIGNAL, &[*number]),
        }
    }

    /// The next. `None`: the connection has ended.
    ///
    /// # Errors
    /// The connection's, or what comes is nothing that is said.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, bytes)) = read(from)? else { return Ok(None) };
        Ok(Some(match (kind, &bytes[..]) {
            (kind::REQUEST, bytes) => Self::Request(Request::decode(bytes).map_err(nonsense)?),
            (kind::INPUT, _) => Self::Input(bytes),
            (kind::INPUT_END, []) => Self::InputEnd,
            (kind::WINDOW, &[a, b, c, d]) => {
                Self::Window(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
            }
            (kind::SIGNAL, &[number]) => Self::Signal(number),
            _ => return Err(nonsense(format!("a frame of kind {kind} is not for the agent"))),
        }))
    }
}

impl FromAgent {
    /// Writes it.
    ///
    /// # Errors
    /// The connection's, or it is too long.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Output(bytes) => write(to, kind::OUTPUT, bytes),
            Self::Errors(bytes) => write(to, kind::ERRORS, bytes),
            Self::Taken(count) => write(to, kind::TAKEN, &count.to_le_bytes()),
            Self::Ended(status) => write(to, kind::ENDED, &[*status]),
            Self::Failed(why) => {
                let bytes = why.as_bytes();
                write(to, kind::FAILED, bytes.get(..PIECE).unwrap_or(bytes))
            }
        }
    }

    /// The next. `None`: the connection has ended.
    ///
    /// # Errors
    /// The connection's, or what comes is nothing that the agent says.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, bytes)) = read(from)? else { return Ok(None) };
        Ok(Some(match (kind, &bytes[..]) {
            (kind::OUTPUT, _) => Self::Output(bytes),
            (kind::ERRORS, _) => Self::Errors(bytes),
            (kind::TAKEN, &[a, b, c, d]) => Self::Taken(u32::from_le_bytes([a, b, c, d])),
            (kind::ENDED, &[status]) => Self::Ended(status),
            (kind::FAILED, bytes) => Self::Failed(String::from_utf8_lossy(bytes).into_owned()),
            _ => return Err(nonsense(format!("a frame of kind {kind} is not the agent's"))),
        }))
    }
}

fn nonsense(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn most(kind: u8) -> usize {
    if kind == kind::REQUEST { REQUEST } else { PIECE }
}

fn write(to: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > most(kind) {
        return Err(nonsense(format!("{} bytes are more than can be said at once", bytes.len())));
    }
    // In one piece: each write is a packet.
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(kind);
    frame.extend((bytes.len() as u32).to_le_bytes());
    frame.extend(bytes);
    to.write_all(&frame)?;
    to.flush()
}

fn read(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut kind = [0];
    loop {
        match from.read(&mut kind) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let ([kind], len) = (kind, u32::from_le_bytes(len) as usize);
    if len > most(kind) {
        return Err(nonsense(format!("a frame of kind {kind} and {len} bytes is none")));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(Some((kind, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut wire = Vec::new();
        let said = [
            ToAgent::Request(Request::Forward(22)),
            ToAgent::Input(vec![0xFF; PIECE]),
            ToAgent::Input(vec![]),
            ToAgent::InputEnd,
            ToAgent::Window(u16::MAX, 1),
            ToAgent::Signal(15),
        ];
        said.iter().for_each(|it| it.write(&mut wire).expect("memory"));
        let mut rest = &wire[..];
        for it in said {
            assert_eq!(ToAgent::read(&mut rest).expect("a frame"), Some(it));
        }
        assert_eq!(ToAgent::read(&mut rest).expect("the end"), None);
        let mut wire = Vec::new();
        let answered = [
            FromAgent::Output(b"\0\xff".to_vec()),
            FromAgent::Errors(vec![]),
            FromAgent::Taken(u32::MAX),
            FromAgent::Ended(255),
            FromAgent::Failed("no".into()),
        ];
        answered.iter().for_each(|it| it.write(&mut wire).expect("memory"));
        let mut rest = &wire[..];
        for it in answered {
            assert_eq!(FromAgent::read(&mut rest).expect("a frame"), Some(it));
        }
    }

    #[test]
    fn nothing_has_a_length_without_a_bound() {
        for kind in 0..=u8::MAX {
            let mut frame = vec![kind];
            frame.extend(u32::MAX.to_le_bytes());
            assert!(ToAgent::read(&mut &frame[..]).is_err(), "{kind}");
            assert!(FromAgent::read(&mut &frame[..]).is_err(), "{kind}");
        }
        assert!(ToAgent::Input(vec![0; PIECE + 1]).write(&mut io::sink()).is_err());
        let long = FromAgent::Failed("x".repeat(2 * PIECE));
        assert!(long.write(&mut io::sink()).is_ok(), "a message is cut");
    }

    /// Whatever comes is a frame or is refused, and nothing of it panics.
    #[test]
    fn no_bytes_do_harm() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        for _ in 0..20_000 {
            let mut bytes = vec![random() % 24, random() % 9, 0, 0, 0];
            bytes.extend((0..8).map(|_| random()));
            let _ = ToAgent::read(&mut &bytes[..]);
            let _ = FromAgent::read(&mut &bytes[..]);
        }
    }
}
