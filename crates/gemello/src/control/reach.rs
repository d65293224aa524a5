//! A connection to a port of a machine's guest, by the machine's control socket.

use super::client::Link;
use super::protocol::{Answer, Request};
use agent_job::AGENT_PORT;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a guest may take: it may be booting, or loading its driver.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest that has its driver may take until the agent listens.
const START: Duration = Duration::from_secs(30);
/// How long a guest may boot before that is said.
const QUIET: Duration = Duration::from_secs(5);
/// Between two questions to a guest that is booting.
const BOOTING: Duration = Duration::from_millis(50);
/// Between two questions to a guest where nobody listens yet.
const AGAIN: Duration = Duration::from_millis(10);

/// Both ways of a connection.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) reader: BufReader<UnixStream>,
    pub(crate) writer: UnixStream,
}

/// Who is at a port of a guest.
enum Peer {
    There(Channel),
    /// The guest says that nobody listens there.
    Nobody,
    /// It is gemello's own, and not up yet.
    Booting,
}

/// Connects to `port` of the guest of the machine `name`. `None`: nobody listens there.
///
/// # Errors
/// There is no such machine, it has no sockets, or its guest does not answer.
pub(crate) fn reach(name: &str, port: u32) -> Result<Option<Channel>> {
    Ok(match knock(name, port)? {
        Peer::There(channel) => Some(channel),
        Peer::Nobody | Peer::Booting => None,
    })
}

fn knock(name: &str, port: u32) -> Result<Peer> {
    let mut link = Link::to(name)?;
    match link.ask(&Request::Connect { port })? {
        Some(Answer::Booting) => return Ok(Peer::Booting),
        Some(_) => {}
        None => bail!("{name} has just ended"),
    }
    let mut reader = link.stream;
    let writer = reader.get_ref().try_clone().context("cannot share a connection")?;
    reader.get_ref().set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Ok(0) => return Ok(Peer::Nobody),
        Ok(_) if line.starts_with(b"OK ") => {}
        Ok(_) => bail!("{name} answered nonsense"),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => bail!(
            "the guest of {name} has not answered for {} s: it has not booted, or has no driver \
             for virtio sockets; see gemello console {name}",
            PATIENCE.as_secs()
        ),
        Err(error) => return Err(error).with_context(|| format!("cannot reach {name}")),
    }
    writer.set_read_timeout(None)?;
    writer.set_write_timeout(None)?;
    Ok(Peer::There(Channel { reader, writer }))
}

/// Connects to the agent in the guest of the machine `name`, once it is there. A guest of gemello's
/// own is waited for as long as it boots.
///
/// # Errors
/// As [`reach`]; or there is no agent.
pub(crate) fn agent(name: &str) -> Result<Channel> {
    let (begun, mut told) = (Instant::now(), false);
    let mut deadline = begun + START;
    loop {
        let pause = match knock(name, AGENT_PORT)? {
            Peer::There(channel) => return Ok(channel),
            Peer::Booting => {
                deadline = Instant::now() + START;
                if !told && begun.elapsed() > QUIET {
                    eprintln!("gemello: {name} is booting; waiting until it is up");
                    told = true;
                }
                BOOTING
            }
            Peer::Nobody if Instant::now() > deadline => bail!(
                "no agent answers in the guest of {name}: gemello's own guests have it; another \
                 one has to run `agent serve`"
            ),
            Peer::Nobody => AGAIN,
        };
        std::thread::sleep(pause);
    }
}

impl Channel {
    /// Says one thing.
    ///
    /// # Errors
    /// The machine has gone.
    pub(crate) fn say(&mut self, what: &agent_job::ToAgent) -> Result<()> {
        what.write(&mut self.writer).context("the machine takes nothing more")?;
        self.writer.flush().context("the machine takes nothing more")
    }
}
