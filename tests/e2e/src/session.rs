//! A conversation with a running gemello.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What the program has written so far, with the moment of each piece's arrival.
#[derive(Default)]
struct Transcript {
    bytes: Vec<u8>,
    ended: bool,
}

/// A running gemello whose output is collected.
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    shared: Arc<(Mutex<Transcript>, Condvar)>,
    seen: usize,
}

impl Session {
    /// Starts `command` with pipes for input and output.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("gemello starts");
        let input = child.stdin.take();
        let output = child.stdout.take().expect("piped");
        Self::over(child, input, output)
    }

    /// A conversation with `child`, whose output comes from `output`.
    pub fn over(
        child: Child,
        input: Option<ChildStdin>,
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
        Self { child, input, shared, seen: 0 }
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

    /// Waits until `text` appears after what was seen before, and gives what came up to its end, and when it was there.
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
