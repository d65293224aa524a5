//! The DHCPv6 server (RFC 8415): the resolver for who only asks for that, and one address, which
//! lasts, for who wants one from us. It answers where the router offers IPv6, and is silent
//! elsewhere.

use super::context::Context;
use super::reach::Reach;
use super::wire::{Ends, GUEST_V6, OUR_MAC, PREFIX_V6, RESOLVER_V6, ROUTER_V6};
use std::net::{Ipv6Addr, SocketAddr};

/// Where servers listen, and clients.
pub(super) const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
/// All servers of a link (7.1).
pub(super) const SERVERS: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 1, 2);

/// Messages (7.3).
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;
/// Options (21; RFC 3646, 3).
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IA_ADDRESS: u16 = 5;
const STATUS_CODE: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const RESOLVERS: u16 = 23;
const IA_PD: u16 = 25;
/// Status codes (21.13).
const SUCCESS: u16 = 0;
const NO_ADDRESSES: u16 = 2;
const NOT_ON_LINK: u16 = 4;
/// Bytes of an IA_NA's and of an address's fields, before their options (21.4, 21.6).
const IA_FIELDS: usize = 12;
const ADDRESS_FIELDS: usize = 24;
/// Bytes of an identifier at the most (11.1).
const ID_MAX: usize = 130;
/// Associations that are answered.
const ASSOCIATIONS_MAX: usize = 8;
/// Seconds for which the address is preferred and valid, and after which the client asks again.
const PREFERRED: u32 = 43200;
const VALID: u32 = 86400;
const AGAIN: [u32; 2] = [21600, 34560];

/// What a client has sent.
#[derive(Debug, Default)]
struct Asked<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    rapid: bool,
    /// Each identity association's number, and the addresses that it names.
    associations: Vec<([u8; 4], Vec<Ipv6Addr>)>,
    /// It asks for addresses or prefixes of other kinds.
    other: bool,
}

/// Our identifier: a link-layer address, Ethernet's (11.4).
fn own_id() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &OUR_MAC.0].concat()
}

/// The options in `bytes`, up to the first that is cut off.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
        let (code, len) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (data, rest) = rest.split_at_checked(len.into())?;
        bytes = rest;
        Some((code, data))
    })
}

impl<'a> Asked<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut asked = Self::default();
        for (code, data) in options(bytes) {
            match code {
                CLIENT_ID if data.len() <= ID_MAX => asked.client = Some(data),
                SERVER_ID => asked.server = Some(data),
                RAPID_COMMIT => asked.rapid = true,
                IA_NA if asked.associations.len() < ASSOCIATIONS_MAX => {
                    let (Some(number), Some(rest)) = (data.first_chunk(), data.get(IA_FIELDS..))
                    else {
                        continue;
                    };
                    let addresses = options(rest).filter(|(code, _)| *code == IA_ADDRESS);
                    let addresses = addresses.filter_map(|(_, data)| {
                        data.get(..ADDRESS_FIELDS)?.first_chunk::<16>().copied().map(Ipv6Addr::from)
                    });
                    asked.associations.push((*number, addresses.collect()));
                }
                IA_TA | IA_PD => asked.other = true,
                _ => {}
            }
        }
        asked
    }

    /// Whether a message of type `kind` may be so (16).
    fn is_valid(&self, kind: u8) -> bool {
        let ours = self.server == Some(&own_id());
        match kind {
            SOLICIT | CONFIRM | REBIND => self.client.is_some() && self.server.is_none(),
            REQUEST | RENEW | RELEASE | DECLINE => self.client.is_some() && ours,
            INFORMATION_REQUEST => {
                (self.server.is_none() || ours) && self.associations.is_empty() && !self.other
            }
            _ => false,
        }
    }
}

/// Answers the `message` of the client at `source`.
pub(super) fn answer(source: Ipv6Addr, message: &[u8], reach: &Reach, cx: &mut Context<'_>) {
    let Some((&[kind, a, b, c], rest)) = message.split_first_chunk() else { return };
    let asked = Asked::parse(rest);
    if !asked.is_valid(kind) || !reach.offers_ipv6() {
        return;
    }
    let commits = kind == SOLICIT && asked.rapid;
    let reply = if kind == SOLICIT && !commits { ADVERTISE } else { REPLY };
    let mut answer = vec![reply, a, b, c];
    if let Some(client) = asked.client {
        put(&mut answer, CLIENT_ID, client);
    }
    put(&mut answer, SERVER_ID, &own_id());
    match kind {
        SOLICIT | REQUEST | RENEW | REBIND => {
            for (place, (number, addresses)) in asked.associations.iter().enumerate() {
                put(&mut answer, IA_NA, &association(place, *number, addresses));
            }
        }
        CONFIRM => {
            let mut all = asked.associations.iter().flat_map(|(_, addresses)| addresses);
            let here = all.all(|address| address.segments()[..4] == PREFIX_V6.segments()[..4]);
            put_status(&mut answer, if here { SUCCESS } else { NOT_ON_LINK });
        }
        RELEASE | DECLINE => put_status(&mut answer, SUCCESS),
        _ => {}
    }
    if commits {
        put(&mut answer, RAPID_COMMIT, &[]);
    }
    if reach.resolves() {
        put(&mut answer, RESOLVERS, &RESOLVER_V6.octets());
    }
    let guest = SocketAddr::from((source, CLIENT_PORT));
    let remote = SocketAddr::from((ROUTER_V6, SERVER_PORT));
    cx.cable.udp(Ends { guest, remote }, &answer, cx.guest);
}

/// What the association `number` gets: the first has the address. Others that it names are no
/// longer valid.
fn association(place: usize, number: [u8; 4], named: &[Ipv6Addr]) -> Vec<u8> {
    let mut data = number.to_vec();
    data.extend(AGAIN.into_iter().flat_map(u32::to_be_bytes));
    let ours = place == 0;
    if ours {
        put_address(&mut data, GUEST_V6, [PREFERRED, VALID]);
    } else {
        put_status(&mut data, NO_ADDRESSES);
    }
    for address in named.iter().filter(|address| !(ours && **address == GUEST_V6)) {
        put_address(&mut data, *address, [0, 0]);
    }
    data
}

fn put_address(into: &mut Vec<u8>, address: Ipv6Addr, times: [u32; 2]) {
    let mut data = address.octets().to_vec();
    data.extend(times.into_iter().flat_map(u32::to_be_bytes));
    put(into, IA_ADDRESS, &data);
}

fn put_status(into: &mut Vec<u8>, status: u16) {
    put(into, STATUS_CODE, &status.to_be_bytes());
}

/// Adds an option, which fits: a message has 64 KiB, and all that is echoed came in one.
fn put(into: &mut Vec<u8>, code: u16, data: &[u8]) {
    into.extend(code.to_be_bytes());
    into.extend((data.len() as u16).to_be_bytes());
    into.extend(data);
}
