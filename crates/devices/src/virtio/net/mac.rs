//! Addresses of network devices.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// That of the network device of the machine `name`: always the same, and hardly another
    /// machine's.
    pub fn of_machine(name: &str) -> Self {
        // FNV-1a, whose low 40 bits follow a locally administered prefix.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
        Self([0x52, a, b, c, d, e])
    }
}

/// Six pairs of hexadecimal digits, with colons between.
impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(NoMac)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NoMac)?;
        }
        // Of one station, and not all zeros.
        let good = pairs.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6];
        if good { Ok(Self(bytes)) } else { Err(NoMac) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is no address of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no device has that address; write six bytes such as 52:54:00:12:34:56")]
pub struct NoMac;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let text = "52:54:00:12:ab:ff";
        assert_eq!(text.parse::<Mac>().map(|mac| mac.to_string()).as_deref(), Ok(text));
        for none in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "53:54:00:12:34:56"] {
            assert_eq!(none.parse::<Mac>(), Err(NoMac), "{none}");
        }
        assert_eq!("00:00:00:00:00:00".parse::<Mac>(), Err(NoMac));
        assert_eq!("52:54:00:12:34:+6".parse::<Mac>(), Err(NoMac));
    }

    #[test]
    fn machines_have_their_own() {
        let of = |name| Mac::of_machine(name);
        assert_eq!(of("debian").to_string(), of("debian").to_string().to_lowercase());
        assert_ne!(of("debian"), of("debian-2"));
        assert!(of("web").to_string().parse::<Mac>().is_ok());
    }
}
