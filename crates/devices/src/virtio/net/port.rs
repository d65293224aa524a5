//! Frames in the rings: each begins with a `struct virtio_net_hdr` (virtio 1.2, 5.1.6).

use crate::virtio::Queue;
use crate::virtio::chain::{Broken, Chain, Head, NotRam, Segments};
use ::net::{Abilities, Delivery, FRAME_MAX, Frame, Guest, Offload};
use memory::GuestRam;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Bytes of the header, num_buffers included.
pub(super) const HEADER: usize = 12;

/// The receive queue, as a backend fills it.
pub(super) struct Port<'a> {
    /// Without one nothing is ever taken: it is lost.
    pub(super) queue: Option<&'a Queue>,
    pub(super) features: u64,
    /// A frame found no room since this was last cleared.
    pub(super) full: bool,
    /// The driver's ring makes no sense.
    pub(super) broken: Option<Broken>,
}

impl Port<'_> {
    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 != 0
    }

    /// Writes `frame` into as many buffers as it needs, with MRG_RXBUF, or into one.
    fn write(&mut self, queue: &Queue, frame: &Frame<'_>) -> Result<Delivery, Broken> {
        let most = if self.has(VIRTIO_NET_F_MRG_RXBUF) { usize::MAX } else { 1 };
        let wanted = (HEADER + frame.size()) as u64;
        let (mut chains, mut room) = (Vec::new(), 0);
        while room < wanted && chains.len() < most {
            let Some(chain) = queue.next()? else {
                put_back(queue, chains);
                return Ok(Delivery::Full);
            };
            room += chain.writable.len();
            chains.push(chain);
        }
        if room < wanted || chains.len() > usize::from(u16::MAX) {
            // One buffer, and too short: nothing can be told but an empty one (5.1.6.3.1).
            let used = chains.into_iter().map(|chain| (chain.head, 0)).collect();
            return queue.complete_all(used).map(|()| Delivery::Taken);
        }
        let header = header(frame, chains.len() as u16);
        let pieces = [&header[..], frame.parts[0], frame.parts[1], frame.parts[2]];
        let used = fill(queue.ram(), chains, pieces);
        queue.complete_all(used)?;
        Ok(Delivery::Taken)
    }
}

impl Guest for Port<'_> {
    fn abilities(&self) -> Abilities {
        let checksum = self.has(VIRTIO_NET_F_GUEST_CSUM);
        Abilities {
            checksum,
            segmentation: checksum && self.has(VIRTIO_NET_F_GUEST_TSO4),
            segmentation_v6: checksum && self.has(VIRTIO_NET_F_GUEST_TSO6),
        }
    }

    fn deliver(&mut self, frame: &Frame<'_>) -> Delivery {
        let Some(queue) = self.queue.filter(|_| self.broken.is_none()) else {
            return Delivery::Taken;
        };
        match self.write(queue, frame) {
            Ok(delivery) => {
                self.full |= delivery == Delivery::Full;
                delivery
            }
            Err(why) => {
                self.broken = Some(why);
                Delivery::Taken
            }
        }
    }
}

fn put_back(queue: &Queue, chains: Vec<Chain>) {
    queue.put_back(chains.into_iter().map(|chain| (chain.head, 0)).collect());
}

fn header(frame: &Frame<'_>, buffers: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[1] = VIRTIO_NET_HDR_GSO_NONE as u8;
    if let Some((start, offset)) = frame.offload.checksum {
        header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    }
    if let Some(segment) = frame.offload.segment {
        let (v4, v6) = (VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6);
        header[1] = if frame.is_ipv6() { v6 } else { v4 } as u8;
        header[2..4].copy_from_slice(&(frame.parts[0].len() as u16).to_le_bytes());
        header[4..6].copy_from_slice(&segment.to_le_bytes());
    }
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

/// Writes `pieces` one after the other into the chains, which have room for all; how much is in
/// each. Where a buffer is no RAM, its bytes are lost.
fn fill(ram: &GuestRam, chains: Vec<Chain>, pieces: [&[u8]; 4]) -> Vec<(Head, u32)> {
    let mut pieces = pieces.into_iter();
    let mut piece: &[u8] = pieces.next().unwrap_or_default();
    let mut used = Vec::with_capacity(chains.len());
    for Chain { head, writable: mut room, .. } in chains {
        let mut written = 0;
        while !room.is_empty() {
            if piece.is_empty() {
                let Some(next) = pieces.next() else { break };
                piece = next;
                continue;
            }
            let count = room.len().min(piece.len() as u64);
            let rest = room.split_off(count);
            let (now, later) = piece.split_at(count as usize);
            let _: Result<(), NotRam> = room.write(ram, now);
            (room, piece) = (rest, later);
            written += count as u32;
        }
        used.push((head, written));
    }
    used
}

/// The frame that the driver has put into `readable`, and what it leaves to the device. `None`: it
/// is none.
pub(super) fn outgoing<'a>(
    ram: &GuestRam,
    mut readable: Segments,
    buffer: &'a mut Vec<u8>,
) -> Option<(&'a [u8], Offload)> {
    let frame = readable.split_off(HEADER as u64);
    let len = usize::try_from(frame.len()).ok().filter(|len| *len <= FRAME_MAX)?;
    let mut header = [0; HEADER];
    if readable.len() < HEADER as u64 {
        return None;
    }
    readable.read(ram, &mut header).ok()?;
    buffer.resize(len.max(buffer.len()), 0);
    frame.read(ram, &mut buffer[..len]).ok()?;
    Some((&buffer[..len], offload(&header)))
}

fn offload(header: &[u8; HEADER]) -> Offload {
    let word = |at| u16::from_le_bytes([header[at], header[at + 1]]);
    let partial = u32::from(header[0]) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    let kind = u32::from(header[1]) & !VIRTIO_NET_HDR_GSO_ECN;
    let long = [VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6].contains(&kind);
    Offload {
        checksum: partial.then(|| (word(6), word(8))),
        segment: (partial && long).then(|| word(4)),
    }
}
