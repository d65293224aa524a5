//! The terminal after a guest: its modes are the shell's again, and no answer to a guest's query is
//! left in its input.

use e2e::{HALT, RESET, gemello, prints, pty, scratch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// The keys and modes of a full-screen program, without a query.
const FULL_SCREEN: &[u8] =
    b"\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[?2004h\x1b[?1002;1006h\x1b[2;20r\x1b[1;7m\x1b(0";
/// What sets them back, in some order.
const SET_BACK: [&str; 10] = [
    "\x1b[?1049l",
    "\x1b[?1l",
    "\x1b>",
    "\x1b[?25h",
    "\x1b[?2004l",
    "\x1b[?1002l",
    "\x1b[?1006l",
    "\x1b7\x1b[r\x1b8",
    "\x1b[m",
    "\x1b(B",
];

/// Whether the far side answers queries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As xterm does, each after this time.
    Answering(Duration),
    /// As a line printer.
    Dumb,
}

/// A terminal with gemello on it.
struct Terminal {
    master: OwnedFd,
    slave: File,
    before: Termios,
    kind: Kind,
    child: Child,
    /// What it has been sent.
    shown: Vec<u8>,
    /// Up to where it has looked for queries.
    answered: usize,
}

impl Terminal {
    fn start(kind: Kind, arguments: &[&str], input: Option<File>) -> Self {
        let (master, path) = pty();
        let open = || e2e::open(&path);
        let slave = open();
        let before = tcgetattr(&slave).expect("attributes");
        // The terminal becomes gemello's as setsid's standard input; then gemello gets its own.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]);
        if let Some(input) = input {
            command.args(["sh", "-c", "exec \"$@\" <&9", "sh"]);
            command.arg(gemello()).args(arguments);
            let mut shell = Command::new("bash");
            // Passes `input`, which is bash's standard input, on as 9.
            shell.args(["-c", "exec 9<&0 0<>\"$1\"; shift; exec \"$@\"", "bash", &path]);
            shell.arg("setsid").args(command.get_args()).stdin(Stdio::from(input));
            command = shell;
        } else {
            command.arg(gemello()).args(arguments).stdin(open());
        }
        let child = command.stdout(open()).stderr(open()).spawn().expect("setsid starts");
        Self { master, slave, before, kind, child, shown: Vec::new(), answered: 0 }
    }

