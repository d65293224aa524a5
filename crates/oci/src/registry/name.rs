//! What an image of a registry is called (distribution-spec, "Pulling manifests"), as docker's
//! users write it.

use super::RegistryError;
use crate::Digest;
use std::fmt;
use std::net::IpAddr;

/// What begins the word.
const SCHEME: &str = "docker://";
/// The tag that is meant where none is said.
const LATEST: &str = "latest";
/// Where docker keeps what is called by one word.
const OF_ONE_WORD: &str = "library";
/// Bytes of a path with its registry, and of a tag.
const LONGEST: usize = 255;
const LONGEST_TAG: usize = 128;

/// A name as the user wrote it: `docker://[HOST[:PORT]/]PATH[:TAG][@sha256:…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    host: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// One image of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub(super) host: String,
    pub(super) path: String,
    pub(super) reference: Reference,
}

/// What is asked for in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Name {
    /// Whether `word` is meant as one.
    pub fn is_meant(word: &[u8]) -> bool {
        word.starts_with(SCHEME.as_bytes())
    }

    /// What `word` names.
    ///
    /// # Errors
    /// Why it is no name, in words.
    pub fn parse(word: &str) -> Result<Self, String> {
        let rest = word.strip_prefix(SCHEME);
        let rest = rest.ok_or("an image of a registry is docker:// and its name")?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::try_from(digest.to_owned())?)),
            None => (rest, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_host(first) => (Some(checked_host(first)?), rest),
            _ => (None, rest),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(checked_tag(tag)?)),
            None => (rest, None),
        };
        let length = host.as_ref().map_or(0, String::len) + path.len();
        if path.is_empty() || length > LONGEST || !path.split('/').all(is_component) {
            return Err(format!(
                "{path:?} is no image's path: words of a-z, 0-9 and single . _ - within them, with \
                 / between them"
            ));
        }
        Ok(Self { host, path: path.to_owned(), tag, digest })
    }

    /// What it is called last, for a machine's name.
    pub fn last_word(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Where the image is; `default` is the registry of names that say none.
    ///
    /// # Errors
    /// No registry is said, or `default` is none.
    pub fn locate(&self, default: Option<&str>) -> Result<Location, RegistryError> {
        let (host, path) = match (&self.host, default) {
            (Some(host), _) => (host.clone(), self.path.clone()),
            (None, Some(default)) => {
                let host = checked_host(default).map_err(RegistryError::Name)?;
                (host, self.whole_path())
            }
            (None, None) => return Err(RegistryError::Name(self.no_host())),
        };
        let reference = match self.digest {
            Some(digest) => Reference::Digest(digest),
            None => Reference::Tag(self.tag.clone().unwrap_or_else(|| LATEST.to_owned())),
        };
        Ok(Location { host, path, reference })
    }

    /// The path where no registry is said: docker keeps images of one word in a folder.
    fn whole_path(&self) -> String {
        let alone = !self.path.contains('/');
        if alone { format!("{OF_ONE_WORD}/{}", self.path) } else { self.path.clone() }
    }

    fn no_host(&self) -> String {
        let with_host = Self { host: Some("HOST".into()), path: self.whole_path(), ..self.clone() };
        format!(
            "{self} does not say of which registry: write {with_host}, or set GEMELLO_REGISTRY to \
             the HOST that such names mean (docker info shows docker's own as Registry)"
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, path, tag, digest } = self;
        f.write_str(SCHEME)?;
        host.iter().try_for_each(|host| write!(f, "{host}/"))?;
        f.write_str(path)?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, path, reference } = self;
        match reference {
            Reference::Tag(tag) => write!(f, "{SCHEME}{host}/{path}:{tag}"),
            Reference::Digest(digest) => write!(f, "{SCHEME}{host}/{path}@{digest}"),
        }
    }
}

impl Location {
    /// The digest by which the image is called, if it is: it never means another.
    pub fn digest(&self) -> Option<Digest> {
        match self.reference {
            Reference::Digest(digest) => Some(digest),
            Reference::Tag(_) => None,
        }
    }

