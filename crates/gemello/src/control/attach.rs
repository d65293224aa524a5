//! `gemello console NAME`: a machine's console on this terminal.

use super::client::Link;
use super::protocol::Request;
use crate::escape::{ATTACHED, Escape, HELP_ATTACHED, Wish};
use crate::output::Standard;
use crate::{exit, terminal};
use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Shows the console of the machine `name` until that ends, or the user leaves it.
///
/// # Errors
/// There is no such machine, or its console cannot be had.
pub(crate) fn console(name: &str) -> Result<u8> {
    let mut link = Link::to(name)?;
    let (rows, cols) = terminal::window();
    if link.ask(&Request::Console { rows, cols })?.is_none() {
        bail!("{name} has just ended");
    }
    let early = link.stream.buffer().to_vec();
    let stream = link.stream.into_inner();
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let on_terminal = terminal::input_is_terminal();
    let raw = if on_terminal {
        eprintln!("gemello: the console of {name}; Ctrl-A d leaves it, Ctrl-A h helps");
        Some(terminal::Raw::enter().context("cannot make the terminal raw")?)
    } else {
        None
    };
    // Whichever comes first ends it: the machine's end, or the user's wish.
    let (done, why) = channel();
    let (input, typed) = (stream.try_clone()?, done.clone());
    let begin = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")
    };
    begin("keys", Box::new(move || carry_keys(input, on_terminal, &typed)))?;
    begin("console", Box::new(move || show(stream, &early, &done)))?;
    let why = why.recv().unwrap_or(Left::Ended);
    drop(raw);
    terminal::restore();
    match why {
        Left::Ended if on_terminal => eprintln!("\ngemello: {name} has ended"),
        Left::Detached if on_terminal => eprintln!("\ngemello: {name} goes on"),
        Left::Ended | Left::Detached => {}
    }
    Ok(exit::OK)
}

/// Why a console is no longer shown.
enum Left {
    /// The machine has ended.
    Ended,
    /// The user has left it.
    Detached,
}

/// Carries keys to the machine. The end of input is no event for it.
fn carry_keys(mut stream: UnixStream, on_terminal: bool, done: &Sender<Left>) {
    let mut escape = Escape::new(ATTACHED);
    let mut piece = [0; 4096];
    loop {
        let keys = match rustix::io::read(rustix::stdio::stdin(), &mut piece) {
            Ok(0) if on_terminal => break, // hung up
            Ok(0) => return,
            Ok(count) => piece.get(..count).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(_) => break,
        };
        let mut guests = Vec::new();
        let mut wishes = Vec::new();
        if on_terminal {
            wishes = escape.keys(keys, &mut guests);
        } else {
            guests.extend_from_slice(keys);
        }
        if stream.write_all(&guests).is_err() {
            return; // the other thread tells
        }
        if wishes.contains(&Wish::Help) {
            terminal::tell(HELP_ATTACHED);
        }
        if wishes.contains(&Wish::Quit) {
            break;
        }
    }
    let _ = done.send(Left::Detached);
}

/// Shows what the machine says.
fn show(mut stream: UnixStream, early: &[u8], done: &Sender<Left>) {
    let mut output = Standard::Output;
    let mut piece = [0; 16 << 10];
    let mut shown = output.write_all(early).is_ok();
    while shown {
        let count = match stream.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(count @ 1..) => count,
            _ => break,
        };
        shown = output.write_all(piece.get(..count).unwrap_or_default()).is_ok();
    }
    let _ = done.send(if shown { Left::Ended } else { Left::Detached });
}