    /// Takes what comes for a moment, and answers it.
    fn serve(&mut self) {
        let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&moment)).expect("poll") == 0 {
            return;
        }
        let mut buffer = [0; 4096];
        let count = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
        self.shown.extend_from_slice(&buffer[..count]);
        while let Some((answer, end)) = next_query(&self.shown, self.answered) {
            self.answered = end;
            if let Kind::Answering(delay) = self.kind {
                std::thread::sleep(delay);
                rustix::io::write(&self.master, answer).expect("typed");
            }
        }
    }

    fn wait_for(&mut self, text: &[u8]) {
        let deadline = Instant::now() + SOON;
        while !self.shown.windows(text.len()).any(|window| window == text) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", self.text());
            self.serve();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// The exit code, how long that took, and what the shell would find typed.
    fn end(&mut self) -> (i32, Duration, String) {
        let began = Instant::now();
        let status = loop {
            self.serve();
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(began.elapsed() < SOON, "still running: {:?}", self.text());
        };
        let took = began.elapsed();
        self.serve();
        let after = tcgetattr(&self.slave).expect("attributes");
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        (status.code().expect("a code"), took, self.left())
    }

    /// What is in the terminal's input.
    fn left(&self) -> String {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.slave, OptionalActions::Now, &raw).expect("attributes");
        let mut fds = [PollFd::new(&self.slave, PollFlags::IN)];
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if poll(&mut fds, Some(&moment)).expect("poll") == 0 {
            return String::new();
        }
        let mut buffer = [0; 4096];
        let count = rustix::io::read(&self.slave, &mut buffer).expect("input");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// xterm's answer to the first query in `output` from `start` on, and where the query ends.
fn next_query(output: &[u8], start: usize) -> Option<(&'static [u8], usize)> {
    let queries: [(&[u8], &'static [u8]); 3] =
        [(b"\x1b[5n", b"\x1b[0n"), (b"\x1b[6n", b"\x1b[12;34R"), (b"\x1b[c", b"\x1b[?62;22c")];
    let found = queries.iter().filter_map(|(query, answer)| {
        let at = output[start..].windows(query.len()).position(|window| window == *query)?;
        Some((*answer, start + at + query.len()))
    });
    found.min_by_key(|(_, end)| *end)
}

fn guest(name: &str, text: &[u8], code: &[u8]) -> String {
    scratch(name, &prints(text, code)).to_str().expect("text").to_owned()
}

#[test]
fn each_way_out_sets_the_modes_back() {
    let text = [FULL_SCREEN, b"shown"].concat();
    let (ends, stays) = (guest("modes.elf", &text, RESET), guest("stays.elf", &text, HALT));
    let ways: [(&str, &str, i32); 5] = [
        ("by itself", &ends, 0),
        ("timeout", &stays, 124),
        ("keys", &stays, 130),
        ("signal", &stays, 143),
        ("two signals", &stays, 143),
    ];
    for (way, guest, expected) in ways {
        let limit = if way == "timeout" { "1s" } else { "20s" };
        let arguments = ["run", guest, "--timeout", limit];
        let mut terminal = Terminal::start(Kind::Dumb, &arguments, None);
        terminal.wait_for(b"shown");
        let signal =
            |terminal: &Terminal| kill_process(Pid::from_child(&terminal.child), Signal::TERM);
        match way {
            "keys" => drop(rustix::io::write(&terminal.master, b"\x01x").expect("typed")),
            "signal" => signal(&terminal).expect("it runs"),
            "two signals" => {
                signal(&terminal).expect("it runs");
                let _ = signal(&terminal);
            }
            _ => {}
        }
        let (code, _, _) = terminal.end();
        let shown = terminal.text();
        assert_eq!(code, expected, "{way}: {shown:?}");
        let after = shown.split_once("shown").expect("it was").1;
        for undo in SET_BACK {
            assert!(after.contains(undo), "{way}: no {undo:?} in {after:?}");
        }
        assert!(!after.contains("\x1b[2J") && !after.contains("\x1bc"), "{way}: {after:?}");
    }
}

#[test]
fn a_screen_that_was_not_touched_is_left_alone() {
    let guest = guest("plain.elf", b"\x1b[1mbold\x1b[0m plain\r\n", RESET);
    let mut terminal = Terminal::start(Kind::Dumb, &["run", &guest, "--timeout", "20"], None);
    let (code, took, _) = terminal.end();
    assert_eq!(code, 0, "{:?}", terminal.text());
    assert_eq!(terminal.text(), "\x1b[1mbold\x1b[0m plain\r\n");
    assert!(took < SOON);
}

#[test]
fn late_answers_never_reach_the_shell() {
    // Its own fence query too, which is answered first.
    let queries = b"\x1b[5n\x1b[6n\x1b[c\x1b[5n";
    let guest = guest("asks.elf", queries, RESET);
    let arguments = ["run", &guest, "--timeout", "20"];
    for delay in [0, 60] {
        let kind = Kind::Answering(Duration::from_millis(delay));
        let mut terminal = Terminal::start(kind, &arguments, None);
        let (code, _, left) = terminal.end();
        assert_eq!((code, left), (0, String::new()), "{:?}", terminal.text());
        // Where input comes from elsewhere, the terminal's is nobody's.
        let null = File::open("/dev/null").expect("a file");
        let mut terminal = Terminal::start(kind, &arguments, Some(null));
        let (code, _, left) = terminal.end();
        assert_eq!((code, left), (0, String::new()), "{:?}", terminal.text());
    }
}

#[test]
fn a_terminal_that_never_answers_is_waited_for_briefly() {
    let guest = guest("asks-dumb.elf", b"\x1b[6n", RESET);
    let mut terminal = Terminal::start(Kind::Dumb, &["run", &guest, "--timeout", "20"], None);
    terminal.wait_for(b"\x1b[6n");
    let (code, took, _) = terminal.end();
    assert_eq!(code, 0, "{:?}", terminal.text());
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn output_that_is_no_terminal_gets_nothing_of_this() {
    let guest = guest("modes-piped.elf", FULL_SCREEN, RESET);
    let output = e2e::run(&["run", &guest, "--timeout", "20"]);
    assert_eq!(output.stdout, FULL_SCREEN);
}
