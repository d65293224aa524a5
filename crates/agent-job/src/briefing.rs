//! What the agent is told when it asks for its job: on the second serial line, which carries bytes
//! as they are meanwhile.
//!
//! ```text
//! SECONDS NANOSECONDS SEED LENGTH\n     of the present, since 1970; 64 hexadecimal digits; bytes
//! the job
//! ```

use std::io::{self, BufRead, Error};
use std::time::Duration;

/// No job has more bytes: a command's arguments and variables have 2 MiB at the most (execve(2)).
const JOB_MAX: usize = 16 << 20;
/// No first line is longer.
const LINE_MAX: u64 = 200;
/// Bytes of a [`Seed`].
const SEED: usize = 32;

/// Random bytes that nobody else is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub [u8; SEED]);

/// What the agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Briefing {
    /// The present, since 1970.
    pub now: Duration,
    /// For the guest's random numbers.
    pub seed: Seed,
    /// What a `Job` encodes to.
    pub job: Vec<u8>,
}

impl Seed {
    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn to_text(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What `text` says, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, rest) = text.as_bytes().as_chunks::<2>();
        if digits.len() != SEED || !rest.is_empty() {
            return None;
        }
        let mut seed = [0; SEED];
        for (byte, digits) in seed.iter_mut().zip(digits) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
        }
        Some(Self(seed))
    }
}

impl Briefing {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { now, seed, job } = self;
        let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
        let first = format!("{seconds} {nanoseconds} {} {}\n", seed.to_text(), job.len());
        [first.as_bytes(), job].concat()
    }

    /// Reads one.
    ///
    /// # Errors
    /// Reading fails, or what comes is none.
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        io::Read::take(&mut *from, LINE_MAX).read_line(&mut line)?;
        let none = || Error::other("what gemello says is no job");
        let (now, seed, length) = first(&line).ok_or_else(none)?;
        if length > JOB_MAX {
            return Err(none());
        }
        let mut job = vec![0; length];
        from.read_exact(&mut job)?;
        Ok(Self { now, seed, job })
    }
}

/// What the first line says.
fn first(line: &str) -> Option<(Duration, Seed, usize)> {
    let mut words = line.strip_suffix('\n')?.split(' ');
    let (seconds, nanoseconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (seed, length) = (Seed::parse(words.next()?)?, words.next()?.parse().ok()?);
    let whole = words.next().is_none() && nanoseconds < 1_000_000_000;
    whole.then(|| (Duration::new(seconds, nanoseconds), seed, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn briefing(job: &[u8]) -> Briefing {
        let mut seed = [0; SEED];
        seed.iter_mut().zip(0xD0..).for_each(|(byte, value)| *byte = value);
        Briefing { now: Duration::new(1_800_000_000, 5), seed: Seed(seed), job: job.to_vec() }
    }

    #[test]
    fn what_is_sent_is_read() {
        for job in [&b"a\0\n\xFF\x03\x11"[..], b"", &[7; 100_000]] {
            let sent = [briefing(job).encode(), b"24 80\n".to_vec()].concat();
            let mut from = io::BufReader::with_capacity(7, &sent[..]);
            assert_eq!(Briefing::read(&mut from).expect("whole"), briefing(job));
            let mut rest = String::new();
            from.read_line(&mut rest).expect("a line");
            assert_eq!(rest, "24 80\n", "what follows is not read");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let read = |bytes: &[u8]| Briefing::read(&mut &bytes[..]);
        let sent = briefing(b"job").encode();
        for cut in 0..sent.len() {
            assert!(read(&sent[..cut]).is_err(), "{cut} bytes");
        }
        let seed = briefing(b"").seed.to_text();
        for wrong in [
            format!("1 2 {seed} 99999999999\n"),
            format!("1 2 {seed} 16777217\n"),
            format!("1 1000000000 {seed} 0\n"),
            format!("1 2 {} 0\n", &seed[1..]),
            format!("1 2 {}é 0\n", &seed[2..]),
            format!("1 2 {seed} 0 0\n"),
            format!("-1 2 {seed} 0\n"),
            "poweroff\n".to_owned(),
            "1".repeat(10_000),
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
