//! A command of the service's: a process with pipes or a pseudo-terminal, and a connection that
//! carries them. The command ends when the connection does.
//!
//! Threads: the connection's own waits for the process; one hears what gemello says; one gives the
//! command its input; one for each stream takes what it says, and sends it.

use crate::people::User;
use crate::serve::Usual;
use crate::session::{self, Session};
use agent_job::{Exec, FromAgent, PIECE, Program, ToAgent, WINDOW};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vsock::VsockStream;

/// What the command has written before its end is there at once; of what it has left running, so
/// much is waited for between two pieces, and so much is taken.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const REST_BYTES: usize = 1 << 20;
/// What is hung up has so long to end.
const GRACE: Duration = Duration::from_millis(500);
/// What a terminal takes for the end of input.
const END_OF_INPUT: u8 = 4;

/// Where frames go, from several threads.
#[derive(Clone)]
struct Peer(Arc<Mutex<VsockStream>>);

impl Peer {
    fn say(&self, what: &FromAgent) -> io::Result<()> {
        what.write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs the command `exec` for who is at the other end of `stream`, up to its end.
pub(crate) fn run(stream: &VsockStream, exec: &Exec, usual: &Usual) {
    let Ok(writer) = stream.try_clone() else { return };
    let peer = Peer(Arc::new(Mutex::new(writer)));
    let told = match start(exec, usual).and_then(|running| running.attend(stream, &peer)) {
        Ok(status) => FromAgent::Ended(status),
        Err(error) => FromAgent::Failed(format!("{error:#}")),
    };
    let _ = peer.say(&told);
    let _ = stream.shutdown(Shutdown::Both); // `hear` ends, too
}

/// What the command writes to, from this side, and how its bytes are told.
type Output = (File, fn(Vec<u8>) -> FromAgent);

/// A command that runs, and this side of its streams.
struct Running {
    child: Child,
    input: File,
    outputs: Vec<Output>,
    /// The pseudo-terminal, if that is what they are.
    terminal: Option<File>,
}

fn start(exec: &Exec, usual: &Usual) -> Result<Running> {
    let user = exec.user.as_deref().map(User::find).transpose()?;
    let program = program(exec, user.as_ref(), usual);
    let file = |fd: OwnedFd| File::from(fd);
    let Some(size) = exec.terminal else {
        let (from_input, input) = pipe(program.uid)?;
        let (output, to_output) = pipe(program.uid)?;
        let (errors, to_errors) = pipe(program.uid)?;
        let streams = [from_input, to_output, to_errors].map(Stdio::from);
        let child = Session::apart(&program).spawn(streams)?;
        let outputs: Vec<Output> =
            vec![(file(output), FromAgent::Output), (file(errors), FromAgent::Errors)];
        return Ok(Running { child, input: file(input), outputs, terminal: None });
    };
    let open = || -> io::Result<(File, File)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags)?;
        unlockpt(&terminal)?;
        let command = ioctl_tiocgptpeer(&terminal, flags)?;
        fchown(
            &command,
            Some(Uid::from_raw(program.uid)),
            Some(Gid::from_raw(session::TTY_GROUP)),
        )?;
        fchmod(&command, Mode::from_raw_mode(0o620))?;
        Ok((terminal.into(), command.into()))
    };
    let (terminal, command) = open().context("the guest has no pseudo-terminal")?;
    resize(&terminal, size);
    let streams = [command.try_clone()?, command.try_clone()?, command].map(Stdio::from);
    let child = Session::with_terminal(&program).spawn(streams)?;
    let (input, output) = (terminal.try_clone()?, terminal.try_clone()?);
    let outputs: Vec<Output> = vec![(output, FromAgent::Output)];
    Ok(Running { child, input, outputs, terminal: Some(terminal) })
}

/// Of this process's environment, with what is said.
fn program(exec: &Exec, user: Option<&User>, usual: &Usual) -> Program {
    let whom = user.unwrap_or(&usual.user);
    let joined = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    let mut environment: Vec<_> = std::env::vars_os().map(joined).collect();
    if let Some(User { home, name, .. }) = user {
        environment.push(format!("HOME={home}").into());
        for variable in name.iter().flat_map(|it| [format!("USER={it}"), format!("LOGNAME={it}")]) {
            environment.push(variable.into());
        }
    }
    let said = exec.environment.iter().filter(|it| !it.as_bytes().contains(&0));
    environment.extend(said.cloned()); // the last of a name counts
    Program {
        words: exec.words.clone(),
        environment,
        folder: exec.folder.clone().unwrap_or_else(|| usual.folder.clone()),
        uid: whom.uid,
        gid: whom.gid,
        groups: whom.groups.clone(),
        umask: usual.umask,
    }
}

fn pipe(uid: u32) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    // /dev/stdout and its like are opened anew by their user.
    fchown(&reader, Some(Uid::from_raw(uid)), None).context("cannot give a pipe to the user")?;
    Ok((reader.into(), writer.into()))
}

