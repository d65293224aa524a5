//! The side of the process that runs machines: sockets, the thread that listens, and a thread for
//! each connection.
//!
//! The lock of the list of sockets is a leaf.

use super::client::is_alive;
use super::figures::Figures;
use super::folder::Folder;
use super::protocol::{self, Answer, Balloon, Info, LINE_MAX, Reply, Request, VERSION};
use crate::console::{Console, Viewer};
use crate::hosted::{self, Hosted};
use crate::output::ServiceState;
use crate::place::Place;
use crate::settings::name::MachineName;
use crate::settings::names::Names;
use agent_job::AGENT_PORT;
use anyhow::{Context as _, Result, bail};
use machine::{BalloonError, BalloonReport, ControlError, End, Phase, VsockPort};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::socket_peercred;
use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Connections to a machine at one time.
const CONNECTIONS: usize = 32;
/// How long a peer may take to say a line, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most machines of one name, told apart by a number.
const SAME_NAME: usize = 10_000;
/// Until a full queue of keys is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// How a machine's name came about.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    /// The user has said it: another machine of this name is in the way.
    Said(MachineName),
    /// Nobody has: a number may follow.
    ByDefault(MachineName),
}

/// A machine's name, held by its socket, which does not answer yet.
#[derive(Debug)]
pub(crate) struct Claim {
    // Removed while it still listens: nobody else can have taken the name by then.
    socket: Socket,
    listener: UnixListener,
}

/// A socket's file, which goes with this.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes a name among this user's machines: the machine's name, and what holds it, or why nothing
/// does: then the machine runs, and cannot be reached.
///
/// # Errors
/// Another machine has the name.
pub(crate) fn claim(name: &Name) -> Result<(MachineName, Result<Claim>)> {
    let (Name::Said(wanted) | Name::ByDefault(wanted)) = name;
    let unreached = |error: anyhow::Error| {
        tracing::debug!(target: "boot", error = %format!("{error:#}"), "no control socket");
        Ok((wanted.clone(), Err(error)))
    };
    let folder = match Folder::open() {
        Ok(folder) => folder,
        Err(error) => return unreached(error),
    };
    let _lock = match folder.lock() {
        Ok(lock) => lock,
        Err(error) => return unreached(error),
    };
    let most = if matches!(name, Name::Said(_)) { 1 } else { SAME_NAME };
    for number in 1..=most {
        let name = wanted.numbered(number);
        let path = folder.socket(&name.to_string());
        match is_alive(&path) {
            Ok(true) => continue,
            Err(error) => return unreached(error.into()),
            Ok(false) => {}
        }
        for left in [folder.log(&name.to_string()), folder.hosts(&name.to_string())] {
            let _ = std::fs::remove_file(left); // of the last of this name
        }
        return match Claim::at(&path, &folder.new_socket()) {
            Ok(claim) => Ok((name, Ok(claim))),
            Err(error) => unreached(error),
        };
    }
    bail!(
        "a machine called {wanted} runs already; give this one another `name`, or end that one: \
         gemello stop {wanted}"
    )
}

impl Claim {
    /// Takes the place of a process that has gone. `new` is a path beside it that nobody else uses:
    /// a socket listens, and is this user's alone, before it has its name. The folder's lock is
    /// held.
    fn at(path: &Path, new: &Path) -> Result<Self> {
        let attempt = || format!("cannot make the socket {}", path.display());
        let _ = std::fs::remove_file(new);
        let listener = UnixListener::bind(new).with_context(attempt)?;
        std::fs::set_permissions(new, Permissions::from_mode(0o600)).with_context(attempt)?;
        listener.set_nonblocking(true).with_context(attempt)?;
        // The kernel's bound: who reaches it goes by its name.
        SocketAddr::from_pathname(path).with_context(attempt)?;
        std::fs::rename(new, path).with_context(attempt)?;
        Ok(Self { socket: Socket(path.to_owned()), listener })
    }

    /// Answers for `machine` from now on, until what is returned is dropped. Where the host refuses
    /// a thread for that, the machine cannot be reached.
    pub(crate) fn serve(self, machine: &Arc<Hosted>) -> Serving {
        let Self { socket, listener } = self;
        let (machine, served) = (Arc::clone(machine), Arc::default());
        let listening = Arc::new(Listening { listener, machine, served });
        if let Some(server) = Server::the() {
            server.change(|all| all.push(Arc::clone(&listening)));
        }
        Serving { socket: Some(socket), listening }
    }
}

/// A socket, and whom it is for.
#[derive(Debug)]
struct Listening {
    listener: UnixListener,
    machine: Arc<Hosted>,
    /// Connections that are served.
    served: Arc<AtomicUsize>,
}

/// A machine that can be reached; not any more once this is dropped, and its name is free.
#[derive(Debug)]
pub(crate) struct Serving {
    socket: Option<Socket>,
    listening: Arc<Listening>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.socket.take());
        if let Some(server) = Server::the() {
            server.change(|all| all.retain(|one| !Arc::ptr_eq(one, &self.listening)));
        }
    }
}

