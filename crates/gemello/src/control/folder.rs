//! The folder of the user's control sockets: `$XDG_RUNTIME_DIR/gemello`, else `/tmp/gemello-UID`.
//!
//! It is the user's and nobody else's, or it is not used: who could write there could pose as a
//! machine, or take a name.

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FileType, Mode, Stat, lstat, mkdir};
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The end of a socket's name.
const SOCKET: &str = "sock";
/// The end of the name of what a detached machine has left.
const LOG: &str = "log";
/// The end of the name of what ssh knows of a machine.
const HOSTS: &str = "hosts";

/// The folder of a user's control sockets.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// This user's, made if it is not there.
    ///
    /// # Errors
    /// There is none that is this user's alone.
    pub(super) fn open() -> Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(runtime) = runtime.filter(|path| path.is_absolute())
            && check(&runtime).is_ok()
            && let Ok(folder) = Self::at(runtime.join("gemello"))
        {
            return Ok(folder);
        }
        let user = rustix::process::geteuid().as_raw();
        Self::at(format!("/tmp/gemello-{user}").into())
    }

    fn at(path: PathBuf) -> Result<Self> {
        match mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                let error = std::io::Error::from(error);
                return Err(error).context(format!("cannot make the folder {}", path.display()));
            }
        }
        check(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn into_path(self) -> PathBuf {
        self.0
    }

    /// The socket of the machine `name`.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.{SOCKET}"))
    }

    /// Where the socket is that a machine is just given, under the lock. No machine is called so.
    pub(super) fn new_socket(&self) -> PathBuf {
        self.0.join("new")
    }

    /// What the machine `name` has left, if it was detached.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.{LOG}"))
    }

    /// What ssh knows of the machine `name`.
    pub(super) fn hosts(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.{HOSTS}"))
    }

    /// The name and the socket of each machine, in order.
    pub(super) fn sockets(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let named = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(SOCKET)?.strip_suffix('.')?;
            Some((name.to_owned(), path.clone()))
        };
        let mut found: Vec<_> = paths.filter_map(named).collect();
        found.sort();
        found
    }

    /// Held while a socket is made or removed, by one process of the user's at a time.
    ///
    /// # Errors
    /// The host refuses.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.0.join("lock");
        let attempt = || format!("cannot lock {}", path.display());
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(attempt)?;
        file.lock().with_context(attempt)?;
        Ok(file)
    }
}

/// That the folder at `path` is this user's alone.
fn check(path: &Path) -> Result<()> {
    let shown = path.display();
    let found = lstat(path).map_err(std::io::Error::from);
    let found = found.with_context(|| format!("cannot look at {shown}"))?;
    if let Some(wrong) = wrong_with(&found, rustix::process::geteuid().as_raw()) {
        bail!("{shown} {wrong}; remove it, or set XDG_RUNTIME_DIR to a folder of yours alone");
    }
    Ok(())
}

/// Why `found` is no folder that `user` alone has, if it is none.
fn wrong_with(found: &Stat, user: u32) -> Option<String> {
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Some("is no folder".into());
    }
    if found.st_uid != user {
        return Some(format!("belongs to user {}", found.st_uid));
    }
    let mode = found.st_mode & 0o7777;
    (mode & 0o077 != 0).then(|| format!("is open to other users (mode {mode:04o})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn only_a_folder_of_the_users_own_is_used() {
        let base = std::env::temp_dir().join(format!("gemello-folder-{}", std::process::id()));
        fs::create_dir(&base).expect("a folder");
        let place = base.join("gemello");
        Folder::at(place.clone()).expect("it is made");
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o7777, 0o700);
        Folder::at(place.clone()).expect("it is there");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).expect("mine");
        let refused = Folder::at(place.clone()).expect_err("open").to_string();
        assert!(refused.contains("mode 0750") && refused.contains("remove it"), "{refused}");
        symlink(&base, base.join("link")).expect("a link");
        assert!(
            Folder::at(base.join("link")).expect_err("a link").to_string().contains("no folder")
        );
        let mut other = lstat(&base).expect("there");
        other.st_mode = 0o040_700;
        let user = other.st_uid;
        assert_eq!(wrong_with(&other, user), None);
        assert!(wrong_with(&other, user + 1).expect("another's").contains("belongs to user"));
        fs::remove_dir_all(&base).expect("it is there");
    }

    #[test]
    fn sockets_are_found_by_name() {
        let place = std::env::temp_dir().join(format!("gemello-sockets-{}", std::process::id()));
        let folder = Folder::at(place.clone()).expect("a folder");
        drop(folder.lock().expect("a lock"));
        for name in ["web-1", "a.b"] {
            fs::write(folder.socket(name), b"").expect("a file");
        }
        fs::write(place.join("sock"), b"").expect("a file");
        let names: Vec<_> = folder.sockets().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.b", "web-1"]);
        fs::remove_dir_all(&place).expect("it is there");
    }
}
