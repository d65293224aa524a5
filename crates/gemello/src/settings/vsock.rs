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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cid: Option<u32>,
    pub(crate) path: PathBuf,
}

impl VsockSettings {
    /// `[cid=N,]path=PATH`; the path is all that follows.
    ///
    /// # Errors
    /// There is no path, or something else.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        const FORM: &str = "write --vsock cid=3,path=PATH";
        let (mut rest, mut cid) = (text.as_bytes(), None);
        if let Some(after) = rest.strip_prefix(b"cid=") {
            let comma = after.iter().position(|&byte| byte == b',').unwrap_or(after.len());
            let (number, after) = after.split_at(comma);
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            cid = Some(number.ok_or("a guest's cid is a number from 3 on")?);
            rest = after.strip_prefix(b",").unwrap_or(after);
        }
        match rest.strip_prefix(b"path=") {
            Some(path) if !path.is_empty() => {
                Ok(Self { cid, path: OsStr::from_bytes(path).into() })
            }
            _ => Err(format!("it names no socket; {FORM}")),
        }
    }

    /// As the machine takes it.
    pub(crate) fn vsock(&self) -> Vsock {
        Vsock { cid: self.cid.unwrap_or(CID), path: self.path.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_path_and_perhaps_a_number() {
        let of = |cid, path: &str| Ok(VsockSettings { cid, path: path.into() });
        for (text, expected) in [
            ("path=a", of(None, "a")),
            ("cid=7,path=/x/a,b", of(Some(7), "/x/a,b")),
            ("path=cid=7", of(None, "cid=7")),
        ] {
            assert_eq!(VsockSettings::parse(text.as_ref()), expected, "{text}");
        }
        for wrong in ["", "path=", "a", "cid=7", "cid=7,", "cid=x,path=a", "cid=,path=a", "cid=-1"]
        {
            assert!(VsockSettings::parse(wrong.as_ref()).is_err(), "{wrong}");
        }
    }
}
