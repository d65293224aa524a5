//! The network device (virtio 1.2, 5.1): a receive queue, a transmit queue, one thread, one
//! [`Backend`].
//!
//! Frames are as long as IP allows where the driver takes that (GUEST_TSO4, HOST_TSO4, and those of
//! IPv6), and their checksums are left out both ways: the cable is memory.

mod mac;
mod port;
pub(super) mod saved;
mod server;

pub use ::net::{Forward, Ipv6, Protocol, Switch, UserConfig, UserError, UserNet};
pub use mac::Mac;
pub use saved::NetState;

use self::server::Server;
use super::attendant::{Attendant, Job};
use super::saved::DeviceState;
use super::worker::Service;
use super::{Activation, ConfigSpace, VirtioDevice};
use crate::saved::{Check, RestoreError};
use ::net::Backend;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

/// Entries of each queue at the most.
const QUEUE_SIZE: u16 = 256;
/// Bytes of a packet without its Ethernet header.
const MTU: u16 = 1500;

const FEATURES: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_MTU
    | 1 << VIRTIO_NET_F_MAC
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_MRG_RXBUF
    | 1 << VIRTIO_NET_F_STATUS;

/// A network device.
pub struct Net {
    config: ConfigSpace,
    mac: Mac,
    attendant: Attendant,
    /// What is open is to be forgotten.
    reset: Arc<AtomicBool>,
}

impl Net {
    /// One with the address `mac`, its cable in `backend`, which has a thread unless `service` says
    /// otherwise: without one it is looked at only when the driver notifies.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn new(mac: Mac, backend: Box<dyn Backend>, service: Service) -> io::Result<Self> {
        let reset = Arc::<AtomicBool>::default();
        let server = Server::new(backend, Arc::clone(&reset));
        let attendant = Attendant::new("net".into(), server, service)?;
        Ok(Self { config: ConfigSpace::new(config(mac)), mac, attendant, reset })
    }
}

/// struct virtio_net_config (5.1.4) up to mtu: mac, status, max_virtqueue_pairs, mtu.
fn config(Mac(mac): Mac) -> [u8; 12] {
    let mut config = [0; 12];
    config[..6].copy_from_slice(&mac);
    config[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    config[8..10].copy_from_slice(&1_u16.to_le_bytes());
    config[10..].copy_from_slice(&MTU.to_le_bytes());
    config
}

impl VirtioDevice for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queues(&self) -> &[u16] {
        &[QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.config.read(offset, into);
    }

    fn config_generation(&self) -> u32 {
        self.config.generation()
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
        self.reset.store(true, Ordering::SeqCst);
        self.attendant.ring();
    }

    fn save(&self) -> DeviceState {
        let Self { config: _, mac, attendant: _, reset: _ } = self;
        DeviceState::Net(NetState { version: NetState::VERSION, mac: *mac })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let &DeviceState::Net(NetState { version, mac }) = state else {
            return Err(RestoreError::Kind { device: "network" });
        };
        let check = Check::version("network", version, NetState::VERSION)?;
        let (found, own) = (format_args!("{mac:?}"), format_args!("{:?}", self.mac));
        check.that(mac == self.mac, "mac", found, own)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("mac", &self.mac).finish_non_exhaustive()
    }
}
