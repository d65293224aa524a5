//! The initial file system: busybox, `init.sh`, and a small file that says what this run is about.

use super::cpio::Archive;

/// Process 1 of the guest.
const INIT: &[u8] = include_bytes!("init.sh");

/// `/etc/profile`, read by login and interactive shells.
const PROFILE: &str = "export PS1='\\w # '\nalias ll='ls -l'\n";

/// What the guest is booted for.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// A shell, or one command.
    pub(crate) mode: Mode,
    /// Rows and columns of the user's terminal.
    pub(crate) window: (u16, u16),
    /// The user's `TERM`.
    pub(crate) term: String,
    /// The machine has disks: load their drivers.
    pub(crate) disks: bool,
}

/// How `ttyS0` is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An interactive shell.
    Shell,
    /// A command on a terminal.
    Command(Vec<String>),
    /// A command whose input and output are byte streams.
    Pipe(Vec<String>),
}

/// The archive.
pub(super) fn build(busybox: &[u8], drivers: &[Vec<u8>], session: &Session) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "etc/gemello", "proc", "root", "sbin", "sys", "tmp"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.file("bin/busybox", 0o755, busybox);
    archive.link("bin/sh", "busybox");
    archive.file("init", 0o755, INIT);
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\n");
    archive.file("etc/profile", 0o644, PROFILE.as_bytes());
    archive.file("etc/gemello/run", 0o600, run_file(session).as_bytes());
    if session.disks {
        archive.directory("etc/gemello/drivers", 0o755);
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("etc/gemello/drivers/{number}.ko"), 0o644, driver);
        }
    }
    archive.finish()
}

/// What `init.sh` sources.
fn run_file(session: &Session) -> String {
    let (mode, command) = match &session.mode {
        Mode::Shell => ("shell", None),
        Mode::Command(command) => ("command", Some(command)),
        Mode::Pipe(command) => ("pipe", Some(command)),
    };
    let (rows, cols) = session.window;
    let term = quoted(&session.term);
    let mut text = format!("mode={mode} rows={rows} cols={cols} TERM={term}\n");
    if let Some(words) = command {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        text.push_str(&format!("command_line() {{ setsid -c {}; }}\n", words.join(" ")));
    }
    text
}

/// `word` as the shell reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn session(mode: Mode) -> Session {
        Session { mode, window: (24, 80), term: "xterm".into(), disks: false }
    }

    /// The host's shell, as oracle of the quoting.
    #[test]
    fn any_argument_survives_the_shell() {
        let words = ["plain", "two words", "it's", "$HOME `id`", "new\nline", "", "\\", "-n"];
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let file = run_file(&session(Mode::Pipe(words.clone())));
        let script = format!("setsid() {{ shift; printf '%s\\0' \"$@\"; }}\n{file}command_line");
        let output = Command::new("sh").arg("-c").arg(script).output().expect("a shell");
        let read_back = String::from_utf8(output.stdout).expect("text");
        assert_eq!(read_back.split_terminator('\0').collect::<Vec<_>>(), words);
    }

    #[test]
    fn a_shell_session_defines_no_command() {
        let file = run_file(&session(Mode::Shell));
        assert!(file.starts_with("mode=shell rows=24 cols=80"), "{file}");
        assert!(!file.contains("command_line"));
    }

    #[test]
    fn init_is_valid_shell() {
        let status = Command::new("sh").arg("-n").arg("src/debian/init.sh").status();
        assert!(status.expect("a shell").success());
    }
}
