//! The user's terminal: raw while the guest has it, given back whatever ends the run.

use e2e::{gemello, idle, pty, scratch};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, OutputModes, Termios, tcgetattr};
use std::fs::File;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A terminal with gemello on it, its controlling one.
struct OnTerminal {
    master: OwnedFd,
    slave: File,
    before: Termios,
    child: Child,
}

impl OnTerminal {
    fn start(name: &str) -> Self {
        let (master, path) = pty();
        let open = || e2e::open(&path);
        let slave = open();
        let before = tcgetattr(&slave).expect("attributes");
        let kernel = scratch(name, &idle());
        // setsid(1) gives it the terminal, and becomes gemello.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(gemello())
            .arg("run")
            .arg(kernel)
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("setsid starts");
        let this = Self { master, slave, before, child };
        this.wait_until("raw", |now| !now.local_modes.contains(LocalModes::ICANON));
        let raw = tcgetattr(&this.slave).expect("attributes");
        assert!(!raw.local_modes.contains(LocalModes::ECHO | LocalModes::ISIG));
        assert!(!raw.output_modes.contains(OutputModes::OPOST));
        this
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Termios) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(&tcgetattr(&self.slave).expect("attributes")) {
            assert!(Instant::now() < deadline, "the terminal is never {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn types(&self, keys: &[u8]) {
        rustix::io::write(&self.master, keys).expect("typed");
    }

    /// Waits for the end, and checks that the terminal is as it was.
    fn ends_with(mut self, expected: i32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(expected));
        let after = tcgetattr(&self.slave).expect("attributes");
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_a_x_quits() {
    let terminal = OnTerminal::start("quit.elf");
    terminal.types(b"\x01x");
    terminal.ends_with(130);
}

#[test]
fn ctrl_a_h_explains() {
    let terminal = OnTerminal::start("help.elf");
    terminal.types(b"\x01h");
    let mut shown = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !String::from_utf8_lossy(&shown).contains("Ctrl-A x") {
        assert!(Instant::now() < deadline);
        let mut buffer = [0; 512];
        let count = rustix::io::read(&terminal.master, &mut buffer).expect("output");
        shown.extend_from_slice(&buffer[..count]);
    }
    terminal.types(b"\x01x");
    terminal.ends_with(130);
}

#[test]
fn ctrl_c_is_the_guests() {
    let terminal = OnTerminal::start("ctrl-c.elf");
    terminal.types(b"\x03");
    std::thread::sleep(Duration::from_millis(300));
    terminal.types(b"\x01x");
    terminal.ends_with(130);
}

#[test]
fn signals_restore_it() {
    for (signal, expected) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let terminal = OnTerminal::start("signalled.elf");
        kill_process(Pid::from_child(&terminal.child), signal).expect("it runs");
        terminal.ends_with(expected);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let mut terminal = OnTerminal::start("hangup.elf");
    let (replacement, _) = rustix::pipe::pipe().expect("a pipe");
    drop(std::mem::replace(&mut terminal.master, replacement));
    let deadline = Instant::now() + Duration::from_secs(10);
    while terminal.child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "still running without its terminal");
        std::thread::sleep(Duration::from_millis(10));
    }
}
