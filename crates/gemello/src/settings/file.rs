//! A machine's file: told from an image, read, and refused with file, line and key.

use super::Settings;
use crate::hints;
use anyhow::{Context as _, Result, anyhow};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use toml::de::Error;

/// Bytes of the largest file that is taken for settings.
const MOST: u64 = 1 << 20;

/// The settings in the file at `path`, if it holds settings: its name ends in `.toml`, or it is a
/// text whose first line, comments aside, is the head of a table.
///
/// # Errors
/// The file cannot be read, or what it says is no setting.
pub(crate) fn read(path: &Path) -> Result<Option<Settings>> {
    let by_name = path.extension().is_some_and(|extension| extension == "toml");
    let readable = fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= MOST);
    if !by_name && !readable {
        return Ok(None);
    }
    let shown = path.display();
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
    file.take(MOST + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    if !by_name && !begins_a_table(&bytes) {
        return Ok(None);
    }
    if bytes.len() as u64 > MOST {
        return Err(anyhow!("{shown} is no machine's file: it has more than {} KiB", MOST >> 10));
    }
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&bytes, &shown.to_string(), base).map(Some)
}

/// The settings that came through the pipe `name`, if `bytes` are settings. Its paths begin in the
/// working directory.
///
/// # Errors
/// What they say is no setting.
pub(crate) fn piped(bytes: &[u8], name: &str) -> Result<Option<Settings>> {
    let settings = begins_a_table(bytes).then(|| parse(bytes, name, Path::new("")));
    settings.transpose()
}

/// Whether this is a text that begins with the head of a table.
fn begins_a_table(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let Some((head, _)) = first.trim_start_matches('[').split_once(']') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    first.starts_with('[') && !head.is_empty() && head.chars().all(plain)
}

fn parse(bytes: &[u8], name: &str, base: &Path) -> Result<Settings> {
    let text = std::str::from_utf8(bytes).with_context(|| format!("{name} is no UTF-8 text"))?;
    let at = |error: &Error| match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            format!("{name}, line {}", before.matches('\n').count() + 1)
        }
        None => name.to_owned(),
    };
    let said = |error: &Error| error.message().trim().replace('\n', ", ");
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| anyhow!("{}: {}", at(&error), said(&error)))?;
    let mut settings: Settings =
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            let error = error.into_inner();
            let why = unknown(&said(&error), &key);
            anyhow!("{}: {}", at(&error), why.unwrap_or_else(|| format!("{key}: {}", said(&error))))
        })?;
    settings.resolve(base);
    Ok(settings)
}

/// What to say of a key at `path` that there is not. `message` is serde's, which lists those that
/// there are.
fn unknown(message: &str, path: &str) -> Option<String> {
    let (key, known) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let table = path.strip_suffix(key).unwrap_or(path).trim_end_matches('.');
    let full = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    let near = known.iter().find(|known| hints::distance(known, key) <= 2);
    let help = match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Some(format!("{full}: no such key; {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text.as_bytes(), "vm.toml", Path::new("")).expect_err(text).to_string()
    }

    #[test]
    fn a_machine_is_read_and_its_paths_begin_beside_the_file() {
        let text = "[machine]\nmemory = \"1G\"\n[boot]\nkernel = \"vmlinuz\"\n\
                    [[disk]]\npath = \"/dev/vda\"\nread_only = true\n[[disk]]\npath = \"a.img\"\n";
        let settings = parse(text.as_bytes(), "vm.toml", Path::new("/vm")).expect("settings");
        assert_eq!(settings.machine.memory.map(|size| size.0), Some(1 << 30));
        assert_eq!(settings.boot.kernel.as_deref(), Some(Path::new("/vm/vmlinuz")));
        assert_eq!(settings.disk[0].path, Path::new("/dev/vda"));
        assert_eq!(settings.disk[1].path, Path::new("/vm/a.img"));
        assert!(settings.disk[0].read_only && !settings.disk[1].read_only);
    }

    #[test]
    fn what_is_wrong_is_named_by_file_line_and_key() {
        for (text, expected) in [
            (
                "[machine]\nmemroy = \"1G\"",
                "line 2: machine.memroy: no such key; did you mean memory",
            ),
            (
                "[machine]\ncolour = 1",
                "line 2: machine.colour: no such key; there are name, memory",
            ),
            ("[machine]\nname = \"a/b\"", "line 2: machine.name: a name has letters"),
            ("\n[mashine]\n", "line 2: mashine: no such key; did you mean machine?"),
            ("[machine]\n\nmemory = \"1\"", "line 3: machine.memory: give a unit"),
            ("[machine]\nmemory = 512", "line 2: machine.memory: invalid type: integer `512`"),
            ("[machine]\nmemory = 512", "expected a size such as \"512M\""),
            ("[machine]\ncpu = \"i486\"", "line 2: machine.cpu: no CPU model is named 'i486'"),
            ("[boot]\nbusybox = \"tiny\"", "line 2: boot.busybox: unknown variant `tiny`"),
            ("[[disk]]\npath = \"a\"\n[[disk]]\npath = 1", "line 4: disk[1].path: invalid type"),
            ("[[disk]]\nread_only = true", "disk[0]: missing field `path`"),
            (
                "[[disk]]\npath = \"a\"\nro = true",
                "line 3: disk[0].ro: no such key; there are path",
            ),
            ("[machine]\nmemory = 1G", "line 2"),
            ("[engine]\ntier = \"jit\"", "line 2: engine.tier: no tier is called jit; there are"),
            ("[run]\ntrace = [\"irk\"]", "line 2: run.trace[0]: unknown variant `irk`"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with("vm.toml, line "), "{text}: {refusal}");
            assert!(refusal.contains(expected), "{text}: {refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn settings_are_told_from_images_and_scripts() {
        for text in ["[machine]", "# ours\n\n [[disk]]\npath = \"x\"", "#!/x\n[boot]\n"] {
            assert!(begins_a_table(text.as_bytes()), "{text}");
        }
        for text in ["", "#!/bin/sh\n[ -f x ] && y\n", "<html>", "[]", "\x7fELF", "hello [x]"] {
            assert!(!begins_a_table(text.as_bytes()), "{text}");
        }
        assert!(!begins_a_table(b"[machine]\n\xff"));
    }
}
