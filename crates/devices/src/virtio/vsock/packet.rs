//! A packet's header (virtio 1.2, 5.10.6).

/// Bytes of a header.
pub(super) const HEADER: usize = 44;
/// The host's context ID.
pub(super) const HOST_CID: u64 = 2;
/// The type of a stream's packets.
pub(super) const STREAM: u16 = 1;

// Operations.
pub(super) const REQUEST: u16 = 1;
pub(super) const RESPONSE: u16 = 2;
pub(super) const RST: u16 = 3;
pub(super) const SHUTDOWN: u16 = 4;
pub(super) const RW: u16 = 5;
pub(super) const CREDIT_UPDATE: u16 = 6;
pub(super) const CREDIT_REQUEST: u16 = 7;

/// Of SHUTDOWN: the sender receives no more.
pub(super) const SHUT_RECEIVE: u32 = 1;
/// It sends no more.
pub(super) const SHUT_SEND: u32 = 2;
/// Both.
pub(super) const SHUT_BOTH: u32 = SHUT_RECEIVE | SHUT_SEND;

/// struct virtio_vsock_hdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// The header that `bytes` are.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: word(28) as u16,
            op: (word(28) >> 16) as u16,
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let Self { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, .. } = *self;
        let Self { buf_alloc, fwd_cnt, .. } = *self;
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&dst_cid.to_le_bytes());
        let words = [
            src_port,
            dst_port,
            len,
            u32::from(kind) | u32::from(op) << 16,
            flags,
            buf_alloc,
            fwd_cnt,
        ];
        for (place, word) in bytes[16..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let bytes: [u8; HEADER] = std::array::from_fn(|i| i as u8 + 1);
        let header = Header::parse(&bytes);
        assert_eq!(header.bytes(), bytes);
        assert_eq!((header.src_port, header.kind, header.op), (0x1413_1211, 0x1E1D, 0x201F));
    }
}