/// What the listening thread works on.
#[derive(Debug)]
struct Server {
    listening: Mutex<Vec<Arc<Listening>>>,
    /// Rung when the list has changed.
    changed: OwnedFd,
}

impl Server {
    /// This process's, started on first use.
    fn the() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        static STARTED: OnceLock<bool> = OnceLock::new();
        let make = || {
            let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
            Some(Self { listening: Mutex::default(), changed })
        };
        let server = SERVER.get_or_init(make).as_ref()?;
        let work = move || {
            let _ = host::give_up_privileges();
            loop {
                server.listen();
            }
        };
        let start = || thread::Builder::new().name("control".into()).spawn(work).is_ok();
        STARTED.get_or_init(start).then_some(server)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Listening>>)) {
        change(&mut sync::lock(&self.listening));
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes());
    }

    /// Waits for connections, and has them served.
    fn listen(&self) {
        let listening = sync::lock(&self.listening).clone();
        let mut fds = vec![PollFd::new(&self.changed, PollFlags::IN)];
        fds.extend(listening.iter().map(|one| PollFd::new(&one.listener, PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            return;
        }
        let _ = rustix::io::read(&self.changed, &mut [0; 8]);
        for (one, fd) in listening.iter().zip(fds.iter().skip(1)) {
            if fd.revents().is_empty() {
                continue;
            }
            match one.listener.accept() {
                Ok((stream, _)) => one.admit(stream),
                // Out of descriptors, say: it would be ready again at once.
                Err(_) => thread::sleep(AGAIN),
            }
        }
    }
}

/// Whether a process of user `peer` may ask a process of user `own`.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == own
}

impl Listening {
    /// Serves a connection on a thread of its own, if it is one of this user's and there are not
    /// too many.
    fn admit(&self, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        if !socket_peercred(&stream).is_ok_and(|peer| may_ask(peer.uid.as_raw(), own)) {
            return;
        }
        let Some(one) = One::of(&self.served) else { return };
        let machine = Arc::clone(&self.machine);
        let work = move || {
            Peer { stream, heard: Vec::new() }.converse(&machine);
            drop(one);
        };
        // Where the host refuses a thread, the connection ends.
        let _ = thread::Builder::new().name("connection".into()).spawn(work);
    }
}

/// One of the connections that are served.
struct One(Arc<AtomicUsize>);

