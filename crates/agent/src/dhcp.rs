//! A lease by DHCP (RFC 2131, options of RFC 2132): DISCOVER, OFFER, REQUEST, ACK. It is asked for
//! once, and not renewed: a guest of gemello's lives shorter than a lease.

use anyhow::{Context as _, Result, bail};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// How often it asks, and how long it waits for an answer.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

/// What marks options, after the fields of BOOTP.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes before it.
const FIELDS: usize = 236;
/// The server answers to all: nobody has the address yet.
const BROADCAST: [u8; 2] = [0x80, 0];

/// Options.
mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVER: u8 = 6;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const END: u8 = 255;
}

/// Kinds of messages.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) resolvers: Vec<Ipv4Addr>,
    kind: u8,
    server: Option<Ipv4Addr>,
}

/// Asks for the device with this hardware address, whose default route leads to the server.
pub(crate) fn ask(hardware: &str) -> Result<Lease> {
    let hardware = octets(hardware).context("the device has no Ethernet address")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).context("cannot have port 68")?;
    socket.set_broadcast(true).context("cannot broadcast")?;
    for _ in 0..TRIES {
        let Some(offer) = exchange(&socket, hardware, None, OFFER)? else { continue };
        if let Some(lease) = exchange(&socket, hardware, Some(&offer), ACK)? {
            return Ok(lease);
        }
    }
    bail!("no server answers by DHCP")
}

/// Sends a question, or the answer to an `offer`, and waits for a message of the kind `wanted`.
fn exchange(
    socket: &UdpSocket,
    hardware: [u8; 6],
    offer: Option<&Lease>,
    wanted: u8,
) -> Result<Option<Lease>> {
    let question = question(hardware, offer);
    socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).context("cannot ask by DHCP")?;
    let until = Instant::now() + PATIENCE;
    let mut answer = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left)).context("cannot wait for an answer")?;
        match socket.recv(&mut answer) {
            Ok(count) => {
                let lease = parse(answer.get(..count).unwrap_or_default(), hardware);
                if let Some(lease) = lease.filter(|lease| lease.kind == wanted) {
                    return Ok(Some(lease));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("cannot read an answer"),
        }
    }
}

fn question(hardware: [u8; 6], offer: Option<&Lease>) -> Vec<u8> {
    let mut message = vec![0; FIELDS];
    // A request (op), by Ethernet (htype) with six octets (hlen).
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&transaction(hardware));
    message[10..12].copy_from_slice(&BROADCAST);
    message[28..34].copy_from_slice(&hardware);
    message.extend(COOKIE);
    let kind = if offer.is_some() { REQUEST } else { DISCOVER };
    message.extend([option::KIND, 1, kind]);
    message.extend([option::WANTED, 3, option::MASK, option::ROUTER, option::RESOLVER]);
    if let Some(offer) = offer {
        message.extend([option::ADDRESS, 4]);
        message.extend(offer.address.octets());
        if let Some(server) = offer.server {
            message.extend([option::SERVER, 4]);
            message.extend(server.octets());
        }
    }
    message.push(option::END);
    message.resize(message.len().max(300), 0); // RFC 1542, section 2.1
    message
}

/// The number of the question: a device asks one at a time.
fn transaction([_, _, a, b, c, d]: [u8; 6]) -> [u8; 4] {
    [a, b, c, d]
}

fn parse(message: &[u8], hardware: [u8; 6]) -> Option<Lease> {
    let address = |bytes: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?));
    let is_answer = message.first() == Some(&2) && message.get(4..8)? == transaction(hardware);
    let mut rest = message.get(FIELDS..)?.strip_prefix(&COOKIE).filter(|_| is_answer)?;
    let own = address(message.get(16..20)?)?;
    let mut lease = Lease {
        address: own,
        prefix: 24,
        gateway: None,
        resolvers: Vec::new(),
        kind: 0,
        server: None,
    };
    while let [code, after @ ..] = rest {
        match *code {
            0 => rest = after,
            option::END => break,
            code => {
                let (length, after) = after.split_first()?;
                let (value, after) = after.split_at_checked((*length).into())?;
                rest = after;
                match code {
                    option::KIND => lease.kind = *value.first()?,
                    option::MASK => lease.prefix = address(value)?.to_bits().leading_ones() as u8,
                    option::ROUTER => lease.gateway = address(value),
                    option::SERVER => lease.server = address(value),
                    option::RESOLVER => {
                        lease.resolvers = value.chunks_exact(4).filter_map(address).collect();
                    }
                    _ => {}
                }
            }
        }
    }
    Some(lease)
}

/// `52:54:00:12:34:56`.
fn octets(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> =
        text.trim().split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut message = question(HARDWARE, None);
        message.truncate(FIELDS + COOKIE.len());
        message[0] = 2;
        message[16..20].copy_from_slice(&[10, 1, 2, 3]);
        message.extend(options);
        message
    }

    #[test]
    fn an_answer_is_read() {
        let options = [
            53, 1, 5, 0, 1, 4, 255, 255, 240, 0, 3, 8, 10, 1, 2, 1, 10, 1, 2, 2, 6, 8, 9, 9, 9, 9,
            8, 8, 8, 8, 54, 4, 10, 1, 2, 1, 12, 1, b'x', 255, 1,
        ];
        let of = Ipv4Addr::new;
        let lease = Lease {
            address: of(10, 1, 2, 3),
            prefix: 20,
            gateway: Some(of(10, 1, 2, 1)),
            resolvers: vec![of(9, 9, 9, 9), of(8, 8, 8, 8)],
            kind: ACK,
            server: Some(of(10, 1, 2, 1)),
        };
        assert_eq!(parse(&answer(&options), HARDWARE), Some(lease));
    }

    #[test]
    fn what_is_cut_or_anothers_is_no_answer() {
        let whole = answer(&[53, 1, 5, 255]);
        for len in 0..FIELDS + COOKIE.len() {
            assert_eq!(parse(&whole[..len], HARDWARE), None, "{len}");
        }
        assert_eq!(parse(&answer(&[53]), HARDWARE), None);
        assert_eq!(parse(&answer(&[1, 4, 255, 255]), HARDWARE), None);
        assert_eq!(parse(&whole, [0; 6]), None);
        assert_eq!(parse(&question(HARDWARE, None), HARDWARE), None);
    }

    #[test]
    fn a_request_names_what_was_offered() {
        let offer = parse(&answer(&[53, 1, 2, 54, 4, 10, 1, 2, 1, 255]), HARDWARE).expect("one");
        let request = question(HARDWARE, Some(&offer));
        let has = |part: &[u8]| request.windows(part.len()).any(|it| it == part);
        assert!(has(&[53, 1, REQUEST]) && has(&[50, 4, 10, 1, 2, 3]) && has(&[54, 4, 10, 1, 2, 1]));
    }

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(octets("52:54:00:12:34:56\n"), Some(HARDWARE));
        assert_eq!(octets("52:54:00:12:34"), None);
        assert_eq!(octets(""), None);
    }
}
