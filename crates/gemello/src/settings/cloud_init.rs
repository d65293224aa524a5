//! `--cloud-init` and `[cloud_init]`.

use super::commas::{exists, last_option, path};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// For messages.
const FORM: &str = "write --cloud-init USER-DATA[,META-DATA[,NETWORK-CONFIG]]";

/// The files that cloud-init is to find.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloudInitSettings {
    pub(crate) user_data: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network_config: Option<PathBuf>,
}

impl CloudInitSettings {
    /// `USER-DATA[,META-DATA[,NETWORK-CONFIG]]`; two commas are one of a name. A file whose name
    /// has a comma is taken whole if it exists.
    ///
    /// # Errors
    /// A file too many, or a name that is missing.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let (mut rest, mut behind) = (text.as_bytes(), Vec::new());
        while !exists(rest) {
            let Some((before, file)) = last_option(rest) else { break };
            behind.push(path(file));
            rest = before;
        }
        let mut files = std::iter::once(path(rest)).chain(behind.into_iter().rev());
        let (user_data, meta_data) = (files.next().unwrap_or_default(), files.next());
        let (network_config, more) = (files.next(), files.next());
        let said = [Some(&user_data), meta_data.as_ref(), network_config.as_ref()];
        if more.is_some() || said.into_iter().flatten().any(|file| file.as_os_str().is_empty()) {
            return Err(format!("cloud-init reads one to three files; {FORM}"));
        }
        Ok(Self { user_data, meta_data, network_config })
    }

    /// The files, to be read.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let Self { user_data, meta_data, network_config } = self.clone();
        std::iter::once(user_data).chain(meta_data).chain(network_config)
    }

    /// Every path in it.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let others = [&mut self.meta_data, &mut self.network_config];
        std::iter::once(&mut self.user_data).chain(others.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_three_files_are_named() {
        let of = |user: &str, meta: Option<&str>, network: Option<&str>| CloudInitSettings {
            user_data: user.into(),
            meta_data: meta.map(Into::into),
            network_config: network.map(Into::into),
        };
        for (text, expected) in [
            ("/none/u", of("/none/u", None, None)),
            ("/none/u,m", of("/none/u", Some("m"), None)),
            ("u,,v,/m,n,,", of("u,v", Some("/m"), Some("n,"))),
        ] {
            assert_eq!(CloudInitSettings::parse(text.as_ref()), Ok(expected), "{text}");
        }
        for wrong in ["", ",m", "u,", "a,b,c,d"] {
            assert!(CloudInitSettings::parse(wrong.as_ref()).is_err(), "{wrong}");
        }
    }
}