    /// Whether the registry is this host's own: nobody listens on the way.
    pub(super) fn is_loopback(&self) -> bool {
        let host = split_port(&self.host).0;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// Whether the first word of a name is a registry, by docker's rule.
fn is_host(word: &str) -> bool {
    let capital = word.contains(|c: char| c.is_ascii_uppercase());
    word == "localhost" || word.contains(['.', ':']) || capital
}

fn checked_host(word: &str) -> Result<String, String> {
    let (host, number) = split_port(word);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let is_address = |text: &str| text.parse().is_ok_and(|address: IpAddr| address.is_ipv6());
    let sound = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => is_address(address),
        None => host.starts_with(|c: char| c.is_ascii_alphanumeric()) && host.bytes().all(named),
    };
    let number = number.is_none_or(|text| text.parse::<u16>().is_ok_and(|number| number > 0));
    let fits = word.len() <= LONGEST;
    if sound && number && fits {
        return Ok(word.to_owned());
    }
    Err(format!("{word:?} is no registry: HOST or HOST:PORT, such as 127.0.0.1:5000"))
}

/// A host and the port after it.
fn split_port(word: &str) -> (&str, Option<&str>) {
    match word.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (word, None),
    }
}

fn checked_tag(tag: &str) -> Result<String, String> {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let sound = !tag.is_empty() && tag.len() <= LONGEST_TAG && tag.bytes().all(within);
    if sound && !tag.starts_with(['.', '-']) {
        return Ok(tag.to_owned());
    }
    Err(format!("{tag:?} is no tag: at most 128 of a-z, A-Z, 0-9, _ . -"))
}

/// Whether `word` may stand between the slashes of a path.
fn is_component(word: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separator =
        |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-');
    let (bytes, ends) = (word.as_bytes(), [word.as_bytes().first(), word.as_bytes().last()]);
    let mut runs = bytes.chunk_by(|a, b| plain(a) == plain(b));
    ends.iter().all(|end| end.is_some_and(plain))
        && runs.all(|run| plain(&run[0]) || separator(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(word: &str, default: Option<&str>) -> Result<String, String> {
        let name = Name::parse(word)?;
        assert_eq!(name.to_string(), word, "as it was written");
        name.locate(default).map(|it| it.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = Digest::of(b"x");
        let cases = [
            ("docker://a.example/b", "a.example/b:latest"),
            ("docker://a.example:5000/b/c__d/e-f:1.2", "a.example:5000/b/c__d/e-f:1.2"),
            ("docker://localhost/b", "localhost/b:latest"),
            ("docker://[::1]:5000/b", "[::1]:5000/b:latest"),
            ("docker://HOST/b", "HOST/b:latest"),
            ("docker://alpine", "default:1/library/alpine:latest"),
            ("docker://library/alpine:3", "default:1/library/alpine:3"),
            ("docker://me/my.image:V-1_x", "default:1/me/my.image:V-1_x"),
        ];
        for (word, whole) in cases {
            assert_eq!(located(word, Some("default:1")), Ok(format!("docker://{whole}")));
        }
        let both = format!("docker://a.example/b:1@{digest}");
        assert_eq!(located(&both, None), Ok(format!("docker://a.example/b@{digest}")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for word in [
            "docker://",
            "docker:///a",
            "docker://a.b/",
            "docker://A",
            "docker://a//b",
            "docker://a:",
            "docker://a.example/../b",
            "docker://a.example/b/..",
            "docker://a:b:c",
            "docker://a/-b",
            "docker://a@sha256:00",
            "docker://a:0/b",
            "docker://a:99999/b",
            "docker://a..b.c",
            "docker://u:p@a.example/b",
            "docker://a.example/b?c",
            "docker://a.example/b:-x",
            "docker://a b",
            "docker://a\n",
            "docker://[::1/b",
            "docker://[x]:1/b",
            "oci:x",
        ] {
            assert!(Name::parse(word).is_err(), "{word}");
        }
        let long = format!("docker://{}", "a".repeat(LONGEST + 1));
        assert!(Name::parse(&long).is_err());
    }

    #[test]
    fn a_name_without_a_registry_says_what_to_do() {
        let why = located("docker://alpine:3", None).expect_err("no registry");
        assert!(why.contains("docker://HOST/library/alpine:3") && why.contains("GEMELLO_REGISTRY"));
        assert!(located("docker://alpine", Some("https://x/v1/")).is_err());
    }

    #[test]
    fn this_hosts_own_registries_are_known() {
        let is = |word: &str| {
            Name::parse(word).expect("a name").locate(None).expect("it says where").is_loopback()
        };
        for own in ["docker://127.0.0.1:1/a", "docker://localhost/a", "docker://[::1]:5/a"] {
            assert!(is(own), "{own}");
        }
        for other in ["docker://127.0.0.1.example/a", "docker://10.0.0.1:1/a", "docker://[::2]/a"] {
            assert!(!is(other), "{other}");
        }
    }
}
