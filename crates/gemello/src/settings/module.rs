//! `--module` and `[[boot.module]]`; the words of a command.

use crate::shell;
use serde::de::Deserializer;
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A further file for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleSettings {
    pub(crate) path: PathBuf,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) arguments: String,
}

impl ModuleSettings {
    /// `FILE[=ARGS]`; a file whose name holds `=` is taken whole if it exists.
    ///
    /// # Errors
    /// The arguments are no text.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let equals = bytes.iter().position(|&byte| byte == b'=');
        let Some(equals) = equals.filter(|_| !Path::new(text).exists()) else {
            return Ok(Self { path: text.into(), arguments: String::new() });
        };
        let arguments = std::str::from_utf8(&bytes[equals + 1..]).map_err(|_| {
            format!("the arguments of {} are no UTF-8 text; change them", shell::shown(text))
        })?;
        Ok(Self { path: OsStr::from_bytes(&bytes[..equals]).into(), arguments: arguments.into() })
    }
}

/// A word of the guest's command: any bytes on the command line, text in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) OsString);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let no_text = || {
            let word = shell::shown(&self.0);
            S::Error::custom(format!(
                "the word {word} is no UTF-8 text, and a file holds only that"
            ))
        };
        serializer.serialize_str(self.0.to_str().ok_or_else(no_text)?)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_may_have_arguments() {
        let parse = |text: &str| ModuleSettings::parse(text.as_ref()).expect("a module");
        let of = |path: &str, arguments: &str| ModuleSettings {
            path: path.into(),
            arguments: arguments.into(),
        };
        assert_eq!(parse("init.bin"), of("init.bin", ""));
        assert_eq!(parse("init.bin=a=b c"), of("init.bin", "a=b c"));
        assert!(ModuleSettings::parse(OsStr::from_bytes(b"a=\xff")).is_err());
    }
}
