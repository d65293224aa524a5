//! What `docker login` has left: a user's name and password for a registry. They are never shown.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

/// A user's name and password, as the scheme Basic writes them (RFC 7617).
pub(super) struct Credentials(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// The value of the field `Authorization`.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", self.0)
    }

    /// Those for the registry `host`, if the user has any.
    ///
    /// # Errors
    /// Why docker's file cannot be used, in words that hold nothing of it.
    pub(super) fn find(host: &str) -> Result<Option<Self>, String> {
        let Some(path) = file() else { return Ok(None) };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        Self::of(&text, host).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn of(text: &[u8], host: &str) -> Result<Option<Self>, String> {
        // A parser's message may quote what it stumbles over.
        let all: Configuration = serde_json::from_slice(text)
            .map_err(|_| "it is no configuration as docker writes it".to_owned())?;
        let Some(key) = all.auths.keys().chain(all.cred_helpers.keys()).find(|it| is(it, host))
        else {
            return Ok(None);
        };
        let helper = all.cred_helpers.get(key).or(all.creds_store.as_ref());
        if let Some(helper) = helper {
            return asked(helper, key);
        }
        let said = all.auths.get(key).and_then(|entry| entry.auth.clone());
        let Some(said) = said.filter(|said| !said.is_empty()) else { return Ok(None) };
        let pair = BASE64_STANDARD.decode(said.trim_end()).ok();
        let pair = pair.filter(|pair| pair.contains(&b':'));
        let pair = pair.ok_or_else(|| format!("its entry for {host} is no name and password"))?;
        Ok(Some(Self(BASE64_STANDARD.encode(pair))))
    }
}

/// docker's own configuration of this user.
fn file() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    let home = || Some(Path::new(&env::var_os("HOME")?).join(".docker"));
    Some(folder.map(PathBuf::from).or_else(home)?.join("config.json"))
}

/// Whether an entry called `key` is for `host`: some are written as addresses of pages.
fn is(key: &str, host: &str) -> bool {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    bare.split('/').next() == Some(host)
}

/// What docker's helper `name` knows of `key`.
fn asked(name: &str, key: &str) -> Result<Option<Credentials>, String> {
    if name.contains('/') {
        return Err(format!("{name:?} is no credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let failed = |error: io::Error| format!("cannot run {program}: {error}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(key.as_bytes()); // it may end without reading
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Ok(None); // it knows none
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{program} gave no name and password"))?;
    let pair = format!("{}:{}", answer.username, answer.secret);
    Ok(Some(Credentials(BASE64_STANDARD.encode(pair))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, host: &str) -> Result<Option<String>, String> {
        Credentials::of(text.as_bytes(), host).map(|found| found.map(|it| it.0))
    }

    #[test]
    fn an_entry_is_found_by_its_registry() {
        let text = r#"{"auths":{"a.example":{"auth":"dTpw"},"https://b.example/v1/":{"auth":
            "dTpx"},"c.example":{}},"other":1}"#;
        assert_eq!(of(text, "a.example"), Ok(Some("dTpw".into())));
        assert_eq!(of(text, "b.example"), Ok(Some("dTpx".into())));
        for none in ["c.example", "example", "a.example:5000", ""] {
            assert_eq!(of(text, none), Ok(None));
        }
        assert_eq!(of("{}", "a.example"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_not_quoted() {
        for text in
            [r#"{"auths":{"a":{"auth":["secret"]}}}"#, r#"{"auths":{"a":{"auth":"secret"}}}"#]
        {
            let why = of(text, "a").expect_err("it is wrong");
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(asked("../../bin/x", "a").is_err());
    }
}
