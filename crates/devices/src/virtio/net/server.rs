//! What serves a network device: it moves frames between the rings and the backend.

use super::carrier::Carrier;
use super::orders::Orders;
use super::port::{Port, outgoing};
use crate::virtio::Queue;
use crate::virtio::attendant::{Attend, Job};
use crate::virtio::chain::Broken;
use ::net::Backend;
use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// Receive queue and transmit queue (5.1.2).
const RX: usize = 0;
const TX: usize = 1;
/// Frames of the guest's that are taken before the backend has its turn.
const BATCH: usize = 64;

/// See the module.
pub(super) struct Server {
    backend: Box<dyn Backend>,
    carrier: Carrier,
    orders: Arc<Orders>,
    /// A frame on its way.
    buffer: Vec<u8>,
}

impl Server {
    /// One that has `backend` do what `orders` say.
    pub(super) fn new(backend: Box<dyn Backend>, carrier: Carrier, orders: Arc<Orders>) -> Self {
        Self { backend, carrier, orders, buffer: Vec::new() }
    }

    /// Takes a batch of the guest's frames. True if there may be more.
    fn take(&mut self, tx: Option<&Queue>, port: &mut Port<'_>) -> Result<bool, Broken> {
        let Some(tx) = tx else { return Ok(false) };
        for _ in 0..BATCH {
            let Some(chain) = tx.next()? else { return Ok(false) };
            if let Some((frame, offload)) = outgoing(tx.ram(), chain.readable, &mut self.buffer) {
                self.backend.transmit(frame, offload, port);
            }
            tx.complete(chain.head, 0)?;
        }
        Ok(true)
    }
}

impl Attend for Server {
    fn attend(&mut self, job: &Job) -> Result<bool, (usize, Broken)> {
        let queue = |number| job.queues.get(number).and_then(Option::as_ref);
        let (rx, tx) = (queue(RX), queue(TX));
        let in_rx = |why| (RX, why);
        let in_tx = |why| (TX, why);
        self.orders.obey(&mut *self.backend);
        rx.map_or(Ok(()), Queue::busy).map_err(in_rx)?;
        tx.map_or(Ok(()), Queue::busy).map_err(in_tx)?;
        let mut port = Port { queue: rx, features: job.features, full: false, broken: None };
        let mut more = self.take(tx, &mut port).map_err(in_tx)?;
        self.backend.work(&mut port);
        self.carrier.set(self.backend.link());
        if let Some(why) = port.broken.take() {
            return Err(in_rx(why));
        }
        if !more {
            more |= tx.map_or(Ok(false), Queue::rest).map_err(in_tx)?;
            let rx = rx.filter(|_| port.full);
            more |= rx.map_or(Ok(false), Queue::rest).map_err(in_rx)?;
        }
        Ok(more)
    }

    fn idle(&mut self) {
        self.orders.obey(&mut *self.backend);
    }

    fn stop(&mut self) {
        self.orders.leave(&*self.backend);
    }

    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        vec![(self.backend.descriptor(), PollFlags::IN)]
    }

    fn deadline(&self) -> Option<Instant> {
        self.backend.deadline()
    }
}