fn resize(terminal: &File, (ws_row, ws_col): (u16, u16)) {
    let _ = tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
}

impl Running {
    /// Carries until the command has ended, and all that it has said is sent. Its status.
    fn attend(self, stream: &VsockStream, peer: &Peer) -> Result<u8> {
        let Self { mut child, input, outputs, terminal } = self;
        let group = Pid::from_child(&child);
        let (ended, end) = io::pipe().context("cannot make a pipe")?;
        let ended = Arc::new(ended);
        let carriers: Vec<JoinHandle<()>> = outputs
            .into_iter()
            .map(|(from, frame)| {
                let (peer, ended) = (peer.clone(), Arc::clone(&ended));
                thread::spawn(move || carry_out(from, &ended, |bytes| peer.say(&frame(bytes))))
            })
            .collect();
        let (queue, queued) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (writes, taken) = (peer.clone(), Arc::clone(&waiting));
        let is_terminal = terminal.is_some();
        thread::spawn(move || carry_in(&queued, input, is_terminal, &writes, &taken));
        let hears = stream.try_clone().context("cannot share a connection")?;
        let over = Arc::new(AtomicBool::new(false));
        let (heard, ears) = (Arc::clone(&over), Ears { queue: Some(queue), waiting, terminal });
        thread::spawn(move || {
            ears.hear(hears, group);
            // What a command leaves running that has ended is left so.
            if !heard.load(Ordering::SeqCst) {
                hang_up(group);
            }
        });
        let status = child.wait().context("cannot wait for the command")?;
        over.store(true, Ordering::SeqCst);
        drop(end);
        carriers.into_iter().for_each(|carrier| drop(carrier.join()));
        Ok(session::code(status))
    }
}

/// Sends what the command says, up to its end, or to what was said when it `ended`.
fn carry_out(mut from: File, ended: &PipeReader, mut send: impl FnMut(Vec<u8>) -> io::Result<()>) {
    let (mut over, mut rest) = (false, REST_BYTES);
    let mut piece = vec![0; PIECE];
    loop {
        let mut fds = vec![PollFd::new(&from, PollFlags::IN)];
        if !over {
            fds.push(PollFd::new(ended, PollFlags::IN));
        }
        match poll(&mut fds, over.then_some(&REST)) {
            Ok(0) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let [said, end] = [0, 1].map(|n| fds.get(n).is_some_and(|fd| !fd.revents().is_empty()));
        drop(fds);
        if said {
            // A pseudo-terminal that nobody has open any more fails with EIO.
            let Ok(count @ 1..) = from.read(&mut piece) else { return };
            rest = if over { rest.saturating_sub(count) } else { rest };
            let bytes = piece.get(..count).unwrap_or_default().to_vec();
            if send(bytes).is_err() || rest == 0 {
                return;
            }
        } else {
            over |= end;
        }
    }
}

/// Gives the command what is queued, and tells what it has taken.
fn carry_in(
    queued: &Receiver<Vec<u8>>,
    mut input: File,
    is_terminal: bool,
    peer: &Peer,
    waiting: &AtomicUsize,
) {
    let mut takes = true;
    while let Ok(bytes) = queued.recv() {
        // Where nobody reads, it is taken all the same.
        takes = takes && input.write_all(&bytes).is_ok();
        waiting.fetch_sub(bytes.len(), Ordering::SeqCst);
        if peer.say(&FromAgent::Taken(bytes.len() as u32)).is_err() {
            return;
        }
    }
    if is_terminal {
        let _ = input.write_all(&[END_OF_INPUT]);
    }
}

/// What hears gemello.
struct Ears {
    queue: Option<Sender<Vec<u8>>>,
    /// Bytes of input that have not been taken.
    waiting: Arc<AtomicUsize>,
    terminal: Option<File>,
}

impl Ears {
    /// Hears what gemello says to the process group, until it goes away.
    fn hear(mut self, mut stream: VsockStream, group: Pid) {
        while let Ok(Some(said)) = ToAgent::read(&mut stream) {
            match said {
                ToAgent::Input(bytes) => {
                    let before = self.waiting.fetch_add(bytes.len(), Ordering::SeqCst);
                    if before + bytes.len() > WINDOW {
                        return; // more than was allowed
                    }
                    self.queue.as_ref().map(|queue| queue.send(bytes));
                }
                ToAgent::InputEnd => self.queue = None,
                ToAgent::Window(rows, columns) => {
                    self.terminal.iter().for_each(|terminal| resize(terminal, (rows, columns)));
                }
                ToAgent::Signal(number) => {
                    if let Some(signal) = Signal::from_named_raw(number.into()) {
                        let _ = kill_process_group(group, signal);
                    }
                }
                ToAgent::Request(_) => return,
            }
        }
    }
}

/// Ends a command that nobody hears any more.
fn hang_up(group: Pid) {
    let _ = kill_process_group(group, Signal::HUP);
    thread::sleep(GRACE);
    let _ = kill_process_group(group, Signal::KILL);
}
