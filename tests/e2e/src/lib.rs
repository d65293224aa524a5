//! Helpers of the end-to-end tests: the program built in release profile, sessions with it, tiny
//! guests.
//!
//! The engine is no pleasure unoptimized, so the tests always run the release build, whatever
//! profile they have themselves. Boots take turns, two at a time; tests that measure have the host
//! alone.
#![forbid(unsafe_code)]

mod guests;
mod house;
mod initramfs;
mod session;
pub mod whole;

pub use guests::{HALT, RESET, SECOND_PRESS, idle, kernel, prints, writes_debug_exit, zero_idt};
pub use house::{House, LONG, until};
pub use initramfs::{Initramfs, packages};
pub use session::{Ends, Session, Terminal, open, pty};
pub use test_support::gemello;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex};

/// `gemello` with `arguments`, its standard input empty.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(gemello());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `gemello` with `arguments` to its end.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("gemello starts")
}

/// Its exit code; a signal is none.
pub fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

/// What it wrote, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The right to boot Debian: held for the length of a test.
pub struct Turn {
    boots: usize,
}

/// How many may boot at once, and who waits for a turn.
const BOOTS: usize = 2;
static FREE: Mutex<usize> = Mutex::new(BOOTS);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn take(boots: usize) -> Self {
        let free = sync::lock(&FREE);
        let free = FREED.wait_while(free, |free| *free < boots);
        *free.expect("no test panics here") -= boots;
        Self { boots }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *sync::lock(&FREE) += self.boots;
        FREED.notify_all();
    }
}

/// Debian in the cache, and a turn.
pub fn debian(flavour: &str) -> Turn {
    fetched(flavour, Turn::take(1))
}

/// As [`debian`], with nobody beside: for what is measured.
pub fn debian_alone(flavour: &str) -> Turn {
    fetched(flavour, Turn::take(BOOTS))
}

fn fetched(flavour: &str, turn: Turn) -> Turn {
    static FETCHED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut fetched = sync::lock(&FETCHED);
    if !fetched.iter().any(|f| f == flavour) {
        let output = run(&["fetch", "busybox", "--flavour", flavour]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        fetched.push(flavour.to_owned());
    }
    turn
}

/// What this test, whose thread is called after it, is called in its module: a socket's path is
/// short, and in some options a colon ends it.
pub fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default().to_owned()
}

/// A file of this test's own, whose thread is called after it.
pub fn scratch(name: &str, content: &[u8]) -> PathBuf {
    let process = std::env::temp_dir().join(format!("gemello-e2e-{}", std::process::id()));
    let directory = process.join(test_name());
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    let path = directory.join(name);
    std::fs::write(&path, content).expect("a scratch file");
    path
}

/// Debian in gemello's cache.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    base.map_or_else(home, PathBuf::from).join("gemello/debian")
}

/// A cache of this test's own, for `XDG_CACHE_HOME`; Debian in it is the one that all share.
pub fn own_cache() -> PathBuf {
    let own = scratch("beside", b"").with_file_name("cache");
    let _ = std::fs::remove_dir_all(&own);
    std::fs::create_dir_all(own.join("gemello")).expect("a folder");
    std::os::unix::fs::symlink(cache(), own.join("gemello/debian")).expect("a link");
    own
}

/// Unpacks Debian's `package` below `place`, fetched with the apt configuration that `gemello
/// fetch` has made.
pub fn unpack(package: &str, place: &Path) {
    std::fs::create_dir_all(place).expect("a scratch directory");
    let mut fetch = Command::new("apt-get");
    fetch.args(["download", package]).env("APT_CONFIG", cache().join("apt/apt.conf"));
    succeeds(fetch.current_dir(place));
    let entries = std::fs::read_dir(place).expect("a directory");
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let deb = paths.find(|path| path.extension().is_some_and(|e| e == "deb"));
    succeeds(Command::new("dpkg-deb").arg("-x").arg(deb.expect("a package")).arg(place));
}

/// The option of a disk whose first bytes are `guest/NAME.c` as a static program.
pub fn program_disk(name: &str) -> String {
    let program = scratch(name, b"");
    compile(name, &program);
    let mut bytes = std::fs::read(&program).expect("what was compiled");
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    std::fs::write(&program, bytes).expect("a disk");
    format!("{},ro,format=raw", program.to_str().expect("text"))
}

/// A disk in `format` that boots by itself: the newest of its two kernels says so.
pub fn system_disk(format: &str) -> PathBuf {
    let image = scratch("system.raw", b"");
    let root = image.with_file_name("root");
    let boot = root.join("boot");
    std::fs::create_dir_all(&boot).expect("a folder");
    for (version, said) in [("9", "the older kernel"), ("57", "the newest kernel")] {
        let kernel = boot.join(format!("vmlinuz-6.1.0-{version}-amd64"));
        std::fs::write(kernel, prints(said.as_bytes(), RESET)).expect("a kernel");
    }
    let mut make = Command::new("/usr/sbin/mke2fs");
    succeeds(make.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg("8M"));
    let disk = image.with_file_name(format!("system.{format}"));
    if format != "raw" {
        let mut convert = Command::new("qemu-img");
        succeeds(convert.args(["convert", "-O", format]).arg(&image).arg(&disk));
    }
    disk
}

/// Makes `guest/NAME.c` a static program at `place`.
pub fn compile(name: &str, place: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guest/{name}.c"));
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-static", "-pthread", "-Wall", "-Werror", "-o"]);
    succeeds(compile.arg(place).arg(source));
}

/// Runs a helper program that has to succeed.
pub fn succeeds(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}
