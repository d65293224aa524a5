//! What the agent is told of a guest that gemello makes itself: from settings, and from what this
//! process is run as.

use crate::images::{Contents, Note};
use crate::settings::module::Word;
use crate::settings::share::ShareSettings;
use crate::settings::{Settings, rootfs};
use crate::{shell, terminal};
use agent_job::{Errors, Folder, Job, Net, Program, Root, Streams};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Gid, getegid, geteuid, getgroups};
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The disk that is the root: the first.
const DISK: &str = "/dev/vda";

/// A shell in Debian's small system.
const SHELL: [&str; 2] = ["/bin/sh", "-i"];
/// A shell in a whole one. No session is made for it by `login`, which would start the user's own
/// services first.
const LOGIN: [&str; 3] =
    ["/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l || exec /bin/sh -l"];

/// Where programs are, unless somebody says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The environment in Debian's small system, TERM aside.
const ENVIRONMENT: [&str; 5] =
    [PATH, "HOME=/root", "USER=root", "LOGNAME=root", "ENV=/etc/profile"];

/// The job of a machine of `settings`, whose root is perhaps an `image`; its command has `streams`,
/// its error where `errors` say.
///
/// # Errors
/// The working directory is gone, `rw` names no folder, or the image no command.
pub(crate) fn job(
    settings: &Settings,
    image: Option<&Note>,
    streams: Streams,
    errors: Errors,
) -> Result<Job> {
    let mounted = |share: &ShareSettings| Folder {
        tag: share.tag(),
        read_only: share.read_only,
        place: Path::new("/mnt").join(share.tag()),
    };
    let root = settings.boot.rootfs.as_deref();
    let mut folders: Vec<_> = settings.share.iter().map(mounted).collect();
    for (n, path) in settings.boot.rw.iter().enumerate() {
        folders.push(Folder { tag: rootfs::tag(n), read_only: false, place: place(root, path)? });
    }
    let words = settings.boot.command.iter().map(|Word(word)| word.clone()).collect();
    Ok(Job {
        streams,
        errors,
        window: terminal::window(),
        host_name: match root {
            Some(_) => rustix::system::uname().nodename().to_string_lossy().into_owned().into(),
            None if settings.boot.is_system() => settings.name(None).to_string().into(),
            None => "gemello".into(),
        },
        net: settings.net().map_or(Net::None, |net| net.addresses()),
        root: match (root, image) {
            (Some(_), _) => Some(Root::Folder(rootfs::ROOT.into())),
            (None, _) if settings.boot.starts_init() => Some(Root::System(DISK.into())),
            (None, _) if settings.boot.is_system() => Some(Root::Bare(DISK.into())),
            (None, Some(_)) => Some(Root::Disk(DISK.into())),
            (None, None) => None,
        },
        folders,
        stop_signal: image.filter(|_| !settings.boot.starts_init()).and_then(asking),
        program: match (root, image) {
            (Some(root), _) => callers(words, root)?,
            (None, _) if settings.boot.is_system() => roots(words, &LOGIN),
            (None, Some(image)) => images(words, image)?,
            (None, None) => roots(words, &SHELL),
        },
    })
}

/// Where `path` is in the guest: where it is in the root, or where it is on the host.
fn place(root: Option<&Path>, path: &Path) -> Result<PathBuf> {
    let whole = || {
        let shown = shell::shown(path.as_os_str());
        path.canonicalize().with_context(|| format!("cannot find {shown}, which `rw` names"))
    };
    root.and_then(|root| rootfs::inside(root, path)).map_or_else(whole, Ok)
}

/// In Debian's small system, or a whole one, as its root: `words`, or this `shell`.
fn roots(words: Vec<OsString>, shell: &[&str]) -> Program {
    Program {
        words: if words.is_empty() { shell.iter().map(OsString::from).collect() } else { words },
        environment: ENVIRONMENT.into_iter().map(OsString::from).chain([term()]).collect(),
        folder: "/root".into(),
        umask: 0o22,
        ..Program::default()
    }
}

/// The user's terminal.
fn term() -> OsString {
    shell::variable("TERM".as_ref(), &env::var_os("TERM").unwrap_or_else(|| "dumb".into()))
}

/// As the image says. `words` are there in place of its own, after its entrypoint.
fn images(words: Vec<OsString>, image: &Note) -> Result<Program> {
    let Note { name, digest: _, contents } = image;
    let Contents::Image { config, user } = contents else { return Ok(roots(words, &SHELL)) };
    let own = config.command.iter().map(OsString::from);
    let words = if words.is_empty() { own.collect() } else { words };
    let words: Vec<_> = config.entrypoint.iter().map(OsString::from).chain(words).collect();
    if words.is_empty() {
        bail!("the image {name} names no command; give one after --");
    }
    let mut environment: Vec<_> = config.environment.iter().map(OsString::from).collect();
    for other in [PATH.into(), format!("HOME={}", user.home).into(), term()] {
        let name = |variable: &OsString| {
            variable.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default().to_vec()
        };
        if environment.iter().all(|said| name(said) != name(&other)) {
            environment.push(other);
        }
    }
    Ok(Program {
        words,
        environment,
        folder: Path::new("/").join(&config.folder),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        umask: 0o22,
    })
}

