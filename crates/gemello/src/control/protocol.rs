//! What is said on a machine's control socket: lines of JSON, a request and its answer in turn.
//!
//! ```text
//! {"version":1,"request":"pause"}          {"version":1,"answer":"done"}
//! {"version":1,"request":{"wait":{"milliseconds":500}}}
//!                                          {"version":1,"answer":{"ended":{"status":0}}}
//! {"version":1,"request":"frob"}           {"version":1,"answer":{"refused":"…"}}
//! ```
//!
//! After the answer to `connect`, what follows is as at a socket of `--vsock` after `CONNECT`: `OK`
//! and a line's end, then the bytes of the guest's port; or the end, where nobody listens there.
//!
//! After the answer to `console`, what follows both ways is the console's bytes; after that to
//! `log`, what follows is the output's.

use super::figures::Figures;
use serde::{Deserialize, Serialize};

/// The version that is spoken, and the only one that is understood.
pub(super) const VERSION: u32 = 1;

/// Bytes of the longest line.
pub(super) const LINE_MAX: usize = 16 << 10;

/// A request's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) version: u32,
    pub(super) request: Request,
}

/// What is asked of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// What it is, and how it is.
    Info,
    /// Its counters.
    Figures,
    /// To stand still.
    Pause,
    /// To go on.
    Resume,
    /// To ask its guest to shut down.
    PowerButton,
    /// To end at once.
    Kill,
    /// To tell when it has ended, for so long at the most.
    Wait { milliseconds: u64 },
    /// To have its guest keep so many bytes of its memory, if any, and to tell how that goes.
    Balloon { memory: Option<u64> },
    /// The last of its output, and what follows, if that is wanted.
    Log { follow: bool },
    /// A port of its guest's.
    Connect { port: u32 },
    /// Its console, seen through a window of this size.
    Console { rows: u16, cols: u16 },
}

/// An answer's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) version: u32,
    pub(super) answer: Answer,
}

/// What a machine answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// It is so.
    Done,
    Info(Info),
    Balloon(Balloon),
    Figures(Figures),
    /// It has ended with this exit status, and if `process`, so has its process in a moment.
    Ended {
        status: u8,
        #[serde(default)]
        process: bool,
    },
    /// It has not ended yet.
    Runs,
    /// Its guest is not up yet, and has no agent that could answer: ask again.
    Booting,
    /// Nothing was done; why.
    Refused(String),
}

/// What a machine is, and how it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Info {
    pub(super) name: String,
    /// The process that runs it.
    pub(super) pid: u32,
    /// `running`, `paused`, `ended`, or `created`.
    pub(super) state: String,
    /// For how long it has been run.
    pub(super) seconds: u64,
    pub(super) vcpus: usize,
    /// Bytes of its memory.
    pub(super) memory: u64,
    /// Bytes of it that are in the host's.
    pub(super) resident: Option<u64>,
    /// Where its console is: `terminal`, a pseudo-terminal's path, or `log`.
    pub(super) console: String,
}

/// How it is with a machine's balloon, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Balloon {
    /// The machine's memory.
    pub(super) memory: u64,
    /// What the guest is to keep.
    pub(super) target: u64,
    /// What it says that it keeps.
    pub(super) keeps: u64,
    /// What it has reported as free so far.
    pub(super) reported: u64,
    /// What it says is free.
    pub(super) free: Option<u64>,
    /// What it says that new programs could have.
    pub(super) available: Option<u64>,
    /// What it says that copies of files take.
    pub(super) caches: Option<u64>,
}

/// The request in `line`.
///
/// # Errors
/// It is none, or of another version; what to answer.
pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
    // First the version alone: the rest may have any form in another one.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let no_request = |error: serde_json::Error| format!("this is no request: {error}");
    let Version { version } = serde_json::from_slice(line).map_err(no_request)?;
    if version != VERSION {
        return Err(format!(
            "the request has version {version}, and this gemello speaks {VERSION}; use one gemello \
             for both"
        ));
    }
    let Call { request, .. } = serde_json::from_slice(line).map_err(no_request)?;
    Ok(request)
}

/// A line that says `value`.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_comes_back() {
        for request in [
            Request::Info,
            Request::Figures,
            Request::Pause,
            Request::Resume,
            Request::PowerButton,
            Request::Kill,
            Request::Wait { milliseconds: u64::MAX },
            Request::Balloon { memory: None },
            Request::Balloon { memory: Some(1 << 40) },
            Request::Log { follow: true },
            Request::Connect { port: u32::MAX },
            Request::Console { rows: 24, cols: 80 },
        ] {
            let line = line(&Call { version: VERSION, request: request.clone() });
            assert!(
                line.ends_with(b"}\n") && line.iter().filter(|&&byte| byte == b'\n').count() == 1
            );
            assert_eq!(parse(&line), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for wrong in [
            &b""[..],
            b"\xff\xfe",
            b"help",
            b"[]",
            b"{\"version\":1}",
            b"{\"version\":1,\"request\":\"frob\"}",
            b"{\"version\":1,\"request\":\"info\",\"more\":1}",
            b"{\"version\":1,\"request\":{\"wait\":{}}}",
            b"{\"version\":1,\"request\":{\"wait\":{\"milliseconds\":-1}}}",
            &[b'['; LINE_MAX],
        ] {
            assert!(parse(wrong).expect_err("refused").contains("no request"));
        }
        let other = parse(b"{\"version\":2,\"ask\":\"info\"}").expect_err("another version");
        assert!(other.contains("version 2"), "{other}");
    }

    /// Whatever comes is a request or is refused.
    #[test]
    fn no_line_does_harm() {
        let call = Call { version: VERSION, request: Request::Wait { milliseconds: 7 } };
        let written = line(&call);
        let (mut random, mut taken) = (test_support::Rng::new(5), 0);
        for _ in 0..20_000 {
            let mut bytes = written.clone();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = b"0123456789[]{},:\"ax\0\xff"[random.below(21) as usize];
            taken += u32::from(parse(&bytes).is_ok());
        }
        assert!(taken > 100, "{taken} were taken");
    }
}
