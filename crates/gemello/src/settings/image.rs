//! `oci:PATH` and `docker://NAME`: an image whose files become a machine's root.

use super::values::Text;
use oci::Name;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What begins the word.
const SCHEME: &str = "oci:";

/// Where an image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageName {
    /// A folder or an archive, and after a colon perhaps what it is called there.
    File(PathBuf),
    Registry(Name),
}

impl ImageName {
    /// What `word` names, if it is meant as an image; an error says why it is none.
    pub(crate) fn of_word(word: &OsStr) -> Option<Result<Self, String>> {
        if Name::is_meant(word.as_bytes()) {
            return Some(Name::parse(&word.to_string_lossy()).map(Self::Registry));
        }
        let path = word.as_bytes().strip_prefix(SCHEME.as_bytes())?;
        Some(Ok(Self::File(OsStr::from_bytes(path).into())))
    }

    /// The file, if it is one.
    pub(crate) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Registry(_) => None,
        }
    }

    /// What a machine is called after.
    pub(crate) fn called(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Registry(name) => Path::new(name.last_word()),
        }
    }

    /// The path, and the image's name there: what follows the last colon, unless that is part of a
    /// file's name.
    pub(crate) fn split(&self) -> (&Path, Option<&str>) {
        let whole = self.called();
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
        if Name::is_meant(text.as_bytes()) {
            return Name::parse(text).map(Self::Registry);
        }
        let path = text.strip_prefix(SCHEME).filter(|path| !path.is_empty());
        let path = path.ok_or(
            "an image is oci: and the path of a folder or an archive, or docker:// and a name",
        )?;
        Ok(Self::File(path.into()))
    }

    fn text(&self) -> String {
        match self {
            Self::File(path) => format!("{SCHEME}{}", path.display()),
            Self::Registry(name) => name.to_string(),
        }
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
            let name = ImageName::File(folder.join(rest));
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

    #[test]
    fn images_are_written_as_they_were_read() {
        for word in ["oci:a.tar:1", "docker://a.example:5000/b/c:1"] {
            let name = ImageName::parse(word).expect("an image");
            assert_eq!(name.text(), word);
            assert_eq!(ImageName::of_word(word.as_ref()), Some(Ok(name)));
        }
        assert!(ImageName::parse("docker://a/../b").is_err() && ImageName::parse("oci:").is_err());
        assert_eq!(ImageName::of_word("alpine".as_ref()), None);
        let called = ImageName::parse("docker://a.example/b/c:1").expect("an image");
        assert_eq!(called.called(), Path::new("c"));
    }
}
