//! A conversation with a running gemello.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What the program has written so far, with the moment of each piece's arrival.
#[derive(Default)]
struct Transcript {
    bytes: Vec<u8>,
    ended: bool,
}

/// Where a program's output and error go that is on a terminal: `None` is the terminal.
#[derive(Default)]
pub struct Ends {
    /// Standard output.
    pub output: Option<File>,
    /// Standard error.
    pub error: Option<File>,
}

/// A new terminal: its master side, and the path of the other.
pub fn pty() -> (OwnedFd, String) {
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let path = ptsname(&master, Vec::new()).expect("a name").into_string().expect("text");
    (master, path)
}

/// Opens a terminal, or any file, to be read and written.
pub fn open(path: &str) -> File {
    File::options().read(true).write(true).open(path).expect("its other side")
}

/// A terminal's master side, and the path of the other.
pub struct Terminal(OwnedFd, String);

impl Terminal {
    fn new() -> Self {
        let (master, path) = pty();
        let this = Self(master, path);
        this.resize(24, 80);
        this
    }

    /// Gives the window this size.
    pub fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.0, size).expect("a terminal");
    }

    /// The side that a program has.
    pub fn other(&self) -> File {
        open(&self.1)
    }
}

/// A running gemello whose output is collected.
pub struct Session {
    child: Child,
    input: Option<Box<dyn Write + Send>>,
    shared: Arc<(Mutex<Transcript>, Condvar)>,
    seen: usize,
}

impl Session {
    /// Starts `command` with pipes for input and output.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("gemello starts");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        Self::over(child, input, output)
    }

    /// Starts `command` on a terminal of its own, for those of its ends that are `Ends`' terminals.
    pub fn on_terminal(command: &Command, ends: &Ends) -> (Self, Terminal) {
        let terminal = Terminal::new();
        let mut on_it = Command::new("setsid"); // gives it the terminal, and becomes the program
        on_it.args(["--ctty"]).arg(command.get_program()).args(command.get_args());
        let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        on_it.envs(set).stdin(terminal.other());
        let end = |file: &Option<File>| {
            file.as_ref().map_or_else(|| terminal.other(), |file| file.try_clone().expect("a file"))
        };
        on_it.stdout(end(&ends.output)).stderr(end(&ends.error));
        let child = on_it.spawn().expect("setsid starts");
        let master = || File::from(terminal.0.try_clone().expect("a descriptor"));
        (Self::over(child, master(), master()), terminal)
    }

    /// A conversation with `child`, whose output comes from `output`.
    pub fn over(
        child: Child,
        input: impl Write + Send + 'static,
        mut output: impl Read + Send + 'static,
    ) -> Self {
        let shared: Arc<(Mutex<Transcript>, Condvar)> = Arc::default();
        let mine = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // A pty's master fails with EIO when the other side is closed.
                let count = output.read(&mut buffer).unwrap_or(0);
                let mut transcript = mine.0.lock().expect("not poisoned");
                transcript.bytes.extend_from_slice(&buffer[..count]);
                transcript.ended |= count == 0;
                mine.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { child, input: Some(Box::new(input)), shared, seen: 0 }
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        let input = self.input.as_mut().expect("input is open");
        input.write_all(text.as_bytes()).expect("gemello reads");
        input.flush().expect("gemello reads");
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until `text` appears after what was seen before, and gives what came up to its end,
    /// and when it was there.
    pub fn expect(&mut self, text: &str, limit: Duration) -> (String, Instant) {
        let deadline = Instant::now() + limit;
        let (lock, changed) = &*self.shared;
        let mut transcript = lock.lock().expect("not poisoned");
        loop {
            let rest = &transcript.bytes[self.seen..];
            if let Some(at) = rest.windows(text.len()).position(|w| w == text.as_bytes()) {
                let end = at + text.len();
                let found = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.seen += end;
                return (found, Instant::now());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !transcript.ended && !left.is_zero(),
                "no {text:?}; the transcript:\n{}",
                String::from_utf8_lossy(&transcript.bytes)
            );
            transcript = changed.wait_timeout(transcript, left).expect("not poisoned").0;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end; gives the exit code and everything it wrote.
    pub fn finish(mut self, limit: Duration) -> (i32, String) {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let transcript = self.shared.0.lock().expect("not poisoned");
                panic!("still running:\n{}", String::from_utf8_lossy(&transcript.bytes));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let (lock, changed) = &*self.shared;
        let transcript = lock.lock().expect("not poisoned");
        let ended = changed.wait_timeout_while(transcript, Duration::from_secs(5), |t| !t.ended);
        let bytes = ended.expect("not poisoned").0.bytes.clone();
        (status.code().unwrap_or(-1), String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
