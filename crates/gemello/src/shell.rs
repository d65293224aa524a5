//! Words as a POSIX shell reads them back, for commands that messages propose; and the variables of
//! an environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// `word` as any shell reads it back unchanged, whatever bytes are in it.
pub(crate) fn quoted(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            other => text.push(other),
        }
    }
    text.push(b'\'');
    text
}

/// `word` for a message, to be pasted into a shell: quoted only where that is needed, on one line,
/// without a byte that a terminal acts upon.
pub(crate) fn shown(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_./:=@%+,-".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match word.to_str() {
        Some(text) if !text.chars().any(char::is_control) => {
            String::from_utf8_lossy(&quoted(bytes)).into_owned()
        }
        _ => escaped(bytes),
    }
}

/// `$'…'`, which POSIX has since 2024 and bash, zsh and ksh always had.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            other => text.push_str(&format!("\\{other:03o}")),
        }
    }
    text.push('\'');
    text
}

/// `NAME=VALUE`, as an environment has it.
pub(crate) fn variable(name: &OsStr, value: &OsStr) -> OsString {
    let mut variable = name.to_owned();
    variable.push("=");
    variable.push(value);
    variable
}

/// A whole command, each word [`shown`].
pub(crate) fn command(words: impl IntoIterator<Item = OsString>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| shown(&word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const WORDS: &[&[u8]] = &[
        b"plain/path-1.img",
        b"two words",
        b"it's",
        b"$HOME `id` \"x\" \\",
        b"new\nline",
        b"",
        b"-n",
        b"~",
        b"*",
        b"#",
        b"\xff\x81\x88 \xc3\xa9",
        b"\x1b[31m\t'\\",
        "é".as_bytes(),
    ];

    fn read_back(shell: &str, script: &[u8]) -> Vec<u8> {
        let script = OsStr::from_bytes(script);
        let output = Command::new(shell).arg("-c").arg(script).output().expect("a shell");
        output.stdout
    }

    /// The host's shells as oracles of the quoting.
    #[test]
    fn any_word_survives_the_shell() {
        for word in WORDS {
            let script = [b"printf %s ".as_slice(), &quoted(word)].concat();
            assert_eq!(read_back("sh", &script), *word);
            let shown = shown(OsStr::from_bytes(word));
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert_eq!(read_back("bash", format!("printf %s {shown}").as_bytes()), *word);
        }
    }

    #[test]
    fn nothing_is_quoted_without_need() {
        let words = ["qemu-img", "convert", "a b", "/tmp/c.raw"].map(OsString::from);
        assert_eq!(command(words), "qemu-img convert 'a b' /tmp/c.raw");
    }
}
