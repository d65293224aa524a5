//! `agent serve`: the service. It listens at [`AGENT_PORT`] of the guest's virtio sockets, and does
//! what gemello asks for: commands, files, keys, ways to TCP ports. Process 1 starts it in the
//! guests that gemello makes; in a whole system it is a service like others, run as root.
//!
//! A thread for each connection, [`MOST`] at a time. Only the host is answered: it may do with the
//! guest what it likes anyway.

use crate::people::User;
use crate::{exec, follow};
use agent_job::{AGENT_PORT, Carried, FromAgent, PIECE, Pieces, Request, ToAgent};
use anyhow::{Context as _, Result, bail};
use copy::{Bits, Target, pack};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, open};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// Connections at a time.
const MOST: usize = 64;

/// As whom commands are run, unless they say otherwise. Their environment is this process's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usual {
    pub(crate) user: User,
    pub(crate) umask: u32,
    pub(crate) folder: std::path::PathBuf,
}

/// Answers until the guest ends; `listening` is called when that begins.
pub(crate) fn serve(usual: Usual, listening: impl FnOnce() -> Result<()>) -> Result<()> {
    let listener = VsockListener::bind(&VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT))
        .with_context(|| format!("cannot listen at port {AGENT_PORT} of virtio sockets"))?;
    listening()?;
    let (usual, served) = (Arc::new(usual), Arc::new(AtomicUsize::new(0)));
    loop {
        let Ok((stream, peer)) = listener.accept() else {
            thread::sleep(Duration::from_millis(10)); // no descriptor is left, say
            continue;
        };
        if peer.cid() != VMADDR_CID_HOST || served.load(Ordering::SeqCst) >= MOST {
            continue;
        }
        served.fetch_add(1, Ordering::SeqCst);
        let (usual, mine) = (Arc::clone(&usual), Arc::clone(&served));
        let work = move || {
            answer(stream, &usual);
            mine.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new().spawn(work).is_err() {
            served.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Does what the connection is for.
fn answer(mut stream: VsockStream, usual: &Usual) {
    let request = match ToAgent::read(&mut stream) {
        Ok(Some(ToAgent::Request(request))) => request,
        Ok(_) => return,
        Err(error) => return drop(FromAgent::Failed(error.to_string()).write(&mut stream)),
    };
    let done = match request {
        Request::Exec(exec) => return exec::run(&stream, &exec, usual),
        Request::Forward(to) => forward(&mut stream, to),
        Request::Send(path) => send(&mut stream, &path),
        Request::Take(path) => take(&mut stream, &path),
        Request::Authorize { user, key } => authorize(&user, &key),
        Request::Follow(tag) => follow::follow(&mut stream, &tag).map(|()| Done::Told),
    };
    let told = match done {
        Ok(Done::Told) => return,
        Ok(Done::Untold) => FromAgent::Ended(0),
        Err(error) => FromAgent::Failed(format!("{error:#}")),
    };
    let _ = told.write(&mut stream);
    // What is still on its way is taken, so that the answer is not lost with it.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Whether the other side knows already that it is done.
enum Done {
    Told,
    Untold,
}

/// Leads to a TCP port of the guest's loopback.
fn forward(stream: &mut VsockStream, to: u16) -> Result<Done> {
    let places = [SocketAddr::from((Ipv4Addr::LOCALHOST, to)), (Ipv6Addr::LOCALHOST, to).into()];
    let mut tcp = TcpStream::connect(&places[..])
        .with_context(|| format!("nobody in the guest listens at port {to}"))?;
    FromAgent::Ended(0).write(stream)?;
    let (mut from, mut back) = (stream.try_clone()?, tcp.try_clone()?);
    let there = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut tcp, stream);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = there.join();
    Ok(Done::Told)
}

/// What is at `path`, called as the last of its names.
fn send(stream: &mut VsockStream, path: &Path) -> Result<Done> {
    let frames = Pieces(|piece| FromAgent::Output(piece).write(stream));
    let mut output = io::BufWriter::with_capacity(PIECE, frames);
    pack(path, copy::called(path), &mut output)?;
    output.flush()?;
    Ok(Done::Untold)
}

/// What comes goes to `path`.
fn take(stream: &mut VsockStream, path: &Path) -> Result<Done> {
    let target = Target::new(path, Bits::All)?;
    let input = Carried::new(|| match ToAgent::read(stream)? {
        Some(ToAgent::Input(bytes)) => Ok(Some(bytes)),
        _ => Ok(None),
    });
    let mut input = io::BufReader::with_capacity(PIECE, input);
    target.unpack(&mut input)?;
    Ok(Done::Untold)
}

/// Has `key` open the guest to `user` by ssh, if it does not yet.
fn authorize(user: &str, key: &str) -> Result<Done> {
    if key.contains('\n') || !key.starts_with("ssh-") {
        bail!("that is no public key");
    }
    let User { uid, gid, home, .. } = User::find(user)?;
    let folder = Path::new(&home).join(".ssh");
    let file = folder.join("authorized_keys");
    let write = || -> io::Result<()> {
        let owner = |file: &File| fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            let made = File::open(&folder)?;
            owner(&made)?;
            fchmod(&made, Mode::from_raw_mode(0o700))?;
        }
        // The folder is the user's: what he has put there for a link is not written through.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::APPEND;
        let mut keys =
            File::from(open(&file, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?);
        let mut text = String::new();
        keys.read_to_string(&mut text)?;
        if !text.lines().any(|line| line == key) {
            let before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            keys.write_all(format!("{before}{key}\n").as_bytes())?;
            owner(&keys)?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {} in the guest", file.display()))?;
    Ok(Done::Untold)
}
