//! Does what the sender of a frame has left undone: its checksum, its segmentation.

use crate::{ETHERNET_HEADER, Offload};
use smoltcp::wire::checksum;

/// Bytes of a VLAN tag (IEEE 802.1Q).
const VLAN_TAG: usize = 4;
const VLAN: [u8; 2] = [0x81, 0x00];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Bytes of the headers without options.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// Where TCP's checksum is, from its header on.
const TCP_CHECKSUM: u16 = 16;
const TCP: u8 = 6;
/// TCP's flags (RFC 9293, 3.1) that only the last segment has, and only the first.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
/// The least payload of a segment: a guest cannot have a frame cut into tens of thousands.
const SEGMENT_MIN: usize = 64;

/// Calls `each` with the frames that `frame` stands for, where `offload` is what its sender has
/// left undone; `whole` is a buffer to use. Nonsense stands for none.
pub(crate) fn carry_out(
    frame: &[u8],
    offload: Offload,
    whole: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) {
    let Offload { checksum, segment } = offload;
    match (checksum, segment) {
        (None, _) => each(frame),
        (Some(place), None) => {
            whole.clear();
            whole.extend_from_slice(frame);
            if sum_up(whole, place).is_some() {
                each(whole);
            }
        }
        (Some((start, offset)), Some(size)) => {
            let long = Long::parse(frame, start.into()).filter(|_| offset == TCP_CHECKSUM);
            if let Some(long) = long {
                long.cut(usize::from(size).max(SEGMENT_MIN), whole, each);
            }
        }
    }
}

/// Whether `frame` is an IPv6 packet's, in a VLAN or not.
pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    ip(frame).is_some_and(|(kind, _)| kind == IPV6)
}

/// The EtherType of a frame, and where its packet begins.
fn ip(frame: &[u8]) -> Option<([u8; 2], usize)> {
    let kind = |at: usize| Some([*frame.get(at)?, *frame.get(at + 1)?]);
    match kind(ETHERNET_HEADER - 2)? {
        VLAN => Some((kind(ETHERNET_HEADER + VLAN_TAG - 2)?, ETHERNET_HEADER + VLAN_TAG)),
        other => Some((other, ETHERNET_HEADER)),
    }
}

/// Completes the checksum that covers `frame` from the first of `place` on, and is at the second
/// from there. `None`: it would be outside.
fn sum_up(frame: &mut [u8], (start, offset): (u16, u16)) -> Option<()> {
    let covered = frame.get_mut(usize::from(start)..)?;
    let sum = match !checksum::data(covered) {
        0 => 0xffff, // 0 means none in UDP, and the same elsewhere
        sum => sum,
    };
    let field = covered.get_mut(usize::from(offset)..usize::from(offset) + 2)?;
    field.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// A TCP segment that is longer than any on a cable.
struct Long<'a> {
    frame: &'a [u8],
    /// Where its packet, its TCP header and its payload begin.
    ip: usize,
    tcp: usize,
    payload: usize,
    is_ipv6: bool,
}

impl<'a> Long<'a> {
    fn parse(frame: &'a [u8], tcp: usize) -> Option<Self> {
        let (kind, ip) = ip(frame)?;
        let payload = tcp + 4 * usize::from(frame.get(tcp + 12)? >> 4);
        if payload > frame.len() || payload < tcp + TCP_HEADER {
            return None;
        }
        match kind {
            IPV4 => {
                let header = 4 * usize::from(frame.get(ip)? & 15);
                let good = header >= IPV4_HEADER && ip + header == tcp;
                good.then_some(Self { frame, ip, tcp, payload, is_ipv6: false })
            }
            IPV6 => {
                let good = ip + IPV6_HEADER <= tcp;
                good.then_some(Self { frame, ip, tcp, payload, is_ipv6: true })
            }
            _ => None,
        }
    }

    /// Calls `each` with segments of `size` bytes of payload.
    fn cut(&self, size: usize, segment: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
        let (headers, payload) = self.frame.split_at(self.payload);
        let count = payload.len().div_ceil(size).max(1);
        for number in 0..count {
            let from = number * size;
            segment.clear();
            segment.extend_from_slice(headers);
            segment.extend_from_slice(&payload[from..payload.len().min(from + size)]);
            self.finish(segment, from, (number, count));
            each(segment);
        }
    }

