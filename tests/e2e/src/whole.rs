//! Whole Debians: a base that is made once, and machines that run of it in the background.

use crate::{code, gemello, scratch, succeeds, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A cache with a base, and a place for the sockets of its machines.
pub struct Whole {
    /// The value of `XDG_CACHE_HOME`.
    pub cache: PathBuf,
    runtime: PathBuf,
    release: String,
}

/// A machine that runs, and is removed with what it has written when this is dropped.
pub struct Machine<'a> {
    of: &'a Whole,
    name: String,
}

impl Whole {
    /// Of the release that `GEMELLO_RELEASE` names, trixie without, in the cache that
    /// `GEMELLO_WHOLE_CACHE` names: what is fetched there is used again.
    pub fn new() -> Self {
        let release = std::env::var("GEMELLO_RELEASE").unwrap_or_else(|_| "trixie".into());
        Self::of(&release)
    }

    /// Of `release`, in the same cache.
    pub fn of(release: &str) -> Self {
        let kept = std::env::var_os("GEMELLO_WHOLE_CACHE").map(PathBuf::from);
        Self::at(kept.unwrap_or_else(|| std::env::temp_dir().join("gemello-whole")), release)
    }

    /// Of `release`, in this cache.
    pub fn at(cache: PathBuf, release: &str) -> Self {
        // A socket's path must be short.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let runtime = std::env::temp_dir().join(format!("gw-{}-{number}", std::process::id()));
        fs::create_dir_all(&runtime).expect("a folder");
        fs::create_dir_all(&cache).expect("a folder");
        fs::set_permissions(&runtime, Permissions::from_mode(0o700)).expect("mine");
        Self { cache, runtime, release: release.to_owned() }
    }

    /// gemello with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(gemello());
        command.args(words).env("XDG_CACHE_HOME", &self.cache).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        let began = Instant::now();
        let output = self.command(words).output().expect("gemello starts");
        let shown: String = words.join(" ").chars().take(100).collect();
        eprintln!("{:.1} s: {}", began.elapsed().as_secs_f64(), shown.replace('\n', " "));
        output
    }

    /// What a command that succeeds has said.
    pub fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Has the base made, where it is not there.
    pub fn fetch(&self) {
        self.said(&["fetch", "debian", "--release", &self.release]);
    }

    /// The base's root.
    pub fn root(&self) -> PathBuf {
        let mark = format!("\"{}\"", self.release);
        let folders = fs::read_dir(self.cache.join("gemello/images")).expect("there");
        let mut folders = folders.map(|entry| entry.expect("it").path());
        let is_it = |folder: &PathBuf| {
            fs::read_to_string(folder.join("image.json")).is_ok_and(|note| note.contains(&mark))
        };
        folders.find(is_it).expect("a root").join("root.ext4")
    }

    /// The words that run `script` in a machine, by a shell.
    pub fn runs<'a>(&'a self, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
        let words = ["run", "debian", "--release", &self.release];
        [&words, options, &["--", "sh", "-c", script]].concat()
    }

    /// Starts the machine `name`, as a whole system.
    pub fn start(&self, name: &str, options: &[&str]) -> Machine<'_> {
        let machine = Machine { of: self, name: name.to_owned() };
        machine.boots(options);
        machine
    }
}

impl Default for Whole {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine<'_> {
    /// Boots it, as it was left where it has run before.
    pub fn boots(&self, options: &[&str]) {
        let Self { of: Whole { release, .. }, name } = self;
        let words = ["run", "debian", "--release", release, "--detach", "--name", name];
        assert_eq!(self.of.said(&[&words, options].concat()), *name);
    }

    /// What a shell of root's in it says that runs `script`, and has to succeed.
    pub fn says(&self, script: &str) -> String {
        self.of.said(&["exec", &self.name, "--", "sh", "-c", script])
    }

    /// Waits until all has been started that starts by itself.
    pub fn is_up(&self) {
        assert_eq!(self.says("systemctl is-system-running --wait"), "running");
        assert_eq!(self.says("systemctl --failed --no-legend --plain"), "");
    }

    /// Presses the power button, waits for the end, and looks at the disk: nothing is left in its
    /// journal, and it is whole.
    pub fn goes_down(&self) {
        self.of.said(&["stop", "--timeout", "5m", &self.name]);
        let overlay = self.of.cache.join(format!("gemello/machines/{}.qcow2", self.name));
        let raw = scratch(&self.name, b"");
        let mut convert = Command::new("qemu-img");
        succeeds(convert.args(["convert", "-O", "raw"]).arg(overlay).arg(&raw));
        whole(&raw);
        fs::remove_file(raw).expect("it is there");
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let _ = self.of.run(&["stop", "--force", &self.name]);
        let _ = self.of.run(&["rm", &self.name]);
    }
}

/// That the file system at `path` is as after an unmount.
pub fn whole(path: &Path) {
    succeeds(Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(path));
    let mut features = Command::new("/usr/sbin/debugfs");
    let features = features.args(["-R", "features"]).arg(path).output().expect("debugfs starts");
    assert!(!text(&features.stdout).contains("needs_recovery"), "{}", path.display());
}

/// A file's SHA-256.
pub fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    text(&output.stdout)
}
