//! The socket device (virtio 1.2, 5.10): streams between programs in the guest and on the host.
//!
//! ```text
//! program ──► PATH, "CONNECT port\n" ──► the guest's port          (answer: "OK port\n")
//! guest's program ──► port P of CID 2 ──► PATH_P, where a program of the host's listens
//! ```
//! That is Firecracker's convention. Streams of this process's come by an [`Entrance`], with or
//! without such a PATH. Each side has as much on its way as the other has room for, so nothing is
//! dropped and nothing grows.
//! One thread serves all connections. A restored guest is told that its connections have ended.

mod connection;
mod entrance;
mod greeting;
mod packet;
mod place;
pub(super) mod saved;
mod server;
mod table;

pub use connection::VsockPort;
pub use entrance::Entrance;
pub use place::{Place, SocketFile, VsockError};
pub use saved::VsockState;

use self::server::{Server, Shared};
use self::table::Table;
use super::attendant::{Attendant, Job};
use super::saved::DeviceState;
use super::worker::Service;
use super::{Activation, VirtioDevice};
use crate::saved::{Check, RestoreError};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// Entries of each queue at the most.
const QUEUE_SIZE: u16 = 256;

/// A guest's sockets.
#[derive(Debug)]
pub struct Vsock {
    cid: u32,
    shared: Arc<Shared>,
    attendant: Attendant,
    /// Its file goes with it.
    _place: Option<Place>,
}

impl Vsock {
    /// Of the guest `cid`, at `place` if it has one.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn new(cid: u32, place: Option<Place>) -> io::Result<Self> {
        Self::with(cid, place, Service::Thread)
    }

    /// The same without a thread, for tests: whoever notifies serves.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn at_once(cid: u32, place: Option<Place>) -> io::Result<Self> {
        Self::with(cid, place, Service::AtOnce)
    }

    fn with(cid: u32, place: Option<Place>, service: Service) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let path = place.as_ref().map(|place| place.path().to_owned());
        let listener = place.as_ref().map(Place::listener).transpose()?;
        let server = Server::new(listener, Table::new(cid.into(), path), Arc::clone(&shared));
        let attendant = Attendant::new("vsock".into(), server, service)?;
        Ok(Self { cid, shared, attendant, _place: place })
    }

    /// The way in for streams of this process's.
    pub fn entrance(&self) -> Entrance {
        Entrance::new(Arc::clone(&self.shared), self.attendant.bell())
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE; 3]
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        let cid = u64::from(self.cid).to_le_bytes();
        into.fill(0);
        into.iter_mut().zip(cid.iter().skip(offset)).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq: _, ram: _ } = activation;
        self.attendant.start(Job { queues, features });
    }

    fn notify(&mut self, _queue: usize) {
        self.attendant.ring();
    }

    fn quiesce(&mut self) {
        self.attendant.stop();
    }

    fn reset(&mut self) {
        self.shared.untold.store(false, Ordering::SeqCst);
        self.shared.forget.store(true, Ordering::SeqCst);
        self.attendant.ring();
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(VsockState { version: VsockState::VERSION, cid: self.cid })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let &DeviceState::Vsock(VsockState { version, cid }) = state else {
            return Err(RestoreError::Kind { device: "socket device" });
        };
        let check = Check::version("socket device", version, VsockState::VERSION)?;
        check.that(cid == self.cid, "cid", cid, self.cid)?;
        self.shared.forget.store(true, Ordering::SeqCst);
        self.shared.untold.store(true, Ordering::SeqCst);
        Ok(())
    }
}
