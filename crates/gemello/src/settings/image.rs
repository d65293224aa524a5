//! `oci:PATH`: an image whose files become a machine's root.

use super::values::Text;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What begins the word.
const SCHEME: &str = "oci:";

/// Where an image lies: a folder or an archive, and after a colon perhaps what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageName(pub(crate) PathBuf);

impl ImageName {
    /// What `word` names, if it names an image.
    pub(crate) fn of_word(word: &OsStr) -> Option<Self> {
        let path = word.as_bytes().strip_prefix(SCHEME.as_bytes())?;
        Some(Self(OsStr::from_bytes(path).into()))
    }

    /// The path, and the image's name there: what follows the last colon, unless that is part of a
    /// file's name.
    pub(crate) fn split(&self) -> (&Path, Option<&str>) {
        let whole = self.0.as_path();
        if whole.exists() {
            return (whole, None);
        }
        let bytes = whole.as_os_str().as_bytes();
        let colons = (0..bytes.len()).filter(|&at| bytes[at] == b':');
        let mut cut = colons.filter_map(|at| {
            let path = Path::new(OsStr::from_bytes(&bytes[..at]));
            Some((path, std::str::from_utf8(&bytes[at + 1..]).ok()?))
        });
        let found = cut.rfind(|(path, _)| path.exists());
        found.map_or((whole, None), |(path, tag)| (path, Some(tag)))
    }
}

impl Text for ImageName {
    const SUCH_AS: &'static str = "an image such as \"oci:image.tar\"";

    fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix(SCHEME).filter(|path| !path.is_empty());
        let path = path.ok_or("an image is oci: and the path of a folder or an archive")?;
        Ok(Self(path.into()))
    }

    fn text(&self) -> String {
        format!("{SCHEME}{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_colon_is_a_name_unless_it_is_part_of_a_files() {
        let folder = std::env::temp_dir().join(format!("gemello-name-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a:b")).expect("a folder");
        let split = |rest: &str| {
            let name = ImageName(folder.join(rest));
            let (path, tag) = name.split();
            let path = path.strip_prefix(&folder).expect("in it").to_owned();
            (path.display().to_string(), tag.map(str::to_owned))
        };
        assert_eq!(split("a:b"), ("a:b".into(), None));
        assert_eq!(split("a:b:c"), ("a:b".into(), Some("c".into())));
        assert_eq!(split("a:b:host:5/x:1"), ("a:b".into(), Some("host:5/x:1".into())));
        assert_eq!(split("none:x"), ("none:x".into(), None));
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
