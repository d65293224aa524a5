//! `--vsock` and `[vsock]`.

use machine::Vsock;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The guest's CID unless it is said.
const CID: u32 = 3;

/// Sockets between the guest and the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VsockSettings {
    /// Whether there are any. Who says more of them wants them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
}

impl VsockSettings {
    /// Those of a machine that is to have sockets, of which nothing else is said.
    pub(crate) const USUAL: Self = Self { enabled: None, cid: None, path: None };

    /// `none`, `cid=N` or `[cid=N,]path=PATH`; the path is all that follows.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        const FORM: &str = "write --vsock cid=3,path=PATH, or --vsock none";
        if text == "none" {
            return Ok(Self { enabled: Some(false), ..Self::USUAL });
        }
        let (mut rest, mut cid) = (text.as_bytes(), None);
        if let Some(after) = rest.strip_prefix(b"cid=") {
            let comma = after.iter().position(|&byte| byte == b',').unwrap_or(after.len());
            let (number, after) = after.split_at(comma);
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            cid = Some(number.ok_or("a guest's cid is a number from 3 on")?);
            if after.is_empty() {
                return Ok(Self { cid, ..Self::USUAL });
            }
            rest = after.strip_prefix(b",").unwrap_or(after);
        }
        match rest.strip_prefix(b"path=") {
            Some(path) if !path.is_empty() => {
                Ok(Self { cid, path: Some(OsStr::from_bytes(path).into()), ..Self::USUAL })
            }
            _ => Err(format!("it names no socket; {FORM}")),
        }
    }

    /// As the machine takes it, if it is to have sockets.
    pub(crate) fn vsock(&self) -> Option<Vsock> {
        let Self { enabled, cid, path } = self;
        let vsock = Vsock { cid: cid.unwrap_or(CID), path: path.clone() };
        enabled.unwrap_or(true).then_some(vsock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_path_and_perhaps_a_number() {
        let of = |cid, path: Option<&str>| {
            Ok(VsockSettings { cid, path: path.map(PathBuf::from), ..VsockSettings::USUAL })
        };
        for (text, expected) in [
            ("path=a", of(None, Some("a"))),
            ("cid=7,path=/x/a,b", of(Some(7), Some("/x/a,b"))),
            ("path=cid=7", of(None, Some("cid=7"))),
            ("cid=7", of(Some(7), None)),
        ] {
            assert_eq!(VsockSettings::parse(text.as_ref()), expected, "{text}");
        }
        let none = VsockSettings::parse("none".as_ref()).expect("understood");
        assert_eq!(
            (none.vsock(), VsockSettings::USUAL.vsock().map(|it| it.cid)),
            (None, Some(CID))
        );
        for wrong in ["", "path=", "a", "cid=7,", "cid=x,path=a", "cid=,path=a", "cid=-1", "None"] {
            assert!(VsockSettings::parse(wrong.as_ref()).is_err(), "{wrong}");
        }
    }
}