/// The signal that asks the command of a guest without an init to end.
fn asking(image: &Note) -> Option<u8> {
    match &image.contents {
        Contents::Image { config, .. } => Some(stop_signal(&config.stop_signal)),
        Contents::System { .. } => Some(stop_signal("")),
        Contents::Unconfigured { .. } => None,
    }
}

/// The signal that an image calls so: `SIGTERM`, `TERM` or its number. What is none of those that
/// have a name powers the machine off.
fn stop_signal(said: &str) -> u8 {
    const NAMES: [(&str, u8); 9] = [
        ("", 15),
        ("TERM", 15),
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("WINCH", 28),
    ];
    let name = said.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let named = NAMES.into_iter().find_map(|(known, number)| (known == name).then_some(number));
    named.or_else(|| name.parse().ok()).unwrap_or(0)
}

/// As this process is: its user, its environment, where it is below `root`.
fn callers(words: Vec<OsString>, root: &Path) -> Result<Program> {
    let shell = || env::var_os("SHELL").filter(|shell| Path::new(shell).is_absolute());
    let variable = |(name, value): (OsString, OsString)| shell::variable(&name, &value);
    let here = env::current_dir().context("cannot tell the working directory")?;
    let groups = getgroups().context("cannot tell this user's groups")?;
    Ok(Program {
        words: match words.is_empty() {
            true => vec![shell().unwrap_or_else(|| "/bin/sh".into())],
            false => words,
        },
        environment: env::vars_os().map(variable).collect(),
        folder: rootfs::inside(root, &here).unwrap_or_else(|| "/".into()),
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        umask: umask(),
    })
}

/// This process's umask; nothing is changed.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o22)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::BootSettings;
    use oci::{Config, Digest, User};

    fn made(boot: BootSettings) -> Job {
        let settings = Settings { boot, ..Settings::default() };
        job(&settings, None, Streams::Pipes, Errors::Apart).expect("a job")
    }

    #[test]
    fn debians_command_is_roots_and_ours_is_ours() {
        let command = vec![Word("true".into())];
        let debian = made(BootSettings { command: command.clone(), ..BootSettings::default() });
        assert_eq!((debian.program.uid, &*debian.program.folder), (0, Path::new("/root")));
        assert!(debian.root.is_none() && debian.program.environment.len() == 6);
        let rootfs = BootSettings {
            rootfs: Some("/".into()),
            rw: vec![env::temp_dir()],
            command,
            ..BootSettings::default()
        };
        let Job { root, folders, program, .. } = made(rootfs);
        assert_eq!(root, Some(Root::Folder(rootfs::ROOT.into())));
        assert_eq!(folders.len(), 1);
        assert_eq!(folders[0].place, env::temp_dir().canonicalize().expect("there"));
        assert_eq!((program.uid, program.gid), (geteuid().as_raw(), getegid().as_raw()));
        assert_eq!(program.folder, env::current_dir().expect("there").canonicalize().expect("it"));
        assert_eq!(program.environment.len(), env::vars_os().count());
    }

    #[test]
    fn an_images_stop_signal_has_a_number() {
        for (said, number) in
            [("", 15), ("SIGQUIT", 3), ("winch", 28), ("12", 12), ("SIGRTMIN+3", 0), ("999", 0)]
        {
            assert_eq!(stop_signal(said), number, "{said}");
        }
    }

    fn note(entrypoint: &[&str], command: &[&str]) -> Note {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let config = Config {
            entrypoint: words(entrypoint),
            command: words(command),
            environment: words(&["PATH=/only", "A=b=c"]),
            folder: "/srv".into(),
            ..Config::default()
        };
        let user = User { uid: 33, gid: 34, groups: vec![50], home: "/home".into() };
        let contents = Contents::Image { config, user };
        Note { name: "oci:x".into(), digest: Digest::of(b"x"), contents }
    }

    #[test]
    fn an_images_command_is_as_the_image_says() {
        let words = |given: &[&str], note: &Note| {
            let program = images(given.iter().map(OsString::from).collect(), note);
            program.map(|program| program.words).map_err(|error| error.to_string())
        };
        assert_eq!(
            words(&[], &note(&["e"], &["a", "b"])),
            Ok(vec!["e".into(), "a".into(), "b".into()])
        );
        assert_eq!(words(&["c"], &note(&["e"], &["a"])), Ok(vec!["e".into(), "c".into()]));
        assert_eq!(words(&["c"], &note(&[], &["a"])), Ok(vec!["c".into()]));
        assert!(words(&[], &note(&[], &[])).is_err_and(|why| why.contains("after --")));
        let program = images(vec![], &note(&[], &["a"])).expect("a command");
        let said = |text: &str| program.environment.contains(&text.into());
        assert!(said("PATH=/only") && said("A=b=c") && said("HOME=/home"));
        assert_eq!(program.environment.len(), 4);
        assert_eq!((program.uid, program.gid, &program.groups[..]), (33, 34, &[50][..]));
        assert_eq!(program.folder, Path::new("/srv"));
    }
}
