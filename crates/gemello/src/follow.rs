//! Shared folders whose guest hears of what changes on the host: a thread for each, which carries
//! paths from the folder's follower to the agent. Only then may the guest go for longer than a
//! second by what it knows (docs/adr/0060-shared-folders-followed.md).
//!
//! It begins once the guest knows so many files that it matters: the agent's service costs a guest
//! that wants nothing else of it some tens of milliseconds.

use crate::hosted::Hosted;
use agent_job::{AGENT_PORT, FromAgent, PIECE, Request, ToAgent};
use anyhow::{Context as _, Result, bail};
use machine::{Follower, ShareCache, SharedFolder, VsockPort};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Files that a guest may know before that.
const FILES: u64 = 256;
/// How often that is looked at; between two tries to reach the agent.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long events are gathered.
const TOGETHER: Duration = Duration::from_millis(30);

/// Has the guest of `machine` hear of changes, if its agent can tell it.
pub(crate) fn begin(machine: &Arc<Hosted>) {
    if !machine.side.kind().has_our_init() || machine.handle.entrance().is_err() {
        return;
    }
    for SharedFolder { tag, share } in machine.handle.shares() {
        if share.options().cache == ShareCache::Auto {
            let machine = Arc::clone(machine);
            let work = move || follow(&machine, &SharedFolder { tag, share });
            // Without the thread the guest asks more often.
            let _ = thread::Builder::new().name("follow".into()).spawn(work);
        }
    }
}

/// Until the machine ends.
fn follow(machine: &Hosted, folder: &SharedFolder) {
    let mut pause = AGAIN;
    while machine.wait(pause).is_none() {
        if folder.share.stats().known < FILES {
            continue;
        }
        pause = match carry(machine, folder) {
            Ok(()) => AGAIN,
            Err(error) => {
                let tag = &folder.tag;
                tracing::debug!(target: "virtio", "changes in {tag} are not told: {error:#}");
                PATIENCE.min(2 * pause)
            }
        };
    }
}

/// Until the connection to the agent ends.
fn carry(machine: &Hosted, SharedFolder { tag, share }: &SharedFolder) -> Result<()> {
    let (mut agent, theirs) = UnixStream::pair().context("no connection")?;
    machine.side.serve();
    machine.handle.entrance()?.connect(theirs, VsockPort(AGENT_PORT))?;
    agent.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(agent.try_clone()?);
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        bail!("the agent does not listen yet");
    }
    ToAgent::Request(Request::Follow(tag.clone())).write(&mut agent)?;
    match FromAgent::read(&mut reader)? {
        Some(FromAgent::Ended(0)) => {}
        Some(FromAgent::Failed(why)) => bail!("{why}"),
        _ => bail!("the agent does not do that"),
    }
    let mut follower = Follower::new(Arc::clone(share))?;
    loop {
        for piece in pieces(follower.changes()) {
            ToAgent::Input(piece).write(&mut agent)?;
        }
        if !wait(&follower, &agent)? {
            return Ok(());
        }
        thread::sleep(TOGETHER);
    }
}

/// Waits for changes. False: the agent has gone.
fn wait(follower: &Follower, agent: &UnixStream) -> Result<bool> {
    let mut both = [PollFd::new(follower, PollFlags::IN), PollFd::new(agent, PollFlags::IN)];
    match poll(&mut both, None).map_err(std::io::Error::from) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error).context("cannot wait"),
        Ok(_) => Ok(both[1].revents().is_empty()), // the agent says nothing any more
    }
}

/// Paths with a NUL after each, as many together as can be said at once.
fn pieces(paths: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::<Vec<u8>>::new();
    for path in paths {
        match pieces.last_mut().filter(|piece| piece.len() + path.len() < PIECE) {
            Some(piece) => piece.extend(path),
            None => pieces.push(path),
        }
        pieces.last_mut().iter_mut().for_each(|piece| piece.push(0));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_together_as_far_as_they_fit() {
        let paths = [vec![], b"a".to_vec(), vec![b'x'; PIECE - 10], vec![b'y'; 20]];
        let pieces = pieces(paths.clone());
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PIECE));
        let whole = pieces.concat();
        let told: Vec<_> = whole[..whole.len() - 1].split(|&byte| byte == 0).collect();
        assert_eq!(told, paths);
    }
}
