//! The file in the initial file system.

use crate::text::{self, Text, number};
use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// What a guest is booted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// What standard input and output are.
    pub streams: Streams,
    /// Where standard error goes.
    pub errors: Errors,
    /// Rows and columns of the user's terminal.
    pub window: (u16, u16),
    /// What the guest is called.
    pub host_name: OsString,
    /// How the network gets its addresses.
    pub net: Net,
    /// What becomes the root. Without one, the root is the initial file system.
    pub root: Option<Root>,
    /// Further shared folders.
    pub folders: Vec<Folder>,
    /// What is run.
    pub program: Program,
    /// The signal by which the program, rather than the machine, is asked to end.
    pub stop_signal: Option<u8>,
}

/// What becomes the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The shared folder of this tag, below what the guest writes.
    Folder(String),
    /// The ext4 file system on this device, which the guest writes.
    Disk(String),
    /// The same, and what is on it is a system: its own process 1 comes after the agent.
    System(String),
    /// The same, but the agent stays process 1, and does what programs need of the other.
    Bare(String),
}

/// What standard input and output are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// The first serial line, for a shell that greets its user and has no status.
    #[default]
    Shell,
    /// The first serial line.
    Terminal,
    /// A port each.
    Pipes,
}

/// Where standard error goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Errors {
    /// Where standard output goes, in one order.
    #[default]
    WithOutput,
    /// To a port of its own.
    Apart,
}

/// How the network gets its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// Not by itself.
    #[default]
    None,
    /// It asks by DHCP.
    Asked,
    /// They are known.
    Known {
        /// The guest's.
        address: Ipv4Addr,
        /// How many bits of it are the network's.
        prefix: u8,
        /// Where the default route leads.
        gateway: Ipv4Addr,
        /// Who resolves names.
        resolver: Ipv4Addr,
    },
}

/// A shared folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// What it is called.
    pub tag: String,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// Where it is mounted. What is missing of the path is made.
    pub place: PathBuf,
}

/// A program, and as whom and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The program, and its arguments.
    pub words: Vec<OsString>,
    /// `NAME=VALUE` each.
    pub environment: Vec<OsString>,
    /// The working directory.
    pub folder: PathBuf,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// What new files do not permit.
    pub umask: u32,
}

/// A file that is no job.
#[derive(Debug, PartialEq, Eq)]
pub struct JobError(String);

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no job for the agent: {}", self.0)
    }
}

impl std::error::Error for JobError {}

impl Job {
    /// The file's content. What holds a NUL is cut there.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { streams, errors, window, host_name, net, root, folders, program, stop_signal } =
            self;
        let mut text = Text::default();
        text.put("streams", streams.name());
        text.put("errors", errors.name());
        text.number("rows", window.0);
        text.number("columns", window.1);
        text.put("host-name", host_name);
        match net {
            Net::None => text.put("net", "none"),
            Net::Asked => text.put("net", "asked"),
            Net::Known { address, prefix, gateway, resolver } => {
                text.put("net", format!("{address} {prefix} {gateway} {resolver}"));
            }
        }
        match root {
            None => {}
            Some(Root::Folder(tag)) => text.put("root", tag),
            Some(Root::Disk(device)) => text.put("root-disk", device),
            Some(Root::System(device)) => text.put("root-system", device),
            Some(Root::Bare(device)) => text.put("root-bare", device),
        }
        for Folder { tag, read_only, place } in folders {
            text.put(if *read_only { "folder-ro" } else { "folder-rw" }, tag);
            text.put("place", place);
        }
        let Program { words, environment, folder, uid, gid, groups, umask } = program;
        words.iter().for_each(|word| text.put("word", word));
        environment.iter().for_each(|variable| text.put("variable", variable));
        text.put("working-directory", folder);
        text.number("uid", uid);
        text.number("gid", gid);
        groups.iter().for_each(|group| text.number("group", group));
        text.number("umask", umask);
        stop_signal.iter().for_each(|signal| text.number("stop-signal", signal));
        text.0
    }

    /// What `bytes` say.
    ///
    /// # Errors
    /// They are no job.
    pub fn decode(bytes: &[u8]) -> Result<Self, JobError> {
        let mut job = Self::default();
        text::read(bytes, |key, value| job.take(key, value)).map_err(JobError)?;
        if job.program.words.is_empty() {
            return Err(JobError("it names no program".into()));
        }
        Ok(job)
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), ()> {
        let text = std::str::from_utf8(value);
        let os = || OsString::from_vec(value.to_vec());
        let program = &mut self.program;
        match key {
            "streams" => self.streams = Streams::named(text.map_err(drop)?).ok_or(())?,
            "errors" => self.errors = Errors::named(text.map_err(drop)?).ok_or(())?,
            "rows" => self.window.0 = number(value)?,
            "columns" => self.window.1 = number(value)?,
            "host-name" => self.host_name = os(),
            "net" => self.net = net(text.map_err(drop)?).ok_or(())?,
            "root" => self.root = Some(Root::Folder(text.map_err(drop)?.into())),
            "root-disk" => self.root = Some(Root::Disk(text.map_err(drop)?.into())),
            "root-system" => self.root = Some(Root::System(text.map_err(drop)?.into())),
            "root-bare" => self.root = Some(Root::Bare(text.map_err(drop)?.into())),
            "folder-ro" | "folder-rw" => self.folders.push(Folder {
                tag: text.map_err(drop)?.into(),
                read_only: key == "folder-ro",
                place: PathBuf::new(),
            }),
            "place" => self.folders.last_mut().ok_or(())?.place = os().into(),
            "word" => program.words.push(os()),
            "variable" => program.environment.push(os()),
            "working-directory" => program.folder = os().into(),
            "uid" => program.uid = number(value)?,
            "gid" => program.gid = number(value)?,
            "group" => program.groups.push(number(value)?),
            "umask" => program.umask = number(value)?,
            "stop-signal" => self.stop_signal = Some(number(value)?),
            _ => return Err(()),
        }
        Ok(())
    }
}

