//! `gemello ssh NAME`: the host's own ssh, by `gemello nc NAME 22`, with a key of gemello's own.
//!
//! No port of the host's is taken. The key is made once, by ssh-keygen, in `ssh` of
//! `$XDG_DATA_HOME/gemello`, and the agent puts it among those that open the guest. The guest's own
//! key is known as long as the machine runs: the next of its name is another.

use super::answer::ask;
use super::arguments::Ssh;
use crate::{control, shell};
use agent_job::Request;
use anyhow::{Context as _, Result, bail};
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The port of an SSH server.
const PORT: &str = "22";

/// Becomes ssh.
///
/// # Errors
/// There is no such machine, no agent in it, or no ssh here.
pub(crate) fn ssh(Ssh { whom, words }: &Ssh) -> Result<u8> {
    let (user, name) = whom.split_once('@').unwrap_or(("root", whom));
    let mut channel = control::agent(name)?;
    let key = key()?;
    let public = key.with_extension("pub");
    let line = fs::read_to_string(&public);
    let line = line.with_context(|| format!("cannot read {}", public.display()))?;
    let authorize = Request::Authorize { user: user.into(), key: line.trim().into() };
    ask(&mut channel, authorize)?;
    drop(channel);
    let own = env::current_exe().context("cannot tell where this program is")?;
    let proxy = [own.into_os_string(), "nc".into(), name.into(), PORT.into()];
    let hosts = control::known_hosts(name)?;
    let option = |name: &str, value: &str| format!("{name}={}", value.replace('%', "%%"));
    let mut command = Command::new("ssh");
    command.arg("-i").arg(&key);
    for option in [
        option("ProxyCommand", &shell::command(proxy)),
        option("UserKnownHostsFile", &format!("\"{}\"", hosts.display())),
        option("HostKeyAlias", name),
        "IdentitiesOnly=yes".into(),
        "StrictHostKeyChecking=accept-new".into(),
        "CheckHostIP=no".into(),
        "LogLevel=ERROR".into(),
    ] {
        command.arg("-o").arg(option);
    }
    let error = command.arg(format!("{user}@{name}")).args(words).exec();
    Err(error).context("cannot run ssh; install it (Debian: openssh-client)")
}

/// The private key; made if it is not there.
fn key() -> Result<PathBuf> {
    let folder = data_folder()?.join("ssh");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let key = folder.join("id_ed25519");
    let lock = folder.join("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
    lock.lock().context("cannot lock the folder of ssh's keys")?;
    if key.with_extension("pub").exists() {
        return Ok(key);
    }
    let _ = fs::remove_file(&key); // of a run that was killed
    fs::set_permissions(&folder, Permissions::from_mode(0o700))
        .context("cannot protect the key")?;
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-C", "gemello", "-f"]).arg(&key);
    let made = make.stdin(Stdio::null()).status();
    let made = made.context("cannot run ssh-keygen; install it (Debian: openssh-client)")?;
    if !made.success() {
        bail!("ssh-keygen has made no key at {} ({made})", key.display());
    }
    Ok(key)
}

/// Where this user's data of gemello are.
fn data_folder() -> Result<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let variable = |name| env::var_os(name).and_then(absolute);
    let home = || variable("HOME").map(|home| home.join(".local/share"));
    let folder = variable("XDG_DATA_HOME").or_else(home);
    folder.map(|folder| folder.join(Path::new("gemello"))).context(
        "no place for a key: neither XDG_DATA_HOME nor HOME names a folder by its whole path; set \
         one of them",
    )
}
