//! Frames on their way to the guest.

use crate::offload::{carry_out, is_ipv6};
use crate::{Delivery, Frame, Guest, Offload};
use std::collections::VecDeque;

/// What the guest had no room for. Who fills it stops while something waits.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    waiting: VecDeque<(Vec<u8>, Offload)>,
    whole: Vec<u8>,
}

impl Inbound {
    /// Gives what waits. False: some still does.
    pub(crate) fn flush(&mut self, guest: &mut dyn Guest) -> bool {
        while let Some((bytes, offload)) = self.waiting.front() {
            if guest.deliver(&frame(bytes, *offload)) == Delivery::Full {
                return false;
            }
            self.waiting.pop_front();
        }
        true
    }

    /// Gives a frame, or has it wait. What of `offload` is beyond the guest is done here.
    pub(crate) fn give(&mut self, bytes: &[u8], offload: Offload, guest: &mut dyn Guest) {
        let able = guest.abilities();
        let sums = offload.checksum.is_none() || able.checksum;
        let cuts = if is_ipv6(bytes) { able.segmentation_v6 } else { able.segmentation };
        let long = offload.segment.is_none() || cuts;
        let Self { waiting, whole } = self;
        let mut one = |bytes: &[u8], offload| {
            let full =
                !waiting.is_empty() || guest.deliver(&frame(bytes, offload)) == Delivery::Full;
            if full {
                waiting.push_back((bytes.to_vec(), offload));
            }
        };
        if sums && long {
            one(bytes, offload);
        } else {
            carry_out(bytes, offload, whole, |bytes| one(bytes, Offload::default()));
        }
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

fn frame(bytes: &[u8], offload: Offload) -> Frame<'_> {
    Frame { parts: [bytes, &[], &[]], offload }
}