fn net(text: &str) -> Option<Net> {
    let words: Vec<_> = text.split(' ').collect();
    Some(match words[..] {
        ["none"] => Net::None,
        ["asked"] => Net::Asked,
        [address, prefix, gateway, resolver] => Net::Known {
            address: address.parse().ok()?,
            prefix: prefix.parse().ok()?,
            gateway: gateway.parse().ok()?,
            resolver: resolver.parse().ok()?,
        },
        _ => return None,
    })
}

impl Streams {
    const ALL: [Self; 3] = [Self::Shell, Self::Terminal, Self::Pipes];

    fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Terminal => "terminal",
            Self::Pipes => "pipes",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|streams| streams.name() == name)
    }
}

impl Errors {
    const ALL: [Self; 2] = [Self::WithOutput, Self::Apart];

    fn name(self) -> &'static str {
        match self {
            Self::WithOutput => "with-output",
            Self::Apart => "apart",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|errors| errors.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Job {
            streams: Streams::Pipes,
            errors: Errors::Apart,
            window: (24, 80),
            host_name: "here".into(),
            net: Net::Known {
                address: Ipv4Addr::new(10, 0, 2, 15),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 0, 2, 2),
                resolver: Ipv4Addr::new(10, 0, 2, 3),
            },
            root: Some(Root::Folder("root".into())),
            folders: vec![
                Folder { tag: "a".into(), read_only: true, place: "/mnt/a b".into() },
                Folder { tag: "b".into(), read_only: false, place: os(b"/\xff").into() },
            ],
            program: Program {
                words: vec!["sh".into(), "".into(), os(b"new\nline \xff it's $HOME")],
                environment: vec!["A=b=c".into(), os(b"E=\x01\xfe"), "EMPTY=".into()],
                folder: "/root".into(),
                uid: 1000,
                gid: 100,
                groups: vec![5, u32::MAX],
                umask: 0o27,
            },
            stop_signal: Some(15),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let program = Program { words: vec!["x".into()], ..Program::default() };
        let plain = Job { program, ..Job::default() };
        let asked = Job { net: Net::Asked, streams: Streams::Terminal, ..plain.clone() };
        let on_disk = Job { root: Some(Root::Disk("/dev/vda".into())), ..plain.clone() };
        let system = Job { root: Some(Root::System("/dev/vda".into())), ..plain.clone() };
        let bare = Job { root: Some(Root::Bare("/dev/vda".into())), ..plain.clone() };
        for job in [job(), plain, asked, on_disk, system, bare] {
            assert_eq!(Job::decode(&job.encode()), Ok(job));
        }
    }

    #[test]
    fn a_megabyte_of_environment_passes() {
        let mut job = job();
        job.program.environment =
            (0..16).map(|n| format!("V{n}={}", "x".repeat(65_530)).into()).collect();
        assert_eq!(Job::decode(&job.encode()), Ok(job));
    }

    #[test]
    fn what_is_no_job_is_refused() {
        for (bytes, named) in [
            (&b""[..], "no program"),
            (b"word\0a\0rows\0many\0", "rows"),
            (b"word\0a\0colour\0red\0", "colour"),
            (b"word\0a\0place\0/x\0", "place"),
            (b"word\0a\0net\x0010.0.0.1 24\0", "net"),
        ] {
            let refusal = Job::decode(bytes).expect_err("refused").to_string();
            assert!(refusal.contains(named), "{refusal}");
        }
    }
}
