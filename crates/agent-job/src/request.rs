//! What the agent is asked for, once for each connection.

use crate::text::{self, Text, number};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A command.
    Exec(Exec),
    /// From here on the connection leads to this TCP port of the guest's loopback.
    Forward(u16),
    /// A file or folder of the guest's, as entries of the crate `copy`.
    Send(PathBuf),
    /// Such entries, to there.
    Take(PathBuf),
    /// That this public key, a line as in `authorized_keys`, opens the guest to this user.
    Authorize {
        /// Whose.
        user: String,
        /// The key.
        key: String,
    },
    /// To look anew at names in the shared folder of this tag, as they come.
    Follow(String),
}

/// A command, as the guest's service is to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program, and its arguments.
    pub words: Vec<OsString>,
    /// `NAME=VALUE` each, beside those that the service has.
    pub environment: Vec<OsString>,
    /// The working directory, if another than the service's.
    pub folder: Option<PathBuf>,
    /// The user, or `user:group`, names or numbers, if another than the service's.
    pub user: Option<String>,
    /// Rows and columns of its terminal, if it has one.
    pub terminal: Option<(u16, u16)>,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = Text::default();
        match self {
            Self::Exec(Exec { words, environment, folder, user, terminal }) => {
                text.put("do", "exec");
                words.iter().for_each(|word| text.put("word", word));
                environment.iter().for_each(|variable| text.put("variable", variable));
                folder.iter().for_each(|folder| text.put("folder", folder));
                user.iter().for_each(|user| text.put("user", user));
                if let Some((rows, columns)) = terminal {
                    text.number("rows", rows);
                    text.number("columns", columns);
                }
            }
            Self::Forward(to) => {
                text.put("do", "forward");
                text.number("to", to);
            }
            Self::Send(path) => {
                text.put("do", "send");
                text.put("path", path);
            }
            Self::Take(path) => {
                text.put("do", "take");
                text.put("path", path);
            }
            Self::Authorize { user, key } => {
                text.put("do", "authorize");
                text.put("user", user);
                text.put("key", key);
            }
            Self::Follow(tag) => {
                text.put("do", "follow");
                text.put("tag", tag);
            }
        }
        text.0
    }

    /// What `bytes` ask for; why not, if they ask for nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut said = Said::default();
        text::read(bytes, |key, value| said.take(key, value))?;
        let Said { what, exec, to, path, user, key, tag } = said;
        Ok(match what.as_str() {
            "exec" if !exec.words.is_empty() => Self::Exec(Exec { user, ..exec }),
            "forward" => Self::Forward(to),
            "send" => Self::Send(path),
            "take" => Self::Take(path),
            "authorize" => Self::Authorize { user: user.unwrap_or_default(), key },
            "follow" => Self::Follow(tag),
            _ => return Err(format!("{what:?} is nothing that the agent does")),
        })
    }
}

/// Everything that a request may say.
#[derive(Default)]
struct Said {
    what: String,
    exec: Exec,
    to: u16,
    path: PathBuf,
    user: Option<String>,
    key: String,
    tag: String,
}

impl Said {
    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), ()> {
        let text = || std::str::from_utf8(value).map(str::to_owned).map_err(drop);
        let os = || OsString::from_vec(value.to_vec());
        let terminal = &mut self.exec.terminal;
        match key {
            "do" => self.what = text()?,
            "word" => self.exec.words.push(os()),
            "variable" => self.exec.environment.push(os()),
            "folder" => self.exec.folder = Some(os().into()),
            "rows" => terminal.get_or_insert_default().0 = number(value)?,
            "columns" => terminal.get_or_insert_default().1 = number(value)?,
            "to" => self.to = number(value)?,
            "path" => self.path = os().into(),
            "user" => self.user = Some(text()?),
            "key" => self.key = text()?,
            "tag" => self.tag = text()?,
            _ => return Err(()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_comes_back() {
        let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let exec = Exec {
            words: vec!["sh".into(), "".into(), os(b"a\n\xff")],
            environment: vec![os(b"A=\x01\xfe"), "B=".into()],
            folder: Some(os(b"/\xff").into()),
            user: Some("web:33".into()),
            terminal: Some((24, 80)),
        };
        let plain = Exec { words: vec!["true".into()], ..Exec::default() };
        for request in [
            Request::Exec(exec),
            Request::Exec(plain),
            Request::Forward(22),
            Request::Send("/a b".into()),
            Request::Take(os(b"\xfe").into()),
            Request::Authorize { user: "root".into(), key: "ssh-ed25519 AAAA x".into() },
            Request::Follow("src".into()),
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (bytes, named) in [
            (&b""[..], "nothing that the agent does"),
            (b"do\0exec\0", "nothing that the agent does"),
            (b"do\0dance\0", "dance"),
            (b"do\0forward\0to\x0065536\0", "to cannot be 65536"),
            (b"colour\0red\0", "colour"),
        ] {
            let refusal = Request::decode(bytes).expect_err("refused");
            assert!(refusal.contains(named), "{refusal}");
        }
    }
}
