//! The initial file system: busybox, `init.sh`, and a small file that says what this run is about.

use super::cpio::Archive;
use super::packages::DeviceKind;
use crate::shell::quoted;
use machine::{Transport, UserConfig};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// Process 1 of the guest.
const INIT: &[u8] = include_bytes!("init.sh");

/// What udhcpc calls when it has a lease.
const LEASE: &[u8] = include_bytes!("lease.sh");

/// `/etc/profile`, read by login and interactive shells.
const PROFILE: &str = "export PS1='\\w # '\nalias ll='ls -l'\n";

/// What the guest is booted for.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// A shell, or one command.
    pub(crate) mode: Mode,
    /// Where its standard error goes.
    pub(crate) errors: Errors,
    /// Rows and columns of the user's terminal.
    pub(crate) window: (u16, u16),
    /// The user's `TERM`.
    pub(crate) term: OsString,
    /// How the machine's devices are reached.
    pub(crate) transport: Transport,
    /// What devices it has whose drivers are to be loaded.
    pub(crate) devices: Vec<DeviceKind>,
    /// How its network gets addresses.
    pub(crate) addresses: Addresses,
    /// Shared folders to mount: what each is called, and the mount's options after a `:`.
    pub(crate) shares: Vec<String>,
}

/// How the guest gets the addresses of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// They are those of gemello's own network, and known before.
    Known,
    /// It asks by DHCP.
    Asked,
    /// Not by itself.
    None,
}

/// Where standard error goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Errors {
    /// Where standard output goes, in one order.
    WithOutput,
    /// To a port of its own.
    Apart,
}

/// How the user's side is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An interactive shell.
    Shell,
    /// A command on a terminal.
    Command(Vec<OsString>),
    /// A command whose input and output are byte streams.
    Pipe(Vec<OsString>),
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
    archive.file("etc/gemello/run", 0o600, &run_file(session));
    if session.devices.contains(&DeviceKind::Net) {
        archive.file("etc/gemello/lease", 0o755, LEASE);
    }
    if !drivers.is_empty() {
        archive.directory("etc/gemello/drivers", 0o755);
        for (number, driver) in drivers.iter().enumerate() {
            archive.file(&format!("etc/gemello/drivers/{number:02}.ko"), 0o644, driver);
        }
    }
    archive.finish()
}

/// What `init.sh` sources.
fn run_file(session: &Session) -> Vec<u8> {
    // With no controlling terminal where there is none, and with setsid's options at their end.
    let (mode, command) = match &session.mode {
        Mode::Shell => ("shell", None),
        Mode::Command(words) => ("command", Some(("setsid -c --", words))),
        Mode::Pipe(words) => ("pipe", Some(("setsid --", words))),
    };
    let errors = match session.errors {
        Errors::WithOutput => "with-output",
        Errors::Apart => "apart",
    };
    let (rows, cols) = session.window;
    let mut text =
        format!("mode={mode} errors={errors} rows={rows} cols={cols} TERM=").into_bytes();
    text.extend(quoted(session.term.as_bytes()));
    let addresses = match session.addresses {
        Addresses::Known => format!(
            " net=known address={} netmask={} gateway={} resolver={}",
            UserConfig::GUEST,
            UserConfig::NETMASK,
            UserConfig::GATEWAY,
            UserConfig::RESOLVER
        ),
        Addresses::Asked => " net=asked".into(),
        Addresses::None => " net=none".into(),
    };
    text.extend(addresses.bytes());
    text.extend(b"\nshares=");
    text.extend(quoted(session.shares.join(" ").as_bytes()));
    text.push(b'\n');
    if let Some((start, words)) = command {
        text.extend(format!("command_line() {{ exec {start}").bytes());
        for word in words {
            text.push(b' ');
            text.extend(quoted(word.as_bytes()));
        }
        text.extend(b"; }\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Transport;
    use std::ffi::OsStr;
    use std::process::Command;

    fn session(mode: Mode) -> Session {
        let errors = Errors::WithOutput;
        Session {
            mode,
            errors,
            window: (24, 80),
            term: "xterm".into(),
            transport: Transport::Pci,
            devices: vec![],
            addresses: Addresses::Known,
            shares: vec![],
        }
    }

    /// The host's shell, as oracle of the quoting; `setsid` without its options stands for itself.
    #[test]
    fn any_argument_survives_the_shell() {
        let words: [&[u8]; 11] = [
            b"plain",
            b"two words",
            b"it's",
            b"$HOME `id`",
            b"new\nline",
            b"",
            b"\\",
            b"-n",
            b"-w",
            b"\x81\x88\xff",
            b"--",
        ];
        let given = words.iter().map(|word| OsStr::from_bytes(word).to_owned()).collect();
        let file = run_file(&session(Mode::Pipe(given)));
        let start = b"exec setsid --";
        let at = file.windows(start.len()).position(|part| part == start).expect("a command");
        let (before, after) = (&file[..at], &file[at + start.len()..]);
        let script = [before, b"printf '%s\\0'", after, b"command_line"].concat();
        let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output();
        let read_back = output.expect("a shell").stdout;
        let read_back: Vec<_> = read_back.split(|&byte| byte == 0).collect();
        assert_eq!(read_back[..words.len()], words);
    }

    #[test]
    fn a_shell_session_defines_no_command() {
        let file = String::from_utf8(run_file(&session(Mode::Shell))).expect("text");
        assert!(file.starts_with("mode=shell errors=with-output rows=24 cols=80"), "{file}");
        assert!(!file.contains("command_line"));
    }

    #[test]
    fn init_is_valid_shell() {
        let status = Command::new("sh").arg("-n").arg("src/debian/init.sh").status();
        assert!(status.expect("a shell").success());
    }
}
