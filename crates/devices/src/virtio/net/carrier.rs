//! The configuration space, in which the driver finds whether the cable leads anywhere.

use super::mac::Mac;
use crate::virtio::{ConfigSpace, VirtioIrq};
use ::net::Link;
use std::sync::{Arc, Mutex};
use sync::lock;
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

/// Bytes of a packet without its Ethernet header.
const MTU: u16 = 1500;
/// Where the field status is.
const STATUS: std::ops::Range<usize> = 6..8;

/// See the module. Clones share it. The lock is held for moments only.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub(super) config: ConfigSpace,
    irq: Arc<Mutex<Option<Arc<dyn VirtioIrq>>>>,
}

impl Carrier {
    /// Of a device with the address `mac` whose cable is as `link` says.
    pub(super) fn new(Mac(mac): Mac, link: Link) -> Self {
        // struct virtio_net_config (5.1.4) up to mtu: mac, status, max_virtqueue_pairs, mtu.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&mac);
        config[STATUS].copy_from_slice(&status(link));
        config[8..10].copy_from_slice(&1_u16.to_le_bytes());
        config[10..].copy_from_slice(&MTU.to_le_bytes());
        Self { config: ConfigSpace::new(config), irq: Arc::default() }
    }

    /// The driver hears of changes by `irq`, or not at all.
    pub(super) fn tell(&self, irq: Option<Arc<dyn VirtioIrq>>) {
        *lock(&self.irq) = irq;
    }

    /// What the driver finds.
    pub(super) fn link(&self) -> Link {
        let mut found = [0; 2];
        self.config.read(STATUS.start, &mut found);
        if found == status(Link::Up) { Link::Up } else { Link::Down }
    }

    /// Has the driver find `link`, and tells it of the change if it is one.
    pub(super) fn set(&self, link: Link) {
        if self.link() == link {
            return;
        }
        self.config.update(|config| config[STATUS].copy_from_slice(&status(link)));
        let irq = lock(&self.irq).clone();
        irq.inspect(|irq| irq.config());
    }
}

fn status(link: Link) -> [u8; 2] {
    let status = if link == Link::Up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
    status.to_le_bytes()
}
