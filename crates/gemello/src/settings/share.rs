//! `--share` and `[[share]]`.

use super::commas::{exists, last_option, path};
use super::optional;
use super::values::Text;
use crate::shell;
use machine::{Owner, Share, ShareCache, ShareOptions};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// What a folder is called whose own name says nothing.
const TAG: &str = "share";
/// For messages.
const OPTIONS: &str = "ro, owner= and cache=";

/// A shared folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShareSettings {
    pub(crate) path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<ShownOwner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<ShareCache>,
}

/// Who owns the host user's files, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShownOwner(pub(crate) Owner);

impl Text for ShownOwner {
    const SUCH_AS: &'static str = "\"me\"";

    fn parse(text: &str) -> Result<Self, String> {
        let owner = match text {
            "me" => Owner::default(),
            "keep" => Owner::Keep,
            number => Owner::User(number.parse().map_err(|_| {
                "owner is me (this user's files are root's), keep (the host's numbers), or a \
                 number of the guest's, such as 1000"
            })?),
        };
        Ok(Self(owner))
    }

    fn text(&self) -> String {
        match self.0 {
            Owner::Keep => "keep".into(),
            Owner::User(0) => "me".into(),
            Owner::User(number) => number.to_string(),
        }
    }
}

impl ShareSettings {
    /// `DIR[:TAG][,OPTION]…`; two commas are one of a name. A folder whose name ends like a tag or
    /// an option is taken whole if it exists.
    ///
    /// # Errors
    /// An option that is not known, or no folder.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let mut rest = text.as_bytes();
        let mut share = Self::default();
        while !exists(rest) {
            let Some((before, option)) = last_option(rest) else { break };
            share.take(option)?;
            rest = before;
        }
        if !exists(rest)
            && let Some(colon) = rest.iter().rposition(|&byte| byte == b':')
        {
            let tag = String::from_utf8_lossy(&rest[colon + 1..]).into_owned();
            (rest, share.tag) = (&rest[..colon], Some(tag));
        }
        if rest.is_empty() {
            return Err("it names no folder; write --share DIR[:TAG][,ro]".into());
        }
        share.path = path(rest);
        Ok(share)
    }

    fn take(&mut self, option: &[u8]) -> Result<(), String> {
        match option {
            b"ro" => self.read_only = true,
            b"cache=auto" => self.cache = Some(ShareCache::Auto),
            b"cache=always" => self.cache = Some(ShareCache::Always),
            b"cache=none" => self.cache = Some(ShareCache::None),
            other => {
                let Some(owner) = other.strip_prefix(b"owner=") else {
                    let option = shell::shown(OsStr::from_bytes(other));
                    return Err(format!(
                        "no option is called {option}; there are {OPTIONS} (a comma in a name is \
                         written twice)"
                    ));
                };
                self.owner = Some(ShownOwner::parse(&String::from_utf8_lossy(owner))?);
            }
        }
        Ok(())
    }

    /// What the guest calls it: as it is said, else after the folder, as far as that is fit.
    pub(crate) fn tag(&self) -> String {
        let own = || {
            let whole = std::path::absolute(&self.path).ok()?;
            let name = whole.file_name()?.to_string_lossy().into_owned();
            let fit =
                |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
            let name: String = name.trim_start_matches('.').chars().map(fit).take(36).collect();
            (!name.is_empty()).then_some(name)
        };
        self.tag.clone().or_else(own).unwrap_or_else(|| TAG.into())
    }

    /// As the machine takes it.
    pub(crate) fn share(&self) -> Share {
        let Self { path, tag: _, read_only, owner, cache } = self;
        let options = ShareOptions {
            read_only: *read_only,
            owner: owner.map(|ShownOwner(owner)| owner).unwrap_or_default(),
            cache: cache.unwrap_or_default(),
        };
        Share { path: path.clone(), tag: self.tag(), options }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_a_folder_and_perhaps_a_tag_and_options() {
        let of = |path: &str| ShareSettings { path: path.into(), ..ShareSettings::default() };
        let tagged = |path: &str, tag: &str| ShareSettings { tag: Some(tag.into()), ..of(path) };
        let owner = |owner| Some(ShownOwner(owner));
        for (text, expected) in [
            ("/none/a", of("/none/a")),
            ("/none/a:b", tagged("/none/a", "b")),
            ("/none/a,ro", ShareSettings { read_only: true, ..of("/none/a") }),
            ("/none/a,,b", of("/none/a,b")),
            ("/none/a,owner=keep", ShareSettings { owner: owner(Owner::Keep), ..of("/none/a") }),
            (
                "/none/a:b,owner=1000,cache=always,ro",
                ShareSettings {
                    read_only: true,
                    owner: owner(Owner::User(1000)),
                    cache: Some(ShareCache::Always),
                    ..tagged("/none/a", "b")
                },
            ),
        ] {
            assert_eq!(ShareSettings::parse(text.as_ref()), Ok(expected), "{text}");
        }
        for wrong in ["", ",ro", ":a", "/none/a,rw", "/none/a,owner=", "/none/a,cache=2"] {
            assert!(ShareSettings::parse(wrong.as_ref()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_is_called_after_itself() {
        for (path, tag) in
            [("/a/src", "src"), ("/a/.b c", "b_c"), ("/", "share"), ("/a/..", "share")]
        {
            let share = ShareSettings { path: path.into(), ..ShareSettings::default() };
            assert_eq!(share.share().tag, tag, "{path}");
        }
    }
}