    /// Makes `segment` one of its own, whose payload begins `from` bytes in, and which is the first
    /// of `place` among as many as the second.
    fn finish(&self, segment: &mut [u8], from: usize, (number, count): (usize, usize)) {
        let end = segment.len();
        let (_, packet) = segment.split_at_mut(self.ip);
        let (header, tcp) = packet.split_at_mut(self.tcp - self.ip);
        let len = (end - self.tcp) as u16;
        let addresses = if self.is_ipv6 {
            let rest = (end - self.ip - IPV6_HEADER) as u16;
            header[4..6].copy_from_slice(&rest.to_be_bytes());
            checksum::data(&header[8..40])
        } else {
            let total = (end - self.ip) as u16;
            let ident = u16::from_be_bytes([header[4], header[5]]).wrapping_add(number as u16);
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[4..6].copy_from_slice(&ident.to_be_bytes());
            header[10..12].fill(0);
            let sum = !checksum::data(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            checksum::data(&header[12..20])
        };
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        tcp[4..8].copy_from_slice(&sequence.wrapping_add(from as u32).to_be_bytes());
        if number + 1 < count {
            tcp[13] &= !FIN_PSH;
        }
        if number > 0 {
            tcp[13] &= !CWR;
        }
        tcp[16..18].fill(0);
        let pseudo = [addresses, checksum::data(&[0, TCP]), checksum::data(&len.to_be_bytes())];
        let sum = checksum::combine(&[checksum::combine(&pseudo), checksum::data(tcp)]);
        tcp[16..18].copy_from_slice(&(!sum).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{Ipv4Packet, TcpPacket};

    /// A frame with `len` bytes of TCP payload, its checksum that of the pseudo header.
    fn long(len: usize) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 32 + len];
        frame[12..14].copy_from_slice(&IPV4);
        let total = (frame.len() - 14) as u16;
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len(total);
        ip.set_ident(0xffff);
        ip.set_next_header(smoltcp::wire::IpProtocol::Tcp);
        ip.set_src_addr([10, 1, 0, 1].into());
        ip.set_dst_addr([10, 1, 0, 2].into());
        ip.fill_checksum();
        let mut tcp = TcpPacket::new_unchecked(&mut frame[34..]);
        tcp.set_header_len(32);
        tcp.set_seq_number(smoltcp::wire::TcpSeqNumber(-100));
        tcp.set_fin(true);
        tcp.set_psh(true);
        tcp.set_ack(true);
        frame[34 + 13] |= CWR;
        (0..len).for_each(|i| frame[66 + i] = (i % 251) as u8);
        frame
    }

    const TCP_AT_34: Option<(u16, u16)> = Some((34, TCP_CHECKSUM));

    #[test]
    fn segments_are_right_and_whole() {
        let frame = long(3000);
        let offload = Offload { checksum: TCP_AT_34, segment: Some(1400) };
        let (mut payload, mut flags, mut number) = (Vec::new(), Vec::new(), 0);
        carry_out(&frame, offload, &mut Vec::new(), |segment| {
            let ip = Ipv4Packet::new_checked(&segment[14..]).expect("IPv4");
            assert!(ip.verify_checksum());
            assert_eq!(ip.ident(), 0xffff_u16.wrapping_add(number));
            assert_eq!(usize::from(ip.total_len()), segment.len() - 14);
            let tcp = TcpPacket::new_checked(ip.payload()).expect("TCP");
            assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
            assert_eq!(tcp.seq_number().0, -100 + payload.len() as i32);
            flags.push(segment[34 + 13]);
            payload.extend_from_slice(tcp.payload());
            number += 1;
        });
        assert_eq!(payload, &frame[66..]);
        assert_eq!(flags, [0x90, 0x10, 0x19]);
    }

    /// The pseudo header of IPv6 (RFC 8200, 8.1), summed byte by byte.
    #[test]
    fn segments_of_ipv6_are_right() {
        let mut frame = vec![0; 14 + 40 + 20 + 100];
        frame[12..14].copy_from_slice(&IPV6);
        frame[14] = 0x60;
        frame[20] = TCP;
        (0..32).for_each(|i| frame[22 + i] = 7 * i as u8);
        frame[54 + 12] = 5 << 4;
        (0..100).for_each(|i| frame[74 + i] = i as u8);
        let offload = Offload { checksum: Some((54, TCP_CHECKSUM)), segment: Some(70) };
        let mut lens = Vec::new();
        carry_out(&frame, offload, &mut Vec::new(), |segment| {
            let len = segment.len() - 54;
            assert_eq!(segment[18..20], (len as u16).to_be_bytes());
            let pseudo = [&segment[22..54], &[0, 0, 0, len as u8, 0, 0, 0, TCP], &segment[54..]];
            assert_eq!(checksum::data(&pseudo.concat()), 0xffff);
            lens.push(len - 20);
        });
        assert_eq!(lens, [70, 30]);
    }

    #[test]
    fn a_sum_is_completed_where_it_is() {
        let mut frame = vec![3; 60];
        frame[50..52].fill(0);
        let offload = Offload { checksum: Some((34, 16)), segment: None };
        let mut sums = 0;
        carry_out(&frame, offload, &mut Vec::new(), |whole| {
            assert_eq!(checksum::data(&whole[34..]), 0xffff);
            sums += 1;
        });
        carry_out(&frame, Offload::default(), &mut Vec::new(), |same| assert_eq!(same, frame));
        let outside = Offload { checksum: Some((34, 25)), segment: None };
        carry_out(&frame, outside, &mut Vec::new(), |_| unreachable!("nonsense"));
        assert_eq!(sums, 1);
    }

    proptest! {
        #[test]
        fn no_frame_does_harm(
            mut frame in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0..3_usize,
            places in any::<(u16, u16, u16, u8)>(),
        ) {
            let (start, offset, size, small) = places;
            if frame.len() > 20 {
                frame[12..14].copy_from_slice(&[IPV4, IPV6, VLAN][kind]);
                frame[16..18].copy_from_slice(&IPV4);
            }
            let start = if small & 1 == 0 { start } else { start % 80 };
            let offset = if small & 2 == 0 { offset } else { TCP_CHECKSUM };
            let size = (small & 4 == 0).then_some(size);
            let offload = Offload { checksum: Some((start, offset)), segment: size };
            let mut bytes = 0;
            carry_out(&frame, offload, &mut Vec::new(), |one| bytes += one.len());
            prop_assert!(bytes <= 5 * frame.len());
        }
    }
}
