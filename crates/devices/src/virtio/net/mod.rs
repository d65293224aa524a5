//! The network device (virtio 1.2, 5.1): a receive queue, a transmit queue, one thread, one
//! [`Backend`].
//!
//! Frames are as long as IP allows where the driver takes that (GUEST_TSO4, HOST_TSO4, and those of
//! IPv6), and their checksums are left out both ways: the cable is memory.

mod carrier;
mod mac;
mod orders;
mod port;
pub(super) mod saved;
mod server;

pub use ::net::{
    Activity, Cable, CableError, Flows, Forward, Ipv6, Link, NetStats, Plugged, Protocol, Sink,
    Switch, Traffic, UserConfig, Watch,
};
pub use mac::{Mac, NoMac};
pub use saved::NetState;

use self::carrier::Carrier;
use self::orders::Orders;
use self::server::Server;
use super::attendant::{Attendant, Job};
use super::saved::DeviceState;
use super::worker::Service;
use super::{Activation, VirtioDevice};
use crate::saved::RestoreError;
use ::net::Backend;
use std::sync::Arc;
use std::{fmt, io};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

/// Entries of each queue at the most.
const QUEUE_SIZE: u16 = 256;

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
    carrier: Carrier,
    mac: Mac,
    attendant: Attendant,
    orders: Arc<Orders>,
}

impl Net {
    /// One with the address `mac`, its cable in `backend`, which has a thread unless `service` says
    /// otherwise: without one it is looked at only when the driver notifies.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn new(mac: Mac, backend: Box<dyn Backend>, service: Service) -> io::Result<Self> {
        let orders = Arc::<Orders>::default();
        let carrier = Carrier::new(mac, backend.link());
        let server = Server::new(backend, carrier.clone(), Arc::clone(&orders));
        let attendant = Attendant::new("net".into(), server, service)?;
        Ok(Self { carrier, mac, attendant, orders })
    }
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
        self.carrier.config.read(offset, into);
    }

    fn config_generation(&self) -> u32 {
        self.carrier.config.generation()
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { features, queues, irq, ram: _ } = activation;
        self.carrier.tell(Some(irq));
        self.attendant.start(Job { queues, features });
    }

    fn notify(&mut self, _queue: usize) {
        self.attendant.ring();
    }

    fn quiesce(&mut self) {
        self.attendant.stop();
        self.carrier.tell(None);
    }

    fn reset(&mut self) {
        self.orders.reset();
        self.attendant.ring();
    }

    fn save(&self) -> DeviceState {
        let Self { carrier, mac, attendant: _, orders } = self;
        let (link, backend) = (carrier.link(), orders.saved());
        DeviceState::Net(NetState { version: NetState::VERSION, mac: *mac, link, backend })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Net(state) = state else {
            return Err(RestoreError::Kind { device: "network" });
        };
        let check = state.check()?;
        let &NetState { version: _, mac, link, ref backend } = state;
        let (found, own) = (format_args!("{mac:?}"), format_args!("{:?}", self.mac));
        check.that(mac == self.mac, "mac", found, own)?;
        // As the driver knows it. If it has changed since, the driver is told when it goes on.
        self.carrier.set(link);
        self.orders.restore(backend.clone());
        Ok(())
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("mac", &self.mac).finish_non_exhaustive()
    }
}
