//! The way in for streams of this process's, without a socket's file.

use super::connection::VsockPort;
use super::server::Shared;
use super::table::CONNECTIONS;
use crate::virtio::attendant::Bell;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use sync::lock;

/// Has streams become connections to ports of the guest's. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Entrance {
    shared: Arc<Shared>,
    bell: Bell,
}

impl Entrance {
    pub(super) fn new(shared: Arc<Shared>, bell: Bell) -> Self {
        Self { shared, bell }
    }

    /// Connects `stream` to `port`. As with a socket's file, `OK` and a line's end are the first
    /// that it carries, and it is closed if the guest refuses. While the guest has no driver that
    /// runs, it waits.
    ///
    /// # Errors
    /// The host refuses, or too many wait.
    pub fn connect(&self, stream: UnixStream, port: VsockPort) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut arrivals = lock(&self.shared.arrivals);
        if arrivals.len() >= CONNECTIONS {
            return Err(io::Error::other("too many programs wait for the guest's driver"));
        }
        arrivals.push_back((stream, port));
        drop(arrivals);
        self.bell.ring();
        Ok(())
    }
}