impl One {
    /// `None`: there are too many.
    fn of(served: &Arc<AtomicUsize>) -> Option<Self> {
        let one = Self(Arc::clone(served));
        (served.fetch_add(1, Ordering::SeqCst) < CONNECTIONS).then_some(one)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection.
struct Peer {
    stream: UnixStream,
    /// What came, and is not part of a line yet.
    heard: Vec<u8>,
}

impl Peer {
    /// Answers requests until the peer goes, is slow, or talks nonsense.
    fn converse(&mut self, machine: &Arc<Hosted>) {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(PATIENCE));
        while let Some(line) = self.line() {
            match protocol::parse(&line) {
                Ok(Request::Console { rows, cols }) => return self.console(machine, (rows, cols)),
                Ok(Request::Connect { port }) => return self.connect(machine, VsockPort(port)),
                Ok(Request::Log { follow }) => return self.log(machine, follow),
                Ok(request) => {
                    if self.say(answer(machine, &request)).is_err() {
                        return;
                    }
                }
                Err(why) => return self.refuse(&why),
            }
        }
    }

    /// The next line. `None`: there will be none.
    fn line(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let rest = self.heard.split_off(end + 1);
                return Some(std::mem::replace(&mut self.heard, rest));
            }
            if self.heard.len() > LINE_MAX {
                self.refuse("the line is longer than any request");
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return None;
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.heard.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    fn say(&mut self, answer: Answer) -> std::io::Result<()> {
        self.stream.write_all(&protocol::line(&Reply { version: VERSION, answer }))
    }

    fn refuse(&mut self, why: &str) {
        let _ = self.say(Answer::Refused(why.into()));
    }

    /// The machine's console, until the machine ends or the peer goes.
    fn console(&mut self, machine: &Arc<Hosted>, size: (u16, u16)) {
        if !machine.side.kind().has_a_console() {
            return self.refuse("its first serial line carries a command's input and output");
        }
        machine.side.resize(size);
        let (console, input) = machine.side.console();
        let Some(viewer) = self.show(console) else { return };
        let mut keys = std::mem::take(&mut self.heard);
        let mut piece = [0; 4096];
        loop {
            let taken = input.typed(&keys);
            keys.drain(..taken);
            if !keys.is_empty() {
                if machine.handle.phase() == Phase::Ended {
                    break;
                }
                thread::sleep(AGAIN);
                continue;
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => keys.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
        viewer.leave();
    }

    /// A port of the guest's: this connection is the machine's own from then on.
    fn connect(&mut self, machine: &Arc<Hosted>, port: VsockPort) {
        let entrance = match machine.handle.entrance() {
            _ if machine.handle.phase() == Phase::Paused => {
                return self.refuse("it is paused, and hears nothing");
            }
            Ok(_) if !self.heard.is_empty() => return self.refuse("wait for the answer first"),
            Ok(entrance) => entrance,
            Err(error) => return self.refuse(&Names::default().render(&error.to_string())),
        };
        machine.side.serve();
        match machine.side.service().filter(|_| port.0 == AGENT_PORT) {
            Some(ServiceState::Unheard) => return drop(self.say(Answer::Booting)),
            Some(ServiceState::Refused(why)) => {
                return self.refuse(&format!("its agent does not answer: {why}"));
            }
            Some(ServiceState::Listens) | None => {}
        }
        // The answer comes before what the guest says.
        if self.say(Answer::Done).is_ok()
            && let Ok(stream) = self.stream.try_clone()
        {
            let _ = entrance.connect(stream, port);
        }
    }

    /// The last of the machine's output, or all until the machine ends or the peer goes.
    fn log(&mut self, machine: &Arc<Hosted>, follow: bool) {
        let (console, _) = machine.side.console();
        if !follow {
            let _looks = console.look();
            let _ = self.say(Answer::Done).and_then(|()| self.stream.write_all(&console.recent()));
            return;
        }
        let Some(viewer) = self.show(console) else { return };
        while self.stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        viewer.leave();
    }

    /// Says that it is done, and has a thread pass on what `console` shows.
    fn show(&mut self, console: &Console) -> Option<Viewer> {
        self.say(Answer::Done).ok()?;
        let viewer = console.look();
        let _ = (self.stream.set_read_timeout(None), self.stream.set_write_timeout(None));
        let (mut output, seen) = (self.stream.try_clone().ok()?, viewer.clone());
        let show = move || {
            while let Some(bytes) = seen.next() {
                if output.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = output.shutdown(std::net::Shutdown::Both);
        };
        thread::Builder::new().name("viewer".into()).spawn(show).ok()?;
        Some(viewer)
    }
}

fn answer(machine: &Hosted, request: &Request) -> Answer {
    let done = |result: Result<(), ControlError>| match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Refused(error.to_string()),
    };
    match request {
        Request::Info => Answer::Info(info(machine)),
        Request::Figures => Answer::Figures(Figures::of(machine)),
        Request::Pause => done(machine.handle.pause()),
        Request::Resume => done(machine.handle.resume()),
        Request::PowerButton if machine.handle.phase() == Phase::Paused => {
            Answer::Refused("it is paused, and hears nothing".into())
        }
        Request::PowerButton => {
            machine.side.power_off();
            done(machine.handle.press_power_button())
        }
        Request::Balloon { memory } => balloon(machine, *memory)
            .unwrap_or_else(|error| Answer::Refused(Names::default().render(&error.to_string()))),
        Request::Kill => {
            machine.handle.stop(End::Interrupted);
            Answer::Done
        }
        Request::Wait { milliseconds } => {
            let status = machine.wait(Duration::from_millis(*milliseconds).min(LONGEST_WAIT));
            let process = || hosted::all().iter().all(|one| one.wait(Duration::ZERO).is_some());
            status.map_or(Answer::Runs, |status| Answer::Ended { status, process: process() })
        }
        Request::Console { .. } | Request::Log { .. } | Request::Connect { .. } => {
            Answer::Refused("ask for it alone".into())
        }
    }
}

/// Has the guest of `machine` keep `memory`, if that is asked for, and tells how it is.
fn balloon(machine: &Hosted, memory: Option<u64>) -> Result<Answer, BalloonError> {
    if let Some(memory) = memory {
        machine.handle.set_balloon(memory)?;
    }
    let BalloonReport { wanted, given, reported, stats } = machine.handle.balloon_report()?;
    let memory = machine.memory;
    Ok(Answer::Balloon(Balloon {
        memory,
        target: memory.saturating_sub(wanted),
        keeps: memory.saturating_sub(given),
        reported,
        free: stats.free,
        available: stats.available,
        caches: stats.caches,
    }))
}

/// The longest that a peer may have a thread wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Where `machine` is in its life. One that can be reached is about to run: its names may have been
/// told before its thread has got that far, and who asks is told of a machine that runs.
fn phase(machine: &Hosted) -> Phase {
    let deadline = Instant::now() + LONGEST_WAIT;
    while machine.handle.phase() == Phase::Created && Instant::now() < deadline {
        thread::sleep(AGAIN);
    }
    machine.handle.phase()
}

fn info(machine: &Hosted) -> Info {
    let state = match phase(machine) {
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Ended => "ended",
    };
    let console = match machine.side.place() {
        Place::Standard if machine.side.kind().has_a_console() => "terminal",
        Place::Standard => "command",
        Place::Pty(pty) => pty.path(),
        Place::Log(_) => "log",
    };
    Info {
        name: machine.name.to_string(),
        pid: std::process::id(),
        state: state.into(),
        seconds: machine.age().as_secs(),
        vcpus: machine.vcpus,
        memory: machine.memory,
        resident: machine.handle.resident(),
        console: console.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_anothers_machines() {
        assert!(may_ask(0, 0) && may_ask(1000, 1000));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0) && !may_ask(0, 1000));
    }
}
