//! Machines that run, and a runtime folder of their own.

use crate::{Session, code, command, scratch, text};
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// For anything that a busy host may take its time for.
pub const LONG: Duration = Duration::from_secs(120);

/// A runtime folder of a test's own, and what runs with it.
pub struct House {
    /// The folder.
    pub runtime: PathBuf,
    /// What was started last, last.
    pub children: Vec<Child>,
}

impl House {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let runtime = scratch(name, b"").with_extension("runtime");
        fs::create_dir_all(&runtime).expect("a folder");
        fs::set_permissions(&runtime, Permissions::from_mode(0o700)).expect("mine");
        Self { runtime, children: Vec::new() }
    }

    /// A machine's file in it.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.runtime.join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("text").to_owned()
    }

    /// gemello with these arguments, and this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("gemello starts")
    }

    /// What a command says that has to succeed.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs machines in the background; what they say on standard error goes to a file.
    pub fn start(&mut self, arguments: &[&str]) -> PathBuf {
        let said = self.runtime.join(format!("said-{}", self.children.len()));
        let mut command = self.command(arguments);
        let file = File::create(&said).expect("a file");
        command.stdout(file.try_clone().expect("a file")).stderr(file);
        self.children.push(command.spawn().expect("gemello starts"));
        said
    }

    /// Waits for the end of what was started last; its exit code.
    pub fn end(&mut self) -> i32 {
        let mut child = self.children.pop().expect("it was started");
        let status = until("its end", || child.try_wait().expect("a child"));
        status.code().expect("no signal")
    }

    /// The control socket of the machine `name`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.runtime.join("gemello").join(format!("{name}.sock"))
    }

    /// The console of `name`, once it is there.
    pub fn console(&self, name: &str) -> Session {
        until("a machine", || self.socket(name).exists().then_some(()));
        Session::start(self.command(&["console", name]))
    }

    /// What `gemello ps` lists.
    pub fn names(&self) -> Vec<String> {
        let told = self.told(&["ps"]);
        let name = |line: &str| line.split_whitespace().next().expect("a name").to_owned();
        told.lines().skip(1).map(name).collect()
    }

    /// A request as anyone may write it, and what is answered.
    pub fn ask(&self, name: &str, words: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket(name)).expect("it listens");
        let _ = stream.write_all(words);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        text(&told)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks until there is what is looked for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
