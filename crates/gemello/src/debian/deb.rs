//! A package's file: what it says of itself, and the files in it, taken apart by dpkg-deb.

use super::apt;
use anyhow::{Context as _, Result, anyhow, bail};
use rootfs::{Archive, Content, Kind};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A package that is taken apart. Its content is in the spool.
#[derive(Debug)]
pub(crate) struct Deb {
    /// Its control file.
    pub(crate) control: Control,
    /// What else it says: scripts, lists. Each one's name, its permissions, and where it is.
    pub(crate) others: Vec<(String, u16, Content)>,
    /// The archive of its files.
    pub(crate) files: Content,
}

impl Deb {
    /// Takes `package` apart, at the end of `spool`.
    ///
    /// # Errors
    /// It is damaged, or the disk is full.
    pub(crate) fn read(package: &Path, spool: &mut File) -> Result<Self> {
        let about = part(package, "--ctrl-tarfile", spool)?;
        let files = part(package, "--fsys-tarfile", spool)?;
        let mut archive = Archive::new(spool, about);
        let damaged = |error| anyhow!("{} is no package: {error}", package.display());
        let (mut control, mut others) = (None, Vec::new());
        while let Some(entry) = archive.next_entry().map_err(damaged)? {
            let Kind::File(content) = entry.kind else { continue };
            let name = String::from_utf8_lossy(&entry.path).trim_start_matches("./").to_owned();
            match name.as_str() {
                "control" => control = Some(text(spool, content)?),
                _ if name.contains('/') => bail!("{} is no package", package.display()),
                _ => others.push((name, entry.mode, content)),
            }
        }
        let control = control.with_context(|| format!("{} is no package", package.display()))?;
        Ok(Self { control: Control(control), others, files })
    }

    /// The text of what it says in the file `name`, perhaps nothing.
    pub(crate) fn said(&self, name: &str, spool: &File) -> Result<String> {
        let found = self.others.iter().find(|(other, ..)| other == name);
        found.map_or(Ok(String::new()), |&(_, _, content)| text(spool, content))
    }
}

/// What `content`, a part of `spool`, holds.
pub(crate) fn bytes(spool: &File, content: Content) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(content.bytes)?];
    spool.read_exact_at(&mut bytes, content.offset).context("cannot read an unpacked package")?;
    Ok(bytes)
}

fn text(spool: &File, content: Content) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(spool, content)?).into_owned())
}

/// Has dpkg-deb append `what` of the package to `spool`.
fn part(package: &Path, what: &str, spool: &mut File) -> Result<Content> {
    let offset = spool.seek(SeekFrom::End(0)).context("cannot write an unpacked package")?;
    let output = Command::new("dpkg-deb")
        .arg(what)
        .arg(package)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(spool.try_clone().context("cannot share the spool")?)
        .stderr(Stdio::piped())
        .output()
        .context("cannot run dpkg-deb")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!(apt::unpack_failure(package, Path::new("the cache"), &words));
    }
    let end = spool.seek(SeekFrom::End(0)).context("cannot write an unpacked package")?;
    Ok(Content { offset, bytes: end - offset })
}

/// A package's control file (deb-control(5)).
#[derive(Clone, Debug)]
pub(crate) struct Control(String);

impl Control {
    /// The value of a field of one line.
    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    }

    /// What the package is called.
    pub(crate) fn package(&self) -> &str {
        self.field("Package").unwrap_or_default()
    }

    /// The same where several architectures may have it at once.
    pub(crate) fn qualified(&self) -> String {
        let name = self.package();
        match (self.field("Multi-Arch"), self.field("Architecture")) {
            (Some("same"), Some(architecture)) => format!("{name}:{architecture}"),
            _ => name.to_owned(),
        }
    }

    /// Whether a system cannot do without it.
    pub(crate) fn is_essential(&self) -> bool {
        self.field("Essential") == Some("yes") || self.field("Priority") == Some("required")
    }

    /// What dpkg's status file says of it once it is unpacked; of each of its `conffiles`, the path
    /// and the MD5 sum are known.
    pub(crate) fn stanza(&self, conffiles: &[(String, String)]) -> String {
        let mut stanza = String::from("Status: install ok unpacked\n");
        stanza += self.0.trim_end();
        stanza.push('\n');
        if !conffiles.is_empty() {
            stanza += "Conffiles:\n";
        }
        for (path, sum) in conffiles {
            stanza += &format!(" {path} {sum}\n");
        }
        stanza.push('\n');
        stanza
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "Package: libx1\nVersion: 1:2-3\nArchitecture: amd64\nMulti-Arch: same\n\
        Priority: required\nDescription: words\n Package: none\n .\n more\n";

    #[test]
    fn a_package_is_called_as_its_control_file_says() {
        let control = Control(CONTROL.into());
        assert_eq!((control.package(), &*control.qualified()), ("libx1", "libx1:amd64"));
        assert!(control.is_essential());
        let control = Control("Package: dash\nArchitecture: amd64\nMulti-Arch: foreign\n".into());
        assert_eq!(control.qualified(), "dash");
        assert!(!control.is_essential());
    }

    #[test]
    fn a_stanza_says_that_it_is_unpacked() {
        let control = Control(CONTROL.into());
        let stanza = control.stanza(&[("/etc/x".into(), "0123".into())]);
        let expected = "Status: install ok unpacked\nPackage: libx1\n";
        assert!(stanza.starts_with(expected), "{stanza}");
        assert!(stanza.ends_with("\n more\nConffiles:\n /etc/x 0123\n\n"), "{stanza}");
        assert!(control.stanza(&[]).ends_with(" more\n\n"));
    }
}
