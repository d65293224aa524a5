//! The serial lines. The first is the user's terminal. On the second gemello is told how the
//! program is, among the kernel's messages, and says what the user's window is.

use crate::entropy;
use crate::role;
use crate::service::Service;
use crate::session::TTY_GROUP;
use agent_job::{Briefing, REPORT, SEED, Seed};
use anyhow::{Context as _, Result};
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, Termios, Winsize, tcdrain,
    tcgetattr, tcsetattr, tcsetwinsize,
};
use rustix::thread::ClockId;
use rustix::time::{Timespec, clock_settime};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// `open(2)`: the line does not become this process's terminal.
const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits() as i32;

/// The kernel's level of messages that go to the console.
const LEVEL: &str = "/proc/sys/kernel/printk";

fn open(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(NOCTTY);
    options.open(path).with_context(|| format!("cannot open {path}"))
}

/// Bits a second, the most that the chip knows. Nothing takes that time but its last bytes, which
/// the driver hears of after four characters' time.
const SPEED: u32 = 115_200;

/// The modes of a line that is as a terminal should be.
fn make_sane(modes: &mut Termios) {
    modes.input_modes =
        InputModes::BRKINT | InputModes::ICRNL | InputModes::IMAXBEL | InputModes::IXON;
    modes.output_modes = OutputModes::OPOST | OutputModes::ONLCR;
    modes.control_modes |= ControlModes::CREAD | ControlModes::CRTSCTS;
    modes.local_modes = LocalModes::ISIG
        | LocalModes::ICANON
        | LocalModes::IEXTEN
        | LocalModes::ECHO
        | LocalModes::ECHOE
        | LocalModes::ECHOK
        | LocalModes::ECHOCTL
        | LocalModes::ECHOKE;
}

/// Where the user's terminal is.
const TERMINAL: &str = "/dev/ttyS0";

/// The first line. It is open to the end: a closed terminal forgets its settings. What was opened
/// before a session on it has ended is of no use after that.
pub(crate) struct Terminal(File);

impl Terminal {
    /// Makes it sane, and as large as the user's window.
    pub(crate) fn open((rows, columns): (u16, u16)) -> Result<Self> {
        let file = open(TERMINAL)?;
        let set = || {
            let mut modes = tcgetattr(&file)?;
            make_sane(&mut modes);
            let _ = modes.set_speed(SPEED);
            tcsetattr(&file, OptionalActions::Drain, &modes)
        };
        set().with_context(|| format!("cannot set up {TERMINAL}"))?;
        resize(rows, columns);
        Ok(Self(file))
    }

    /// As somebody else has it.
    pub(crate) fn share() -> Result<Self> {
        open(TERMINAL).map(Self)
    }

    /// For a program's stream.
    pub(crate) fn stream(&self) -> Result<Stdio> {
        Ok(self.0.try_clone().with_context(|| format!("cannot share {TERMINAL}"))?.into())
    }

    /// The user may open it by its name.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        let give = || {
            fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP)))?;
            fchmod(&self.0, Mode::from_raw_mode(0o620))
        };
        give().with_context(|| format!("cannot give {TERMINAL} to the user"))
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0).flush()
    }
}

fn resize(rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    if let Ok(terminal) = open(TERMINAL) {
        let _ = tcsetwinsize(&terminal, size);
    }
}

/// Where gemello listens.
pub(crate) const CONTROL: &str = "/dev/ttyS1";

/// The second line.
pub(crate) struct Control(File);

impl Control {
    /// For lines.
    pub(crate) fn open() -> Result<Self> {
        Self::set_up(|modes| {
            make_sane(modes);
            modes.local_modes -= LocalModes::ECHO;
        })
    }

    /// For bytes as they are.
    pub(crate) fn raw() -> Result<Self> {
        Self::set_up(Termios::make_raw)
    }

    fn set_up(change: impl FnOnce(&mut Termios)) -> Result<Self> {
        let this = Self(open(CONTROL)?);
        let set = || {
            let mut modes = tcgetattr(&this.0)?;
            change(&mut modes);
            modes.control_modes -= ControlModes::CRTSCTS;
            let _ = modes.set_speed(SPEED);
            tcsetattr(&this.0, OptionalActions::Drain, &modes)
        };
        set().with_context(|| format!("cannot set up {CONTROL}"))?;
        Ok(this)
    }

    /// Hears what gemello has to say to who has asked.
    pub(crate) fn briefing(&self) -> io::Result<Briefing> {
        Briefing::read(&mut BufReader::new(&self.0))
    }

    /// Hears what gemello says from now on: the size of the user's window, that the clock has stood
    /// still, that somebody wants the `service`, or that the machine is to power off.
    pub(crate) fn hear(&self, service: Service) -> Result<()> {
        let line = self.share()?;
        let mut unasked = Some((service, self.share()?));
        thread::spawn(move || {
            for said in BufReader::new(line.0).lines().map_while(Result::ok) {
                match said.trim() {
                    "poweroff" => role::asked_to_end(),
                    "serve" => {
                        if let Some((service, control)) = unasked.take() {
                            service.start(control);
                        }
                    }
                    "clock" => set_clock(),
                    said => {
                        if let Some(seed) = said.strip_prefix(SEED).and_then(Seed::parse) {
                            let _ = entropy::add(&seed);
                        }
                        if let Some((rows, columns)) = size(said) {
                            resize(rows, columns);
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn share(&self) -> Result<Self> {
        self.0.try_clone().map(Self).with_context(|| format!("cannot share {CONTROL}"))
    }

    /// Tells gemello.
    fn say(&mut self, what: &str) -> Result<()> {
        let say = || {
            (&self.0).write_all(format!("\n{REPORT}{what}\n").as_bytes())?;
            tcdrain(&self.0).map_err(io::Error::from)
        };
        say().context("cannot write to /dev/ttyS1")
    }

    /// Tells gemello, and keeps the kernel's messages from splitting the line.
    pub(crate) fn report(&mut self, what: &str) -> Result<()> {
        let before = fs::read_to_string(LEVEL).unwrap_or_default();
        let _ = fs::write(LEVEL, "1");
        let said = self.say(what);
        let _ = fs::write(LEVEL, before.split_whitespace().next().unwrap_or("4"));
        said
    }
}

/// `ROWS COLUMNS`.
fn size(said: &str) -> Option<(u16, u16)> {
    let (rows, columns) = said.split_once(' ')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

/// By the clock that runs while a machine is saved.
fn set_clock() {
    let since_epoch = fs::read_to_string(Path::new("/sys/class/rtc/rtc0/since_epoch"));
    if let Some(seconds) = since_epoch.ok().and_then(|text| text.trim().parse().ok()) {
        set_realtime(Duration::from_secs(seconds));
    }
}

/// It is `now` since 1970.
pub(crate) fn set_realtime(now: Duration) {
    let (tv_sec, tv_nsec) = (now.as_secs() as i64, now.subsec_nanos().into());
    let _ = clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec });
}
