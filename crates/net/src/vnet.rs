//! `struct virtio_net_hdr_v1` before a frame (virtio 1.2, 5.1.6), as TAP devices and our switches
//! have it.

use crate::Offload;
use crate::offload::is_ipv6;

/// Bytes of it.
pub(crate) const HEADER: usize = 12;
/// Flag: the checksum covers the pseudo header alone.
const NEEDS_CSUM: u8 = 1;
/// Kinds of long frames, and a bit beside: congestion has been told of (RFC 3168).
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl Header {
    /// That of `frame`, of which `offload` is undone.
    pub(crate) fn of(frame: &[u8], offload: Offload) -> Self {
        let Offload { checksum, segment } = offload;
        let (csum_start, csum_offset) = checksum.unwrap_or_default();
        let kind = if is_ipv6(frame) { GSO_TCPV6 } else { GSO_TCPV4 };
        let words = frame.get(usize::from(csum_start) + 12).map(|byte| u16::from(byte >> 4));
        Self {
            flags: if checksum.is_some() { NEEDS_CSUM } else { 0 },
            gso_type: if segment.is_some() { kind } else { GSO_NONE },
            hdr_len: csum_start.saturating_add(4 * words.unwrap_or_default()),
            gso_size: segment.unwrap_or_default(),
            csum_start,
            csum_offset,
        }
    }

    /// What the sender has left undone.
    pub(crate) fn offload(self) -> Offload {
        let partial = self.flags & NEEDS_CSUM != 0;
        let long = [GSO_TCPV4, GSO_TCPV6].contains(&(self.gso_type & !GSO_ECN));
        Offload {
            checksum: partial.then_some((self.csum_start, self.csum_offset)),
            segment: (partial && long).then_some(self.gso_size),
        }
    }

    /// As it stands before the frame.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = self;
        let [[a, b], [c, d], [e, f], [g, h]] =
            [hdr_len, gso_size, csum_start, csum_offset].map(u16::to_le_bytes);
        [flags, gso_type, a, b, c, d, e, f, g, h, 0, 0]
    }

    /// From before a frame.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h, _, _] = *bytes;
        let [hdr_len, gso_size, csum_start, csum_offset] =
            [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes);
        Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_read_back() {
        let mut frame = [0; 60];
        frame[46] = 8 << 4;
        for (checksum, segment) in
            [(None, None), (Some((34, 16)), None), (Some((34, 16)), Some(1460))]
        {
            let offload = Offload { checksum, segment };
            let bytes = Header::of(&frame, offload).to_bytes();
            assert_eq!(Header::from_bytes(&bytes).offload(), offload);
        }
        let long = Offload { checksum: Some((34, 16)), segment: Some(1460) };
        let bytes = Header::of(&frame, long).to_bytes();
        assert_eq!(bytes, [1, 1, 66, 0, 0xB4, 5, 34, 0, 16, 0, 0, 0]);
    }
}
