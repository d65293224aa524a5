//! The host's sources of Debian's packages (sources.list(5)), as those of another release: where
//! packages come from, and who signs them, stays the host's.

use super::release::Release;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where the host's are.
const FOLDER: &str = "/etc/apt";

/// Files of sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// What each is called, and its text.
    pub(crate) files: Vec<(String, String)>,
    /// The files of keys that they name.
    pub(crate) keyrings: Vec<PathBuf>,
}

impl Sources {
    /// The host's, of `release`.
    ///
    /// # Errors
    /// They cannot be read, or none is Debian's.
    pub(super) fn of(release: Release) -> Result<Self> {
        let mut sources = Self::default();
        for path in host_files()? {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (text, keyrings) = match path.extension().is_some_and(|it| it == "sources") {
                true => stanzas(&text, release),
                false => lines(&text, release),
            };
            if !text.is_empty() {
                sources.files.push((name, text));
                sources.keyrings.extend(keyrings);
            }
        }
        if sources.files.is_empty() {
            bail!(
                "the sources in {FOLDER} name no release of Debian's with the component main; add \
                 Debian's, or boot an image: gemello run oci:PATH"
            );
        }
        Ok(sources)
    }
}

fn host_files() -> Result<Vec<PathBuf>> {
    let folder = Path::new(FOLDER);
    let parts = folder.join("sources.list.d");
    let entries = match fs::read_dir(&parts) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", parts.display()));
        }
    };
    let ours = |path: &PathBuf| {
        path.is_file() && path.extension().is_some_and(|it| it == "list" || it == "sources")
    };
    let mut files: Vec<_> = entries.into_iter().filter(ours).collect();
    files.sort();
    files.insert(0, folder.join("sources.list"));
    files.retain(|path| path.exists());
    Ok(files)
}

/// What `text`, a file of lines, says of `release`, and the keyrings that are named there.
fn lines(text: &str, release: Release) -> (String, Vec<PathBuf>) {
    let (mut said, mut keyrings) = (String::new(), Vec::new());
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))
        else {
            continue;
        };
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((options, rest)) => (options.trim(), rest),
                None => continue,
            },
            None => ("", rest),
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        let [address, suite, components @ ..] = &words[..] else { continue };
        let Some(suite) = release.suite(suite).filter(|_| components.contains(&"main")) else {
            continue;
        };
        let signers = options.split_whitespace().filter_map(|it| it.strip_prefix("signed-by="));
        keyrings.extend(signers.flat_map(|it| it.split(',')).filter_map(keyring));
        let options = if options.is_empty() { String::new() } else { format!("[{options}] ") };
        said += &format!("deb {options}{address} {suite} {}\n", components.join(" "));
    }
    (said, keyrings)
}

/// The same of a file of stanzas.
fn stanzas(text: &str, release: Release) -> (String, Vec<PathBuf>) {
    let (mut said, mut keyrings) = (Vec::new(), Vec::new());
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let Some((stanza, signers)) = one_stanza(stanza, release) else { continue };
        said.push(stanza);
        keyrings.extend(signers);
    }
    (said.join("\n"), keyrings)
}

fn one_stanza(lines: &[&str], release: Release) -> Option<(String, Vec<PathBuf>)> {
    let (mut said, mut keyrings, mut seen) = (String::new(), Vec::new(), [false; 3]);
    for field in fields(lines) {
        let (name, value) = field.split_once(':')?;
        let mut words = value.split_whitespace();
        match name.to_ascii_lowercase().as_str() {
            "enabled" if words.any(|word| matches!(word, "no" | "false" | "0" | "off")) => {
                return None;
            }
            "types" => {
                seen[0] = words.any(|word| word == "deb");
                said += "Types: deb\n";
                continue;
            }
            "suites" => {
                let suites: Vec<_> = words.filter_map(|suite| release.suite(suite)).collect();
                seen[1] = !suites.is_empty();
                said += &format!("Suites: {}\n", suites.join(" "));
                continue;
            }
            "components" => seen[2] = words.any(|word| word == "main"),
            "signed-by" => keyrings.extend(words.filter_map(keyring)),
            _ => {}
        }
        said += &field;
        said.push('\n');
    }
    (seen == [true; 3]).then_some((said, keyrings))
}

/// Fields with their further lines, which begin with a space.
fn fields(lines: &[&str]) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in lines {
        match fields.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some(field) => *field += &format!("\n{line}"),
            None => fields.push((*line).to_owned()),
        }
    }
    fields
}

/// The file that `word` names.
fn keyring(word: &str) -> Option<PathBuf> {
    word.starts_with('/').then(|| word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_those_of_another_release() {
        let host = "# a comment\n\
            deb http://a.example/debian bookworm main contrib # and why\n\
            deb [arch=amd64 signed-by=/k/one.gpg,/k/two.gpg] http://a.example/security \
            bookworm-security main\n\
            deb-src http://a.example/debian bookworm main\n\
            deb http://b.example/apt bookworm stable\n\
            deb http://a.example/debian bookworm-backports main\n\
            deb [broken http://a.example\ndebian\n";
        let (text, keyrings) = lines(host, Release::Trixie);
        assert_eq!(
            text,
            "deb http://a.example/debian trixie main contrib\n\
            deb [arch=amd64 signed-by=/k/one.gpg,/k/two.gpg] http://a.example/security \
            trixie-security main\n"
        );
        assert_eq!(keyrings, [Path::new("/k/one.gpg"), Path::new("/k/two.gpg")]);
    }

    #[test]
    fn stanzas_become_those_of_another_release() {
        let host = "# a comment\nTypes: deb deb-src\n# within\nURIs: http://a.example/debian\n\
            Suites: bookworm bookworm-updates bookworm-backports\nComponents: main\n\
            Signed-By: /k/one.gpg\n\n\
            Types: deb-src\nURIs: http://a.example/debian\nSuites: bookworm\nComponents: main\n\n\
            Types: deb\nURIs: http://b.example\nSuites: nodistro\nComponents: main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://c\nSuites: bookworm\nComponents: main\n\n\n\
            types: deb\nuris: http://d.example\nsuites: bookworm-security\ncomponents: main\n\
            signed-by:\n -----BEGIN\n .\n key\n";
        let (text, keyrings) = stanzas(host, Release::Trixie);
        assert_eq!(
            text,
            "Types: deb\nURIs: http://a.example/debian\nSuites: trixie trixie-updates\n\
            Components: main\nSigned-By: /k/one.gpg\n\n\
            Types: deb\nuris: http://d.example\nSuites: trixie-security\ncomponents: main\n\
            signed-by:\n -----BEGIN\n .\n key\n"
        );
        assert_eq!(keyrings, [Path::new("/k/one.gpg")]);
        let (text, _) = stanzas(host, Release::Sid);
        assert!(text.contains("Suites: sid\n") && !text.contains("security"), "{text}");
    }
}
