//! `gemello exec NAME -- CMD`: a command in a guest that runs, with this process's streams.

use super::answer::harmless;
use super::arguments::Exec as Arguments;
use crate::control::{self, Channel};
use crate::output::Standard;
use crate::{exit, shell, signals, terminal};
use agent_job::{Exec, FromAgent, PIECE, Request, ToAgent, WINDOW};
use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGWINCH, SIGXCPU, SIGXFSZ};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Runs a command in the guest of a machine; its status.
///
/// # Errors
/// There is no such machine, its guest has no agent, or the command could not be started.
pub(crate) fn exec(arguments: &Arguments) -> Result<u8> {
    let Arguments { name, tty, no_tty, interactive: _, env, workdir, user, command } = arguments;
    let both = terminal::input_is_terminal() && terminal::output_is_terminal();
    let on_terminal = *tty || both && !no_tty;
    let mut environment: Vec<_> = env.iter().filter_map(variable).collect();
    if on_terminal && let Some(term) = std::env::var_os("TERM") {
        environment.insert(0, shell::variable("TERM".as_ref(), &term));
    }
    let request = Exec {
        words: command.clone(),
        environment,
        folder: workdir.clone(),
        user: user.clone(),
        terminal: on_terminal.then(terminal::window),
    };
    let mut channel = control::agent(name)?;
    channel.say(&ToAgent::Request(Request::Exec(request)))?;
    let raw = (on_terminal && terminal::input_is_terminal()).then(terminal::Raw::enter);
    let raw = raw.transpose().context("cannot make the terminal raw")?;
    let Channel { mut reader, writer } = channel;
    let peer = Peer { writer: Arc::new(Mutex::new(writer)), room: Arc::default() };
    let told = peer.clone();
    signals::forward(move |signal| told.signal(signal, on_terminal));
    let typed = peer.clone();
    let keys = thread::Builder::new().name("input".into());
    keys.spawn(move || typed.carry_in()).context("cannot start a thread")?;
    let status = show(&mut reader, &peer);
    drop(raw);
    status
}

/// `NAME=VALUE`, or what NAME is here, if anything.
fn variable(said: &OsString) -> Option<OsString> {
    if said.as_bytes().contains(&b'=') {
        return Some(said.clone());
    }
    std::env::var_os(said).map(|value| shell::variable(said, &value))
}

/// Passes on what the command says, up to its end; its status.
fn show(reader: &mut impl Read, peer: &Peer) -> Result<u8> {
    loop {
        let (mut output, bytes) = match FromAgent::read(reader).context("the command is lost")? {
            Some(FromAgent::Output(bytes)) => (Standard::Output, bytes),
            Some(FromAgent::Errors(bytes)) => (Standard::Error, bytes),
            Some(FromAgent::Taken(count)) => {
                peer.taken(count as usize);
                continue;
            }
            Some(FromAgent::Ended(status)) => return Ok(status),
            Some(FromAgent::Failed(why)) => bail!("{}", harmless(&why)),
            None => bail!("the machine has ended, or its agent has"),
        };
        if output.write_all(&bytes).is_err() {
            return Ok(exit::OUTPUT_CLOSED); // and the command is hung up
        }
    }
}

/// The agent, as several threads speak to it.
#[derive(Clone)]
struct Peer {
    writer: Arc<Mutex<UnixStream>>,
    /// Bytes of input that it has not taken yet.
    room: Arc<(Mutex<usize>, Condvar)>,
}

impl Peer {
    fn say(&self, what: &ToAgent) -> bool {
        what.write(&mut *sync::lock(&self.writer)).is_ok()
    }

    fn signal(&self, signal: i32, on_terminal: bool) {
        let what = match signal {
            SIGWINCH | SIGCONT if on_terminal => {
                let (rows, columns) = terminal::window();
                ToAgent::Window(rows, columns)
            }
            SIGWINCH | SIGCONT | SIGXCPU | SIGXFSZ => return,
            other => ToAgent::Signal(other as u8),
        };
        self.say(&what);
    }

    fn taken(&self, count: usize) {
        let (waiting, changed) = &*self.room;
        let mut waiting = sync::lock(waiting);
        *waiting = waiting.saturating_sub(count);
        changed.notify_all();
    }

    /// Waits until something may be sent; how much.
    fn room(&self) -> usize {
        let (waiting, changed) = &*self.room;
        let mut waiting = sync::lock(waiting);
        while *waiting >= WINDOW {
            waiting = sync::wait(changed, waiting);
        }
        (WINDOW - *waiting).min(PIECE)
    }

    /// Sends this process's input, to its end.
    fn carry_in(&self) {
        let mut piece = vec![0; PIECE];
        loop {
            let room = self.room();
            let into = piece.get_mut(..room).unwrap_or_default();
            let bytes = match rustix::io::read(rustix::stdio::stdin(), &mut *into) {
                Ok(count @ 1..) => into.get(..count).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Ok(0) | Err(_) => break,
            };
            *sync::lock(&self.room.0) += bytes.len();
            if !self.say(&ToAgent::Input(bytes.to_vec())) {
                return;
            }
        }
        self.say(&ToAgent::InputEnd);
    }
}
