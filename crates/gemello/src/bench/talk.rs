//! A conversation with a running machine over its serial line, which is the program's standard
//! input and output.

use anyhow::{Context as _, Result, bail};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How much of what was said an error shows.
const TAIL: usize = 2000;

/// How long a machine may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It ends with its input, and tidies up.
    EndOfInput,
    /// A machine takes no notice of that.
    Kill,
}

/// A running program, ended when this value goes.
pub(super) struct Talk {
    name: &'static str,
    farewell: Farewell,
    child: Child,
    input: Option<ChildStdin>,
    chunks: Receiver<Vec<u8>>,
    said: Vec<u8>,
    seen: usize,
}

impl Talk {
    /// Starts `command`, in a process group of its own: Ctrl-C on the terminal is our business.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        name: &'static str,
        farewell: Farewell,
        mut command: Command,
    ) -> Result<Self> {
        let program = command.get_program().to_owned();
        let (mut reader, writer) = io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let child = command.spawn();
        drop(command); // and with it our ends of the pipe
        let mut child =
            child.with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
        let input = child.stdin.take();
        let (sender, chunks) = channel();
        let read = move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("listener".into()).spawn(read)?;
        Ok(Self { name, farewell, child, input, chunks, said: Vec::new(), seen: 0 })
    }

    /// Says `text`.
    ///
    /// # Errors
    /// The program has ended.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().expect("open until the end");
        let sent = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        sent.with_context(|| format!("{} has ended{}", self.name, self.tail()))
    }

    /// Waits for `mark` after what was seen before, and gives what follows it up to the end of the
    /// line `end`.
    ///
    /// # Errors
    /// It does not come within `limit`.
    pub(super) fn hear(&mut self, mark: &str, end: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(text) = self.find(mark, end) {
                return Ok(text);
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.said.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} has ended{}", self.name, self.tail())
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = limit.as_secs();
                    bail!("{} gave no answer for {seconds} s{}", self.name, self.tail())
                }
            }
        }
    }

    fn find(&mut self, mark: &str, end: &str) -> Option<String> {
        let from = position(&self.said, mark, self.seen)? + mark.len();
        let to = position(&self.said, end, from)?;
        self.seen = to + end.len();
        Some(String::from_utf8_lossy(self.said.get(from..to)?).into_owned())
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Errors
    /// It does not, or not well.
    pub(super) fn finish(mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Its output ends with it.
        loop {
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.said.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} does not end{}", self.name, self.tail())
                }
            }
        }
        let status = self.child.wait().context("cannot wait for a machine")?;
        if !status.success() {
            bail!("{} ended with {status}{}", self.name, self.tail());
        }
        Ok(())
    }

    /// The last it said, for a message.
    fn tail(&self) -> String {
        let from = self.said.len().saturating_sub(TAIL);
        let text = String::from_utf8_lossy(self.said.get(from..).unwrap_or_default()).into_owned();
        match text.trim() {
            "" => ", having said nothing".into(),
            text => format!("; the last it said:\n{text}"),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.input.take());
        if self.farewell == Farewell::EndOfInput {
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn position(bytes: &[u8], text: &str, from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(text.len()).position(|window| window == text.as_bytes()).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Talk {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Talk::start("sh", Farewell::Kill, command).expect("a shell")
    }

    #[test]
    fn answers_are_told_from_noise() {
        let mut talk = shell("read name; echo noise; printf '@be'; echo \"nch $name 1\"; cat >&2");
        talk.say("fib\n").expect("it reads");
        let answer = talk.hear("@bench ", "\n", PATIENCE).expect("an answer");
        assert_eq!(answer, "fib 1");
        talk.say("more\n").expect("it reads");
        assert_eq!(talk.hear("mo", "\n", PATIENCE).expect("standard error too"), "re");
    }

    #[test]
    fn an_end_and_silence_are_errors_that_show_the_last_words() {
        let mut talk = shell("echo broken");
        let error = talk.hear("@bench ", "\n", PATIENCE).expect_err("no answer");
        assert!(format!("{error:#}").contains("broken"), "{error:#}");
        let mut talk = shell("sleep 100");
        assert!(talk.hear("@bench ", "\n", Duration::from_millis(10)).is_err());
    }

    #[test]
    fn a_bad_end_is_an_error() {
        assert!(shell("exit 0").finish().is_ok());
        assert!(shell("exit 3").finish().is_err());
    }
}
