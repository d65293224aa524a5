//! What a machine is called.

use super::values::Text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The most characters of a name.
const MOST: usize = 64;

/// A machine's name: letters, digits, `-`, `_` and `.`, so that it can be part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MachineName(String);

impl MachineName {
    /// That of a machine which boots `image`, or which the file `image` describes.
    pub(crate) fn of_image(image: &Path) -> Self {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let kept = |c: char| if is_inner(c) { c } else { '-' };
        let name: String =
            stem.chars().map(kept).skip_while(|&c| !is_first(c)).take(MOST).collect();
        Self(if name.is_empty() { "machine".into() } else { name })
    }

    /// The name of the machine of this number among those that would be called so.
    pub(crate) fn numbered(&self, number: usize) -> Self {
        if number <= 1 {
            return self.clone();
        }
        let end = format!("-{number}");
        let most = MOST.saturating_sub(end.len());
        Self(self.0.chars().take(most).collect::<String>() + &end)
    }
}

fn is_first(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_inner(c: char) -> bool {
    is_first(c) || c == '-' || c == '.'
}

impl Text for MachineName {
    const SUCH_AS: &'static str = "a name such as \"web-1\"";

    fn parse(text: &str) -> Result<Self, String> {
        if !(1..=MOST).contains(&text.chars().count()) {
            return Err(format!("a name has 1 to {MOST} characters"));
        }
        if !text.starts_with(is_first) || !text.chars().all(is_inner) {
            return Err(
                "a name has letters, digits, - _ and ., and begins with a letter, a digit or _"
                    .into(),
            );
        }
        Ok(Self(text.into()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl TryFrom<String> for MachineName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_part_of_a_files_name() {
        let longest = "x".repeat(MOST);
        for name in ["a", "9", "_", "web-1", "a.b_c-D", &longest] {
            assert_eq!(MachineName::parse(name).map(String::from).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", "-a", ".a", "a/b", "a b", "é", "a\n", &format!("{longest}x")] {
            assert!(MachineName::parse(name).is_err(), "{name}");
        }
        for (path, name) in [
            ("/boot/vmlinuz-6.1", "vmlinuz-6"),
            ("kernel.elf", "kernel"),
            ("/dev/fd/63", "63"),
            ("my machine é.toml", "my-machine--"),
            (".hidden", "hidden"),
            ("--.img", "machine"),
            ("/", "machine"),
            (&format!("{longest}{longest}.img"), &longest),
        ] {
            let made = MachineName::of_image(Path::new(path));
            assert_eq!(made.to_string(), name, "{path}");
            assert_eq!(MachineName::parse(name), Ok(made));
        }
        let long = MachineName::parse(&longest).expect("a name").numbered(12);
        assert_eq!(long.to_string(), format!("{}-12", &longest[3..]));
        let short = MachineName::parse("a").expect("a name");
        assert_eq!([1, 2].map(|n| short.numbered(n).to_string()), ["a", "a-2"]);
    }
}
